"""Annotations to array records and back: drawn data, killed builds, damaged folders."""

import dataclasses
import hashlib
import json
import pickle
import signal
import subprocess
import sys
import zipfile

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from places import ROOT

from dit_jax.data.annotations import refer
from dit_jax.data.entries import Annotations, Entry, MaskFile
from dit_jax.data.pixels import open_images
from dit_jax.data.records import format, write
from dit_jax.data.records.folder import Records, build, existing, manifest, verify
from dit_jax.data.referent import Source
from dit_jax.lease import Lease

HEIGHT, WIDTH = 24, 40
SQUARE = [4, 4, 12, 4, 12, 12, 4, 12]
OVERLAPPING = [8, 8, 20, 8, 20, 16, 8, 16]
CROWD = {"size": [HEIGHT, WIDTH], "counts": [100, 50, HEIGHT * WIDTH - 150]}
FORMS = (([SQUARE, OVERLAPPING],), (CROWD,), (), ([SQUARE], [OVERLAPPING]))


def entry(number, split, **changes):
    """Referent `number`; two in a row share a picture."""
    count = 1 + number % 3
    segmentations = FORMS[number % len(FORMS)]
    values = {
        "name": f"drawn {split} ref_id {number}",
        "split": split,
        "file_name": f"{number // 2}.png",
        "image_id": 500 + number // 2,
        "size": (HEIGHT, WIDTH),
        "segmentations": segmentations,
        "boxes": (),
        "expressions": tuple(f"the çhair {number} {i}" for i in range(count)),
        "ref_id": number,
        "ann_ids": tuple(10 * number + i for i in range(len(segmentations))),
        "sent_ids": tuple(100 * number + i for i in range(count)),
    }
    return Entry(**{**values, **changes})


def drawn(root, counts=(("train", 7), ("val", 4)), **changes):
    """Pictures and a file of annotations in `root`; `changes` are made to referent 1."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    splits, number = {}, 0
    for split, count in counts:
        numbers = range(number, number + count)
        splits[split] = tuple(entry(n, split, **(changes if n == 1 else {})) for n in numbers)
        number += count
    for picture in range(number // 2 + 1):
        pixels = np.random.default_rng(picture).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        cv2.imwrite(str(root / f"images/{picture}.png"), pixels)
    (root / "refs.p").write_text("what the annotations were read from")
    return Annotations(
        dataset="drawn(unc)",
        splits=splits,
        sources={"refs": root / "refs.p"},
        images=root / "images",
    )


def make(annotations, out_dir, **options):
    return build(annotations, out_dir=out_dir, **{"progress": False, "shard_entries": 3, **options})


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def zipped(annotations, root):
    with zipfile.ZipFile(root / "pictures.zip", "w") as archive:
        for path in annotations.images.iterdir():
            archive.write(path, f"train2014/{path.name}")
    return dataclasses.replace(annotations, images=root / "pictures.zip")


@pytest.mark.parametrize(("dataset", "split_by"), [("refcoco", "unc"), ("refcocog", "umd")])
def test_real_records_equal_their_files(shared, tmp_path, dataset, split_by):
    root = shared / "data/mini_refcoco"
    annotations = refer.read(dataset, split_by, source=root)
    path = make(annotations, tmp_path, shard_entries=1000)
    for split, entries in annotations.splits.items():
        source = Records(path, split)
        assert len(source) == len(entries) > 0
        for position, expected in enumerate(entries):
            found = source[position]
            mask = cv2.imread(str(root / f"masks/{expected.ann_ids[0]}.png"), cv2.IMREAD_GRAYSCALE)
            np.testing.assert_array_equal(found.mask, mask > 0)
            assert (found.expressions, found.image_id) == (expected.expressions, expected.image_id)


@pytest.mark.parametrize("pictures", ["folder", "zip"])
def test_what_was_written_comes_back(tmp_path, pictures):
    annotations = drawn(tmp_path)
    path = make(
        zipped(annotations, tmp_path) if pictures == "zip" else annotations, tmp_path / "out"
    )
    union = np.zeros((HEIGHT, WIDTH), bool)
    union[4:12, 4:12] = union[8:16, 8:20] = True
    crowd = np.zeros(HEIGHT * WIDTH, bool)
    crowd[100:150] = True
    empty = np.zeros((HEIGHT, WIDTH), bool)
    truths = (union, crowd.reshape(WIDTH, HEIGHT).T, empty, union)
    for split, entries in annotations.splits.items():
        source = Records(path, split)
        assert isinstance(source, Source) and len(source) == len(entries)
        assert source.expression_counts().tolist() == [len(e.expressions) for e in entries]
        assert source.image_ids().tolist() == [e.image_id for e in entries]
        assert source.image_ids().dtype == np.int64
        for position, expected in enumerate(entries):
            referent, truth = source[position], source.truth(position)
            pixels = cv2.imread(str(annotations.images / expected.file_name))[..., ::-1]
            np.testing.assert_array_equal(referent.image, pixels)
            np.testing.assert_array_equal(referent.mask, truths[expected.ref_id % 4])
            np.testing.assert_array_equal(truth.mask, referent.mask)
            for found in (referent, truth):
                assert found.expressions == expected.expressions
                assert found.id == f"{expected.name} ({expected.file_name})"
                assert found.image_id == expected.image_id
            assert source.record_ids(position) == {
                "ref_id": expected.ref_id,
                "ann_ids": list(expected.ann_ids),
                "sent_ids": list(expected.sent_ids),
                "file_name": expected.file_name,
            }
        for outside in (-1, len(entries)):
            for read in (source.__getitem__, source.truth, source.record_ids):
                with pytest.raises(IndexError, match=f"referent {outside} of a split of"):
                    read(outside)
    assert "tensorflow" not in sys.modules


def test_the_manifest_says_what_was_built_from_what(tmp_path):
    annotations = drawn(tmp_path)
    path = make(annotations, tmp_path / "out", remarks=["3 crowds", "a box off its picture"])
    built = manifest(path)
    assert built["dataset"] == "drawn(unc)" and path == tmp_path / "out/drawn_unc"
    assert built["splits"] == {
        "train": {"referents": 7, "expressions": 13, "images": 4, "no_target": 2},
        "val": {"referents": 4, "expressions": 8, "images": 3, "no_target": 1},
    }
    refs = annotations.sources["refs"]
    digest = hashlib.sha256(refs.read_bytes()).hexdigest()
    assert built["sources"] == {"refs": {"path": str(refs), "sha256": digest}}
    assert built["left_out"] == [] and built["remarks"] == ["3 crowds", "a box off its picture"]
    for name, data in contents(path).items():
        if name != "manifest.json":
            assert built["files"].pop(name) == hashlib.sha256(data).hexdigest()
    assert built["files"] == {}
    assert {"array_record", "tensorflow-datasets", "pycocotools", "opencv"} <= set(
        built["versions"]
    )


def test_tfds_reads_the_folder_without_this_package(tmp_path):
    path = make(drawn(tmp_path), tmp_path / "out")
    builder = tfds.builder_from_directory(path)
    assert builder.info.splits["train"].num_examples == 7
    assert builder.info.splits["train"].shard_lengths == [3, 3, 1]
    ids = [record["id"].decode() for record in builder.as_data_source("val")]
    assert ids == [f"drawn val ref_id {n} ({n // 2}.png)" for n in range(7, 11)]


def test_own_pictures_are_known_by_their_content(tmp_path):
    annotations = drawn(tmp_path, counts=(("train", 6),))
    own = tuple(
        dataclasses.replace(e, image_id=None, size=None) for e in annotations.splits["train"]
    )
    images = annotations.images
    (images / "2.png").write_bytes((images / "0.png").read_bytes())  # a copy has the same identity
    path = make(dataclasses.replace(annotations, splits={"train": own}), tmp_path / "out")
    ids = Records(path, "train").image_ids()
    digests = [hashlib.sha256((images / e.file_name).read_bytes()).hexdigest() for e in own]
    assert ids.tolist() == [2**62 + int(digest[:15], 16) for digest in digests]
    assert Records(path, "train").contents().tolist() == ids.tolist()
    numbered = Records(make(annotations, tmp_path / "numbered"), "train")
    assert numbered.contents().tolist() == ids.tolist()
    assert numbered.image_ids().tolist() == [e.image_id for e in annotations.splits["train"]]
    assert ids[0] == ids[1] == ids[4] != ids[2]


def test_a_mask_picture_is_a_mask(tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[3:9, 5:30] = 1
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    annotations = drawn(tmp_path, segmentations=(MaskFile(tmp_path / "mask.png"),))
    path = make(annotations, tmp_path / "out")
    np.testing.assert_array_equal(Records(path, "train")[1].mask, mask > 0)
    other = drawn(tmp_path, segmentations=(MaskFile(tmp_path / "mask.png", label=0),))
    with pytest.raises(ValueError, match="same files .* give other records now"):
        make(other, tmp_path / "out")
    mask[0, 0] = 1
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    with pytest.raises(ValueError, match="same files .* give other records now .*mask pictures"):
        make(annotations, tmp_path / "out")


def test_a_picture_is_decoded_once_for_its_referents(tmp_path, monkeypatch):
    decoded = []
    real = write.decode_image
    monkeypatch.setattr(
        write,
        "decode_image",
        lambda data, name: decoded.append(name) or real(data, name=name),
    )
    make(drawn(tmp_path), tmp_path / "out")
    assert len(decoded) == 6  # of 11 referents


def test_what_is_kept_of_pictures_is_bounded_in_bytes(tmp_path, monkeypatch):
    images = drawn(tmp_path).images
    monkeypatch.setattr(write, "RECENT_BYTES", (images / "0.png").stat().st_size + 10)
    decoded, real = [], write.decode_image
    monkeypatch.setattr(
        write, "decode_image", lambda data, name: decoded.append(name) or real(data, name=name)
    )
    pictures = write.Pictures(open_images(images))
    for name in ("0.png", "0.png", "1.png", "1.png", "0.png"):
        pictures.read(name, name=name)
    assert decoded == ["0.png", "1.png", "0.png"]


def test_a_second_build_writes_nothing_and_other_files_are_noticed(tmp_path):
    annotations = drawn(tmp_path)
    path = make(annotations, tmp_path / "out")
    before = {file: file.stat().st_mtime_ns for file in path.iterdir()}
    assert make(annotations, tmp_path / "out") == path
    assert existing(tmp_path / "out", "drawn(unc)") == path
    assert existing(tmp_path / "out", "drawn(google)") is None
    assert {file: file.stat().st_mtime_ns for file in path.iterdir()} == before
    annotations.sources["refs"].write_text("something else")
    with pytest.raises(
        ValueError, match=r"drawn_unc was built from other files: .*refs.p .*refs.p"
    ):
        make(annotations, tmp_path / "out")
    annotations.sources["refs"].unlink()  # nothing to compare: the records stand for themselves
    assert make(annotations, tmp_path / "out") == path
    assert {file: file.stat().st_mtime_ns for file in path.iterdir()} == before


def test_the_same_files_read_in_another_way_are_noticed(tmp_path):
    annotations = drawn(tmp_path)
    make(annotations, tmp_path / "out")
    moved = {"train": annotations.splits["val"], "val": annotations.splits["train"]}
    with pytest.raises(ValueError, match="built from the same files .* another share of val"):
        make(dataclasses.replace(annotations, splits=moved), tmp_path / "out")


BROKEN = [
    (
        {"size": (HEIGHT + 1, WIDTH)},
        r"the annotations say 25x40 \(height x width\) but the picture",
    ),
    ({"file_name": "gone.png"}, "the picture .*gone.png is missing"),
    ({"file_name": "text.png"}, "the picture .* cannot be decoded"),
    ({"expressions": ()}, "an expression is empty"),
    ({"expressions": ("a", " ")}, "an expression is empty"),
    ({"sent_ids": (1, 2, 3)}, "2 expressions have 3 sent_ids"),
    ({"segmentations": ([],)}, "object 1 of 1: the mask is empty"),
    ({"segmentations": ([[4, 4, 8, 8]],)}, "object 1 of 1: the mask is empty"),
    ({"segmentations": (CROWD | {"size": [WIDTH, HEIGHT]},)}, "the mask is 40x24"),
    ({"segmentations": None}, "its mask is unknown"),
]


@pytest.mark.parametrize(("changes", "message"), BROKEN)
def test_a_broken_record_stops_the_build_and_is_named(tmp_path, changes, message):
    annotations = drawn(tmp_path, **changes)
    (annotations.images / "text.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=rf"^drawn train ref_id 1 \([a-z0]+.png\): .*{message}"):
        make(annotations, tmp_path / "out")
    assert existing(tmp_path / "out", "drawn(unc)") is None


@pytest.mark.parametrize(("changes", "message"), BROKEN)
def test_a_broken_record_can_be_left_out_and_is_listed(tmp_path, changes, message):
    annotations = drawn(tmp_path, **changes)
    (annotations.images / "text.png").write_bytes(b"no picture")
    path = make(annotations, tmp_path / "out", on_error="skip")
    train = Records(path, "train")
    assert [train.record_ids(i)["ref_id"] for i in range(len(train))] == [0, 2, 3, 4, 5, 6]
    (left_out,) = manifest(path)["left_out"]
    assert left_out["record"] == "drawn train ref_id 1"
    with pytest.raises(ValueError, match=message):
        raise ValueError(left_out["reason"])
    assert manifest(path)["splits"]["train"]["referents"] == 6
    verify(path, progress=False)


def test_a_shard_may_lose_all_its_records_but_a_split_may_not(tmp_path):
    annotations = drawn(tmp_path)
    for picture in ("0.png", "1.png"):
        (annotations.images / picture).unlink()
    path = make(annotations, tmp_path / "out", on_error="skip")
    assert manifest(path)["splits"]["train"]["referents"] == 3 and len(Records(path, "train")) == 3
    assert Records(path, "train").record_ids(0)["ref_id"] == 4
    for picture in annotations.images.iterdir():
        picture.unlink()
    with pytest.raises(ValueError, match=r"every record of train is broken; .*0.png is missing"):
        make(annotations, tmp_path / "other", on_error="skip")


# Runs builds of the pickled annotations at once, each in its own process, which kills itself where
# a function is called for the nth time. Prints how each process ended.
BUILDS = """
import importlib, json, os, pickle, signal, sys
from pathlib import Path
from dit_jax.data import records
from dit_jax.data.records import write

def counting(function, calls, limit):
    def run(*args, **kwargs):
        calls.append(function)
        if len(calls) == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return run

def job(out, where, nth):
    written = []
    write.serialize = counting(write.serialize, written, 0)
    module, name = where.rsplit(".", 1)
    module = importlib.import_module(module)
    setattr(module, name, counting(getattr(module, name), [], nth))
    os.write(1, b"ready\\n")  # at once, where print may be cut in two by the other process
    records.build(annotations, out_dir=out, progress=False, shard_entries=3)
    return len(written)

root = Path(sys.argv[1])
annotations = pickle.loads((root / "annotations.pickle").read_bytes())
processes = []
for arguments in json.loads(sys.argv[2]):
    if (process := os.fork()) == 0:
        os._exit(job(*arguments))
    processes.append(process)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in processes]))
"""

MOMENTS = {  # before which call
    "a plan": ("os.replace", 1),
    "the middle of the second shard": ("dit_jax.data.records.write.entry_mask", 5),
    "a complete shard is renamed": ("os.replace", 4),
    "its note": ("os.replace", 5),
    "the manifest": ("dit_jax.data.records.folder.write_json", 1),
    "verification": ("dit_jax.data.records.folder.verify", 1),
    "it is visible": ("os.rename", 1),
    "tidying up": ("shutil.rmtree", 1),
}


def start(root, annotations, jobs):
    """Start builds; a job is a folder for the records, and the call before which it is killed."""
    (root / "annotations.pickle").write_bytes(pickle.dumps(annotations))
    command = [sys.executable, "-c", BUILDS, str(root), json.dumps(jobs)]
    here = ROOT
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=here)


def exit_codes(builds):
    return json.loads(builds.communicate()[0].splitlines()[-1])


def test_a_killed_build_is_continued_to_the_same_bytes(tmp_path):
    annotations = drawn(tmp_path, counts=(("train", 8), ("val", 4)))
    folders = {moment: tmp_path / str(number) for number, moment in enumerate(MOMENTS)}
    jobs = [[str(folders[moment]), *call] for moment, call in MOMENTS.items()]
    builds = start(tmp_path, annotations, jobs)
    expected = contents(make(annotations, tmp_path / "whole"))
    assert exit_codes(builds) == [-signal.SIGKILL] * len(jobs)
    for moment, folder in folders.items():
        assert (existing(folder, "drawn(unc)") is None) == (moment != "tidying up")
        kept = {
            file.name: file.stat().st_ino for file in folder.glob("incomplete.*/records/*-of-*")
        }
        path = make(annotations, folder)
        assert contents(path) == expected, moment
        if moment == "its note":  # that shard is not known to be complete
            del kept["referents-train.array_record-00001-of-00003"]
        assert {name: (path / name).stat().st_ino for name in kept} == kept, (
            f"{moment}: finished shards were written again"
        )
        visible = [file.name for file in folder.iterdir() if not file.name.startswith(".")]
        assert visible == ["drawn_unc"], moment


def test_builds_at_once_are_one_build(tmp_path):
    annotations = drawn(tmp_path)
    (tmp_path / "out").mkdir()
    with Lease(tmp_path / "out", purpose="building", name=".drawn_unc.lease"):
        # So that both find somebody else at work.
        builds = start(tmp_path, annotations, [[str(tmp_path / "out"), "os.getcwd", 0]] * 2)
        assert [builds.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
        assert existing(tmp_path / "out", "drawn(unc)") is None
    assert sorted(exit_codes(builds)) == [0, 11]  # how many records each has written
    assert contents(tmp_path / "out/drawn_unc") == contents(make(annotations, tmp_path / "alone"))


def interrupted(annotations, out_dir, monkeypatch, **options):
    """A build that stops before it becomes visible; returns the folder of its shards."""
    with monkeypatch.context() as patch:
        patch.setattr("dit_jax.data.records.folder.verify", _stop)
        with pytest.raises(KeyboardInterrupt):
            make(annotations, out_dir, **options)
    return out_dir / "incomplete.drawn_unc/records"


def _stop(*args, **kwargs):
    raise KeyboardInterrupt


def test_a_damaged_shard_of_a_killed_build_is_written_again(tmp_path, monkeypatch):
    annotations = drawn(tmp_path)
    records = interrupted(annotations, tmp_path / "out", monkeypatch)
    expected = contents(records)
    for name in ("referents-train.array_record-00001-of-00003", "manifest.json"):
        file = records / name
        file.write_bytes(file.read_bytes()[:-20])
    assert contents(make(annotations, tmp_path / "out")) == expected


def test_what_a_killed_build_left_out_is_looked_at_again(tmp_path, monkeypatch):
    annotations = drawn(tmp_path)
    picture = annotations.images / "0.png"
    data = picture.read_bytes()
    picture.unlink()
    interrupted(annotations, tmp_path / "out", monkeypatch, on_error="skip")
    with pytest.raises(ValueError, match="ref_id 0 .*0.png is missing"):
        make(annotations, tmp_path / "out", on_error="stop")
    picture.write_bytes(data)
    path = make(annotations, tmp_path / "out", on_error="skip")
    assert manifest(path)["left_out"] == [] and len(Records(path, "train")) == 7


def test_what_another_build_began_is_not_continued(tmp_path, monkeypatch):
    annotations = drawn(tmp_path)
    interrupted(annotations, tmp_path / "out", monkeypatch)
    other = drawn(tmp_path, expressions=("another", "sentence"))
    path = make(other, tmp_path / "out")
    assert Records(path, "train")[1].expressions == ("another", "sentence")
    assert contents(path) == contents(make(other, tmp_path / "alone"))


def _flip(path):
    file = next(path.glob("*val*"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def _lose(path):
    next(path.glob("*val*")).unlink()


def _reorder_index(path):
    arrays = format.index(path)
    np.savez(path / "index.npz", **{name: array[::-1] for name, array in arrays.items()})


def _rewrite(path, change):
    built = json.loads((path / "manifest.json").read_text())
    change(built)
    (path / "manifest.json").write_text(json.dumps(built))


def _forge_index(path):
    _reorder_index(path)
    digest = hashlib.sha256((path / "index.npz").read_bytes()).hexdigest()
    _rewrite(path, lambda built: built["files"].update({"index.npz": digest}))


def _miscount(path):
    _rewrite(path, lambda built: built["splits"]["val"].update(no_target=2))


def _truncate_manifest(path):
    (path / "manifest.json").write_text((path / "manifest.json").read_text()[:-10])


def _age(path):
    _rewrite(path, lambda built: built.update(format=0))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_flip, "referents-val.array_record-0000.-of-00002 is missing or not what was built"),
        (_lose, "referents-val.array_record-0000.-of-00002 is missing or not what was built"),
        (_reorder_index, "index.npz is missing or not what was built"),
        (_forge_index, r"train: record 0 \(drawn train ref_id 0 .*is not the index's"),
        (_miscount, "val: found .*'no_target': 1.* the manifest says .*'no_target': 2"),
        (_truncate_manifest, "manifest.json is damaged"),
        (_age, "holds records of format 0, expected 3"),
    ],
)
def test_verify_notices(tmp_path, damage, message):
    path = make(drawn(tmp_path), tmp_path / "out")
    verify(path, progress=False)
    damage(path)
    with pytest.raises(ValueError, match=message):
        verify(path, progress=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objects": 0}, "0 objects are meant, but the mask is not empty"),
        ({"height": WIDTH, "width": HEIGHT}, "the picture is 24x40 .* but the record says 40x24"),
        ({"image": b"no picture"}, "the picture .* cannot be decoded"),
        ({"image_id": 7}, "is not the index's"),
    ],
)
def test_a_build_that_writes_nonsense_stays_invisible(tmp_path, monkeypatch, changes, message):
    real = write.serialize
    with monkeypatch.context() as patch:
        patch.setattr(write, "serialize", lambda example: real({**example, **changes}))
        with pytest.raises(ValueError, match=message):
            make(drawn(tmp_path, counts=(("train", 2),)), tmp_path / "out")
    assert existing(tmp_path / "out", "drawn(unc)") is None


def test_wrong_names_are_answered_with_the_right_ones(tmp_path):
    annotations = drawn(tmp_path)
    with pytest.raises(ValueError, match="on_error is 'ignore', expected one of stop, skip"):
        make(annotations, tmp_path / "out", on_error="ignore")
    with pytest.raises(ValueError, match="no records here; expected a folder that build"):
        Records(tmp_path, "val")
    path = make(annotations, tmp_path / "out")
    with pytest.raises(ValueError, match="no split 'testA', expected one of train, val"):
        Records(path, "testA")
    gone = dataclasses.replace(annotations, sources={"refs": tmp_path / "gone.p"})
    with pytest.raises(ValueError, match=r"gone.p is missing; expected the file"):
        make(gone, tmp_path / "other")
    with pytest.raises(ValueError, match=r"drawn\(unc\): there is no referent in it"):
        make(dataclasses.replace(annotations, splits={"train": ()}), tmp_path / "other")
    odd = dataclasses.replace(annotations, splits={"test-A": annotations.splits["val"]})
    with pytest.raises(ValueError, match="a split is called 'test-A', expected letters"):
        make(odd, tmp_path / "other")
    (tmp_path / "full/drawn_unc").mkdir(parents=True)
    (tmp_path / "full/drawn_unc/thesis.tex").touch()
    with pytest.raises(ValueError, match="drawn_unc holds something else than records"):
        make(annotations, tmp_path / "full")


def test_records_travel_to_a_worker_process(tmp_path):
    val = Records(make(drawn(tmp_path), tmp_path / "out"), "val")
    again = pickle.loads(pickle.dumps(val))
    np.testing.assert_array_equal(again[1].image, val[1].image)
    np.testing.assert_array_equal(again.image_ids(), val.image_ids())

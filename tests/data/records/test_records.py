"""Annotations to array records and back."""

import dataclasses
import hashlib
import pickle
import sys

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from record_folders import HEIGHT, WIDTH, contents, drawn, make, zipped

from dit_jax.data.annotations import refer
from dit_jax.data.entries import MaskFile
from dit_jax.data.pixels import open_images
from dit_jax.data.records import write
from dit_jax.data.records.folder import Records, existing, manifest
from dit_jax.data.referent import Source


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

"""One command checks a data set and builds its records; training does the same by itself."""

import json
import pickle
import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import refer_folders
from absl.testing import flagsaver
from places import ROOT

from dit_jax import cli
from dit_jax import config as configs
from dit_jax.data import records
from dit_jax.data.annotations import PUBLISHED, datasets
from dit_jax.data.prepare import main, prepare

# ml_collections 1.1, at every config file that a flag names, on Python 3.11
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

PHOTO = "images/train2014/COCO_train2014_{:012d}.jpg"


@pytest.fixture
def root(tmp_path):
    return refer_folders.write(
        tmp_path / "refer", "refcoco", "unc", {"train": (1, 1, 2), "val": (3,)}
    )


@pytest.fixture
def out(tmp_path):
    return tmp_path / "records"


def run(root, out, *more):
    """The exit status of the command line."""
    chosen = ["--dataset=refcoco", "--split-by=unc", f"--source={root}", f"--out={out}"]
    return main([*chosen, *more])


def rewrite(root, change):
    file = root / "refcoco/refs(unc).p"
    refs = pickle.loads(file.read_bytes())
    change(refs)
    file.write_bytes(pickle.dumps(refs, protocol=2))


def cut_off(path):
    path.write_bytes(path.read_bytes()[:100])


def test_checks_builds_and_says_how_to_go_on(root, out, capsys):
    assert run(root, out) == 0
    said = capsys.readouterr().out
    assert "refcoco(unc): 4 referents, 8 expressions" in said
    assert "train: expected 42,404 referents, found 3" in said
    assert "Not checked: which sentences are cut, because no vocabulary was given" in said
    assert re.search(r"Checked in \d+\.\d s, [\d,]+ MB at most\.", said)
    assert "train: 3 referents, 6 expressions, 2 images, 0 no_target" in said
    found = records.Records(out / "refcoco_unc", "val")
    assert len(found) == 1 and found[0].id.startswith("refcoco(unc) val ref_id 1003")
    remarks = records.manifest(out / "refcoco_unc")["remarks"]
    assert [remark.split(":")[0] for remark in remarks] == ["splits of other sizes than published"]


def test_the_next_command_is_one_that_is_understood(root, out, capsys):
    run(root, out, f"--images={root / 'images/train2014'}")
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert words[:2] == ["python", "launch.py"]
    settings = [word.split("=", 1) for word in words if word.startswith("--config.data.")]
    names = {name.removeprefix("--config.data.") for name, _ in settings}
    assert names <= set(configs.Data.__dataclass_fields__)
    assert Path(words[2].split("=")[1].split(":")[0]).is_file()
    assert ["--config.data.cache_dir", str(out)] in settings


PRINTED = {
    (dataset, by): [*PUBLISHED[f"{dataset}({by})"]] or ["train", "val", "test"]
    for dataset, kind in datasets.KINDS.items()
    for by in kind.splits_by
    if dataset != "folder"
}


@pytest.mark.parametrize(("dataset", "split_by"), PRINTED)
def test_the_next_command_scores_splits_that_are_there(
    tmp_path, dataset, split_by, capsys, monkeypatch
):
    splits = PRINTED[dataset, split_by]
    pictures = {split: [number] for number, split in enumerate(reversed(splits), start=1)}
    root = refer_folders.write(tmp_path, dataset, split_by, pictures)
    if dataset == "grefcoco":
        (root / "grefcoco/refs(unc).p").rename(root / "grefcoco/grefs(unc).p")
    chosen = [f"--dataset={dataset}", f"--split-by={split_by}", f"--source={root}"]
    found = next_config([*chosen, f"--out={tmp_path / 'out'}"], capsys, monkeypatch)
    assert [*found.data.eval_splits] == splits[1:]
    assert found.model.presence == (dataset == "grefcoco")
    assert found.eval.best == ("gres" if dataset == "grefcoco" else "dit")


@pytest.mark.parametrize(("there", "scored"), [(("val", "test"), "val"), (("test",), "test")])
def test_the_next_command_of_an_own_folder(tmp_path, there, scored, capsys, monkeypatch):
    folder, line = own_folder(tmp_path / "photos", shade=10), dict(text="it", box=[1, 2, 3, 4])
    (folder / "annotations.jsonl").unlink()
    for split, name in zip(("train", *there), "abb", strict=False):
        (folder / f"{split}.jsonl").write_text(json.dumps(line | {"image": f"{name}.png"}))
    chosen = ["--dataset=folder", f"--source={folder}", f"--out={tmp_path / 'out'}"]
    assert next_config(chosen, capsys, monkeypatch).data.eval_splits == (scored,)


def next_config(chosen, capsys, monkeypatch):
    """The config of the command that is printed, as launch.py reads it."""
    assert main(chosen) == 0
    line = shlex.split(capsys.readouterr().out.splitlines()[-1])[1:]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", line)  # ml_collections looks there for keys that are changed
    with flagsaver.flagsaver():
        cli.parse(line)
        return cli.config()


def test_existing_records_are_used_and_not_checked_again(root, out, capsys):
    assert run(root, out) == 0
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.is_file()}
    cut_off(root / PHOTO.format(1))
    capsys.readouterr()
    assert run(root, out) == 0
    said = capsys.readouterr().out
    assert said.startswith("The records exist already") and "Train on it" in said
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert run(root, out, "--check-only") == 1


def test_a_check_builds_nothing(root, out, capsys):
    assert run(root, out, "--check-only") == 0
    assert "Worth knowing" in capsys.readouterr().out and not out.exists()


def test_all_that_is_wrong_is_listed_before_anything_is_written(root, out, capsys):
    cut_off(root / PHOTO.format(1))
    (root / PHOTO.format(2)).unlink()
    rewrite(root, lambda refs: refs[3]["sentences"][0].update(sent=" "))
    assert run(root, out) == 1
    printed = capsys.readouterr()
    for kind, name in (
        ("pictures that cannot be read: 1", "train ref_id 1000"),
        ("pictures that are missing: 1", "train ref_id 1002"),
        ("expressions without a word: 1", "val ref_id 1003: ' '."),
    ):
        assert re.search(f"(?s)Stops the build \\(3\\).*{kind}\n.*{name}", printed.out)
    assert printed.err.startswith("error: refcoco(unc) cannot be built because of ")
    assert printed.err.rstrip().endswith("--on-error=skip leaves such records out.")
    assert not out.exists()


def test_broken_records_can_be_left_out(root, out, capsys):
    cut_off(root / PHOTO.format(1))
    assert run(root, out, "--on-error=skip") == 0
    assert "left out: 2 (listed in" in capsys.readouterr().out
    assert len(records.Records(out / "refcoco_unc", "train")) == 1
    assert [broken["record"] for broken in records.manifest(out / "refcoco_unc")["left_out"]] == [
        "refcoco(unc) train ref_id 1000",
        "refcoco(unc) train ref_id 1001",
    ]


@pytest.mark.parametrize("gone", ["refcoco/instances.json", "images"])
def test_leaving_out_everything_is_refused(root, out, gone, capsys):
    (root / gone).rename(root / "gone")
    assert run(root, out, "--on-error=skip") == 1
    assert "that are" in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--dataset=refcoco++"],
            "there is no data set refcoco++(unc); expected one of refcoco(un",
        ),
        (["--split-by="], "there is no data set refcoco; expected one of refcoco(unc), "),
        (["--source=gone"], "refs(unc).p is missing; expected REFER's file of expressions"),
        (["--images=gone.zip"], "gone.zip is missing; expected a folder or zip file"),
        (["--vocab=gone.txt"], "gone.txt: no such vocabulary file"),
        (["--vocab=V", "--text-tokens=2"], "length is 2, expected at least 3"),
    ],
)
def test_what_is_wrong_with_the_command_is_one_sentence(root, out, more, message, capsys):
    assert run(root, out, *more) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and message in printed.err
    assert printed.err.count("\n") == 1 and not out.exists()


def test_training_builds_once_and_quietly(root, out, capsys):
    path = prepare("refcoco", "unc", source=root, out_dir=out)
    assert path == out / records.folder_name("refcoco(unc)")
    assert capsys.readouterr().out == ""
    (root / "images").rename(root / "gone")
    assert prepare("refcoco", "unc", source=root, out_dir=out) == path
    assert prepare("refcoco", "unc", source=root / "gone", out_dir=out) == path


def test_training_hears_of_other_annotations(root, out):
    prepare("refcoco", "unc", source=root, out_dir=out)
    rewrite(root, lambda refs: refs.pop())
    with pytest.raises(ValueError, match="refcoco_unc was built from another refs file than"):
        prepare("refcoco", "unc", source=root, out_dir=out)


def test_training_does_not_begin_with_broken_data(root, out):
    cut_off(root / PHOTO.format(1))
    with pytest.raises(ValueError, match=r"that cannot be read \(1\); the first: .* ref_id 1000: "):
        prepare("refcoco", "unc", source=root, out_dir=out)
    assert not out.exists()
    path = prepare("refcoco", "unc", source=root, out_dir=out, on_error="skip")
    assert len(records.Records(path, "train")) == 1


def test_grefcoco_keeps_what_means_nothing(tmp_path, out):
    root = refer_folders.write(tmp_path, "grefcoco", "unc", {"train": (1, 1), "val": (2,)})
    refs = pickle.loads((root / "grefcoco/refs(unc).p").read_bytes())
    refs[1].update(ann_id=[-1], no_target=True)
    refs[0].update(ann_id=[100, 101])
    (root / "grefcoco/grefs(unc).json").write_text(json.dumps(refs))
    path = prepare("grefcoco", "unc", source=root, out_dir=out)
    train = records.Records(path, "train")
    assert train[0].mask[10, 6] and train[0].mask[10, 30] and not train[1].mask.any()
    assert records.manifest(path)["splits"]["train"]["no_target"] == 1


def test_crowds_are_left_out_where_the_command_says_so(tmp_path, out, capsys):
    root = refer_folders.write(tmp_path, "refcoco", "unc", {"train": (1, 1)})
    file = root / "refcoco/instances.json"
    instances = json.loads(file.read_text())
    instances["annotations"][0]["iscrowd"] = 1
    file.write_text(json.dumps(instances))
    assert run(root, out, "--crowds=drop") == 0
    said = capsys.readouterr().out
    assert "crowds that are left out: 1" in said and "--config.data.crowds=drop" in said
    assert len(records.Records(out / "refcoco_unc", "train")) == 1
    assert run(root, out) == 1
    assert "was built with crowds=drop, and crowds=keep is asked for" in capsys.readouterr().err


def own_folder(path, shade):
    """One example in train and one in val, with masks as pictures."""
    path.mkdir(parents=True)
    mask = np.zeros((20, 30), np.uint8)
    mask[5:9, 5:9] = 255
    lines = []
    for name, split in (("a", "train"), ("b", "val")):
        cv2.imwrite(str(path / f"{name}.png"), np.full((20, 30, 3), shade + len(lines), np.uint8))
        cv2.imwrite(str(path / f"{name}_mask.png"), mask)
        lines.append(
            dict(image=f"{name}.png", text="the cup", mask=f"{name}_mask.png", split=split)
        )
    (path / "annotations.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return path


def test_own_folders_of_one_name_are_two_data_sets(tmp_path, out):
    first = own_folder(tmp_path / "x/photos", shade=10)
    second = own_folder(tmp_path / "y/photos", shade=20)
    paths = [prepare("folder", "", source=folder, out_dir=out) for folder in (first, second)]
    assert all(re.fullmatch(r"folder_photos_[0-9a-f]{8}", path.name) for path in paths)
    shades = [records.Records(path, "train")[0].image[0, 0, 0] for path in paths]
    assert shades == [10, 20]


def test_a_mask_that_changed_is_noticed(tmp_path, out):
    folder = own_folder(tmp_path / "photos", shade=10)
    path = prepare("folder", "", source=folder, out_dir=out)
    assert prepare("folder", "", source=folder, out_dir=out) == path
    cv2.imwrite(str(folder / "a_mask.png"), np.full((20, 30), 255, np.uint8))
    with pytest.raises(ValueError, match="was built from"):
        prepare("folder", "", source=folder, out_dir=out)
    folder.rename(tmp_path / "moved")
    assert prepare("folder", "", source=folder, out_dir=out) == path  # records need no source


def test_own_folders_bring_their_pictures(tmp_path, out):
    folder = own_folder(tmp_path / "photos", shade=10)
    with pytest.raises(ValueError, match="expected none: an own folder holds its pictures"):
        prepare("folder", "", source=folder, images=folder, out_dir=out)


def test_a_folder_that_cannot_be_written_is_a_sentence(root, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(root, tmp_path / "file" / "records") == 1
    assert (
        capsys.readouterr().err
        == f"error: {tmp_path}/file/records cannot be written: Not a directory.\n"
    )


def test_every_real_sentence_for_evaluation(shared):
    """As a command: the counts of the val and test splits are the published ones."""
    vocab = shared / "data/bert_vocab/vocab.txt"
    command = [sys.executable, "-m", "dit_jax.data.prepare", "--dataset=refcoco", "--split-by=unc"]
    command += [f"--source={shared / 'data/refer_tables'}", "--check-only", f"--vocab={vocab}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["val", "3,811", "3,811", "10,834", "10,834", "1,500", "as", "published"] in rows
    assert ["testA", "1,975", "1,975", "5,657", "5,657", "750", "as", "published"] in rows
    assert ["testB", "1,810", "1,810", "5,095", "5,095", "750", "as", "published"] in rows
    assert "train: expected 42,404 referents, found none;" in done.stdout
    assert "sentences that are cut: 8\n" in done.stdout
    assert "sentences that repeat for a referent: 1,020\n" in done.stdout
    assert "instances.json is missing, and with it the masks of 7,596 referents." in done.stdout
    assert "refer_tables/images/train2014 is missing" in done.stdout

"""`--mode=calibrate`, and everything that uses the threshold which it stores."""

import json

import cv2
import numpy as np
import pytest
from command_line import launched
from photos import asking
from quickly import compiled_quickly
from runs import config_of, small_runs
from small_models import write_model

from dit_jax import Segmenter
from dit_jax.data import shapes
from dit_jax.export import formats, source
from dit_jax.train import trained
from dit_jax.weights import directory, manifest, packs

SHAPES = ("absent=0.5", "length=32", "eval_length=32")
SPLITS = ("--config=configs/quickstart.py", "--config.model.image_size=64")
SPLITS += (*(f"--config.data.shapes.{one}" for one in SHAPES), "--config.eval.batch_size=8")
SPLITS += ("--config.data.eval_splits=val,testA", "--config.eval.protocols=gres")
SPLITS += ("--config.eval.best=gres", "--config.data.eval_limit=30", "--config.eval.bootstrap=0")
TEXTS = ["the red star", "the large square"]


@pytest.fixture(scope="module", autouse=True)
def quick(programs):
    with small_runs(programs), compiled_quickly(programs):
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("run") / "model", presence=True)


@pytest.fixture(scope="module")
def calibrated(model):
    """(workdir, what was printed)"""
    done = launched(
        "--mode=calibrate", *SPLITS, f"--workdir={model.parent}", "--config.eval.false_alarm=0.2"
    )
    assert done.returncode == 0, done.stderr
    return model.parent, done.stdout.splitlines()


def scores(workdir, out, *more):
    where = (f"--workdir={out}", f"--model={workdir / 'model'}")
    done = launched("--mode=eval", *SPLITS, *where, *more)
    assert done.returncode == 0, done.stderr
    return [
        json.loads((out / f"eval/shapes-{split}-gres.json").read_text())
        for split in ("val", "testA")
    ]


def test_what_it_stores_is_what_an_evaluation_finds(calibrated, tmp_path):
    """Of another run of the model, with the stored threshold and with 0.5 given explicitly."""
    workdir, printed = calibrated
    found = manifest.verify(workdir / "model").calibration
    source = shapes.Shapes("val", size=64, length=32, absent=0.5)
    counts = source.expression_counts()
    absent = np.repeat([not source.truth(i).mask.any() for i in range(32)], counts)[:30]
    pictures = np.repeat(source.image_ids(), counts)[:30][absent]
    assert (found.false_alarm, found.n) == (0.2, len(np.unique(pictures)))
    assert (found.dataset, found.split) == ("shapes", "val")
    val, test = scores(workdir, tmp_path / "stored", "--config.eval.predictions=true")
    assert val["remarks"]["nothing"] == f"presence below {found.threshold}"
    lines = (tmp_path / "stored/predictions/shapes-val.jsonl").read_text().splitlines()
    said = [json.loads(line) for line in lines]
    nothing = np.array([line["nothing"] for line in said])[absent]
    assert val["N-acc"] == pytest.approx(100 * nothing.mean(), abs=1e-4)
    masks = sum(1 - nothing[pictures == picture].mean() for picture in np.unique(pictures))
    assert masks <= 0.2 * (found.n + 1) - 1 < masks + 1  # of pictures; the next would be too many
    (name, row), *others = found.checks.items()
    assert (name, others) == ("shapes-testA", [])
    assert test["N-acc"] == pytest.approx(100 - row["share"], abs=1e-4)
    _, before = scores(workdir, tmp_path / "half", "--config.eval.presence_threshold=0.5")
    assert before["remarks"]["nothing"] == "presence below 0.5"
    assert row["T-acc"] == pytest.approx([before["T-acc"], test["T-acc"]], abs=1e-4)
    assert row["absent"] + row["present"] == test["n"] == 30
    assert printed[0] == found.sentence and len(printed) == 2
    assert f"{row['masks']} of {row['absent']} absent expressions get a mask" in printed[1]


def test_mistakes(model, tmp_path):
    unlisted = write_model(tmp_path / "unlisted", presence=True)
    (unlisted / manifest.MANIFEST).unlink()
    for folder, more, sentence in (
        (write_model(tmp_path / "silent"), [], 'says "nothing"; expected a model trained with mod'),
        (unlisted, [], "has no manifest.json; write it anew with --mode=export."),
        (tmp_path / "none", [], "is no model directory: it is not there."),
        ("mini", [], "and mini is no folder of this machine; expected one in --model: --mode=exp"),
        (
            model,
            ["--config.data.shapes.absent=0.0"],
            "val has 0 absent expressions of 30; expected",
        ),
        (model, [], "eval.false_alarm=0.05 needs at least 19 pictures with absent expressions to"),
    ):
        where = (f"--workdir={tmp_path / 'w'}", f"--model={folder}")
        failed = launched("--mode=calibrate", *SPLITS, *where, *more)
        assert failed.returncode == 1 and failed.stderr.count("\n") == 1
        assert sentence in failed.stderr
    assert not (tmp_path / "w").exists()


def test_a_directory_that_changed_meanwhile(model):
    noted = manifest.read(model)
    before = manifest.dataclasses.replace(noted, files={})
    with pytest.raises(ValueError, match="was written anew while it was calibrated"):
        manifest.note_calibration(model, promise(0.5), of=before)
    assert manifest.read(model) == noted


def promise(threshold):
    return manifest.Calibration(threshold, 0.05, 19, "shapes", "val", {"shapes-testA": {"n": 1}})


@pytest.fixture
def torn(tmp_path):
    """A model whose stored threshold says "nothing" to the second of TEXTS, and 0.5 to neither or
    both; and the picture."""
    folder = write_model(tmp_path / "model", presence=True)
    image = np.full((64, 64, 3), 90, np.uint8)
    image[20:40, 10:50] = 200
    said = Segmenter.from_pretrained(folder)(image, TEXTS)
    first, second = (one.presence for one in said)
    assert (first < 0.5) == (second < 0.5)
    manifest.note_calibration(folder, promise((first + second) / 2), of=manifest.read(folder))
    return folder, image, [first < second, second < first]


def test_everything_uses_what_is_stored(torn, tmp_path):
    folder, image, expected = torn
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), image)
    segmenter = Segmenter.from_pretrained(folder)
    assert [one.nothing for one in segmenter(image, TEXTS)] == expected
    given = Segmenter.from_pretrained(folder, presence_threshold=0.5)(image, TEXTS)
    assert given[0].nothing == given[1].nothing  # what is given wins

    words = [f"--text={text}" for text in TEXTS]
    out = tmp_path / "out"
    where = (f"--model={folder}", f"--images={path}", f"--out={out}")
    assert launched("--mode=predict", *where, *words).returncode == 0
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [line["nothing"] for line in lines] == expected
    assert {line["presence_threshold"] for line in lines} == {segmenter.presence_threshold}

    client = asking(segmenter)
    picture = client.post("/v1/pictures", content=path.read_bytes()).json()["id"]
    asked = {"picture": picture, "prompts": [{"text": text} for text in TEXTS]}
    answers = client.post("/v1/segment", json=asked).json()["answers"]
    assert [one["nothing"] for one in answers] == expected

    (first, second), stored = segmenter(image, TEXTS), manifest.read(folder).calibration.threshold
    assert source.read(folder).presence_threshold == stored == segmenter.presence_threshold
    assert min(first.presence, second.presence) < stored < max(first.presence, second.presence)


def test_where_it_goes(torn, tmp_path):
    """Whole models and packs keep it; other weights, rounded, trained or saved anew, have none."""
    folder, _, _ = torn
    stored = manifest.read(folder).calibration
    formats.export(folder, tmp_path / "whole", form="safetensors")
    assert manifest.verify(tmp_path / "whole").calibration == stored
    card = (tmp_path / "whole" / "README.md").read_text()
    assert stored.sentence in card and '  - shapes-testA: {"n": 1}' in card
    manifest.note_scores(folder, {"shapes-val-original": {"protocol": "original", "oIoU": 61.25}})
    formats.export(folder, tmp_path / "int8", form="int8")
    rounded = manifest.verify(tmp_path / "int8")
    assert (rounded.calibration, rounded.scores) == (None, {})
    arch, params = directory.read(folder)
    params["mask_decoder"]["iou_token"] = params["mask_decoder"]["iou_token"] + 1
    directory.save(tmp_path / "base", arch, params, vocab=directory.vocab_path(folder))
    assert manifest.read(tmp_path / "base").calibration is None
    packs.save(folder, tmp_path / "base", tmp_path / "pack")
    formats.export(
        tmp_path / "pack", tmp_path / "again", form="safetensors", base=tmp_path / "base"
    )
    assert manifest.presence_threshold(tmp_path / "again") == stored.threshold


def test_a_runs_best_checkpoint_and_its_directory(model, tmp_path):
    """The directory's threshold counts for a checkpoint only where both are of one step."""
    rules = config_of().eval
    assert trained.presence_threshold(rules, None) == 0.5
    noted = manifest.read(model)
    manifest._write(tmp_path, manifest.dataclasses.replace(noted, provenance={"step": 5}))
    assert trained._exported(tmp_path, step=5) == tmp_path
    assert trained._exported(tmp_path, step=4) is None
    assert trained._exported(tmp_path / "x", step=5) is None

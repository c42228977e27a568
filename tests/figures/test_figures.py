"""Figures by their command: sizes, failures marked, mistakes in one sentence."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image
from small_models import architecture, write_model

from dit_jax import viz
from dit_jax.eval.metrics import iou
from dit_jax.figures import answers, comparison, curves, words
from dit_jax.figures.__main__ import main
from dit_jax.figures.answers import Column, Example, Named, method
from dit_jax.models.architecture import Injection
from examples import own_data


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "default", injection=Injection.NONE)
    write_model(folder / "ldit")
    return folder


def size(path):
    with Image.open(path) as picture:
        picture.load()
        return picture.size


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_models_side_by_side(models, tmp_path, capsys):
    """On drawn pictures, and on an own folder."""
    chosen = [f"--model={models / 'default'}", f"--model=Ours={models / 'ldit'}"]
    out = tmp_path / "new" / "shapes.png"
    how = ["--dataset=shapes", "--size=64", "--length=4", "--count=3", "--panel=100"]
    assert main(["compare", *chosen, *how, f"--out={out}"]) == 0
    assert f"{out} is written." in capsys.readouterr().out
    expected = comparison.width_of(2, side=100), comparison.height_of(3, side=100)
    assert size(out) == expected
    own_data.draw(tmp_path / "photos", counts={"train": 2, "val": 2})
    how = [f"--dataset=folder({tmp_path / 'photos'})", f"--cache-dir={tmp_path / 'records'}"]
    how += ["--index=0", "--index=3", "--panel=64"]
    assert main(["compare", *chosen, *how, f"--out={tmp_path / 'own.png'}"]) == 0
    assert size(tmp_path / "own.png")[1] == comparison.height_of(2, side=64)


def test_failures_are_marked(tmp_path):
    """Right, half right by more and by less than one half, and a right "nothing"."""
    truth = np.zeros((40, 40), bool)
    truth[:20] = True
    example = Example(np.full((40, 40, 3), 120, np.uint8), truth, "the top", "1")
    nothing = Example(example.image, np.zeros_like(truth), "the sheep", "2")
    more, less = truth.copy(), truth.copy()
    more[9:] = False
    less[:11] = False
    columns = [
        Column("A", [truth, ~truth]),
        Column("B", [more, truth & False]),
        Column("C", [less, truth]),
    ]
    assert [iou(column.masks[0], truth) < 0.5 for column in columns] == [False, True, True]
    comparison.save([example, nothing], columns, tmp_path / "x.png", side=100)
    sheet = pixels(tmp_path / "x.png")
    red = (sheet == comparison.RED).all(axis=-1)
    marked = []
    for row in range(2):
        top = comparison.height_of(row, side=100) + viz.CAPTION
        for column in range(5):
            left = comparison.width_of(column - 2, side=100)
            marked.append(bool(red[top + 50, left : left + 3].all()))
    assert marked == [False, False, True, True, False] + [False, True, False, True, False]


def test_columns_are_called_as_in_the_paper(tmp_path):
    names = {method(architecture(injection=one, text_tokens=20)) for one in Injection}
    assert {"Default", "E-DIT", "L-DIT", "CrossAtt + FFN"} <= names and len(names) == 8
    assert method(architecture(injection=Injection.NONE, decoder_depth=4)) == "Default + 2 layers"
    (tmp_path / "a=b").mkdir()
    assert Named.parse(f"{tmp_path}/a=b").name is None
    assert Named.parse("Ours=runs/x") == Named(answers.Path("runs/x"), "Ours")
    with pytest.raises(ValueError, match="--model is '=x'; expected DIR or NAME=DIR"):
        Named.parse("=x")


def test_two_models_of_one_method_are_told_apart(models, tmp_path):
    write_model(tmp_path / "again")
    asked = answers.examples(
        answers.open_source(
            "shapes", "val", source=tmp_path, cache_dir=tmp_path, size=64, length=2
        ),
        count=1,
    )
    chosen = [Named(models / "ldit", None), Named(tmp_path / "again", None)]
    found = answers.columns(chosen, asked)
    assert [column.name for column in found] == ["L-DIT, ldit", "L-DIT, again"]
    np.testing.assert_array_equal(found[0].masks[0], found[1].masks[0])


def test_words(models, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "p.png"), np.full((50, 90, 3), 99, np.uint8))
    asked = ["words", f"--image={tmp_path / 'p.png'}", "--text=the red star", "--panel=80"]
    assert main([*asked, f"--model={models / 'ldit'}", f"--out={tmp_path / 'w.png'}"]) == 0
    assert size(tmp_path / "w.png") == words.size_of(3, 3, side=80)
    assert capsys.readouterr().out.count("IoU without") == 3
    assert main([*asked, f"--model={models / 'default'}", f"--out={tmp_path / 'd.png'}"]) == 0
    assert size(tmp_path / "d.png") == words.size_of(3, 1, side=80, remark=True)
    assert "no text enters this model's image encoder" in capsys.readouterr().out


def test_overlay(models, tmp_path):
    cv2.imwrite(str(tmp_path / "p.png"), np.full((300, 1600, 3), 99, np.uint8))
    texts = ["--text=the red star", "--text=the square"]
    how = ["overlay", f"--model={models / 'ldit'}", f"--image={tmp_path / 'p.png'}", *texts]
    assert main([*how, f"--out={tmp_path / 'o.png'}"]) == 0
    assert size(tmp_path / "o.png") == (1280, 240 + 2 * viz.CAPTION)


def test_overlays_mix_where_they_overlap():
    image = np.full((20, 30, 3), 100, np.uint8)
    left, right = np.zeros((2, 20, 30), bool)
    left[:, :20], right[:, 10:] = True, True
    red, blue = (200, 0, 0), (0, 0, 200)
    both = viz.overlays(image, [left, right], [red, blue])
    np.testing.assert_array_equal(both[10, 5], viz.overlay(image, left, red)[10, 5])
    np.testing.assert_array_equal(both[10, 25], viz.overlay(image, right, blue)[10, 25])
    np.testing.assert_array_equal(both[10, 15], [100, 45, 100])  # 0.45 · photo + 0.55 · mean


def write_run(folder, *lines):
    folder.mkdir()
    text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    (folder / curves.FILE).write_text(text)
    return folder


def test_curves(tmp_path):
    lines = [{"step": i, "train/loss": 1 / i, "train/lr": 0.1} for i in (10, 20, 30)]
    first = write_run(
        tmp_path / "a",
        *lines,
        {"step": 20, "train/loss": 9.0},
        {"step": 30, "val-dit/oIoU": 50.0, "val-dit/mIoU": 40.0},
        '{"step": 40, "train/lo',
    )
    found = curves.read(first)
    assert found["train/loss"].steps == [10, 20, 30]
    assert found["train/loss"].values == [0.1, 9.0, 1 / 30]
    second = write_run(tmp_path / "b", {"step": 5, "train/loss": 1.0, "testA-dit/oIoU": 3.0})
    both = {str(folder): curves.read(folder) for folder in (first, second)}
    assert curves._usual(both) == ["train/loss", "val-dit/oIoU", "testA-dit/oIoU"]
    assert main(["curves", str(first), str(second), f"--out={tmp_path / 'c.png'}"]) == 0
    assert size(tmp_path / "c.png") == (1560, 429)  # three panels of 4 × 2.9 inches, 130 dpi
    one = ["curves", str(first), "--key=train/lr", f"--out={tmp_path / 'one.png'}"]
    assert main(one) == 0
    assert size(tmp_path / "one.png") == (520, 429)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["curves", "empty"], "empty holds no metrics.jsonl; expected the --workdir of a run."),
        (["curves", "bad"], "bad/metrics.jsonl line 1 is no record of a run"),
        (["curves", "none"], "none/metrics.jsonl holds no metric yet."),
        (["curves", "good", "--key=x"], "no run has the metric 'x'; expected some of train/loss."),
        (["compare", "--model=x", "--dataset=shape"], "data.dataset is 'shape'; expected one of"),
        (
            ["compare", "--model=x", "--dataset=shapes+folder(y)"],
            "expected one data set, not a mix",
        ),
        (["compare", "--model=x", "--dataset=shapes", "--split=v"], "unknown split 'v' of shapes"),
        (["compare", "--model=x", "--dataset=shapes"], "x is no model directory"),
        (["compare", "--model=x", "--dataset=shapes", "--index=9999"], "no expression 9999; this"),
        (["compare", "--model=x", "--dataset=shapes", "--count=0"], "--count is 0; expected 1 or"),
        (["words", "--model=x", "--image=gone.png", "--text=a"], "no such picture: gone.png."),
        (
            ["overlay", "--model=x", "--image=bad", "--text=a"],
            "bad is a folder; expected a picture",
        ),
    ],
)
def test_mistakes(tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "bad", "nonsense\n", {"step": 1, "train/loss": 1.0})
    write_run(tmp_path / "none", "")
    write_run(tmp_path / "good", {"step": 1, "train/loss": 1.0})
    assert main([*arguments, "--out=x.png"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and sentence in said and said.count("\n") == 1
    assert not (tmp_path / "x.png").exists()

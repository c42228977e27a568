"""What cannot be answered is refused in one sentence that a person understands."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from small_models import PLAIN, architecture, random_params, write_model

from dit_jax import Segmenter

STAR, PHOTO = "the red star", np.zeros((30, 40, 3), np.uint8)


def refused(sentence, call, *arguments, kind=ValueError, **more):
    with pytest.raises(kind, match=sentence) as caught:
        call(*arguments, **more)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).endswith(".")


def test_pictures(segmenter, tmp_path):
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(
        file, "PNG"
    )
    (tmp_path / "cut.png").write_bytes(file.getvalue()[:3000])
    say = "cut.png: the picture .3000 bytes. cannot be decoded; expected a complete JPEG"
    ask = lambda image: segmenter(image, STAR)  # noqa: E731
    refused("^no such picture: nowhere.jpg.$", ask, "nowhere.jpg", kind=FileNotFoundError)
    refused("^no such picture: ''.$", ask, "", kind=FileNotFoundError)
    refused(r"^no such picture: 'a\\nb.jpg'.$", ask, "a\nb.jpg", kind=FileNotFoundError)
    refused(f"{tmp_path} is a folder; expected a", ask, tmp_path, kind=IsADirectoryError)
    refused("notes.txt is not a picture; expected JPEG, PNG", ask, tmp_path / "notes.txt")
    refused("empty.jpg is not a picture", ask, tmp_path / "empty.jpg")
    refused(say, ask, tmp_path / "cut.png")
    refused("^the picture is not a picture", ask, b"GIF89")
    refused("picture 2 is an array of float64; expected uint8", ask, [PHOTO, PHOTO / 255])
    refused(
        r"array of shape \(3, 30, 40\); expected \[height, width, 3\]",
        ask,
        PHOTO.transpose(2, 0, 1),
    )
    refused(r"has the shape \(0, 40, 3\); expected at least one pixel", ask, PHOTO[:0])
    refused("the picture is of type int; expected a path, encoded bytes", ask, 3)
    refused("the picture is of type BytesIO; expected a path, encoded bytes", ask, file)
    refused("picture 1 is of type NoneType; expected a path", ask, [None])
    refused("cannot be read as RGB: it has values from -1 to -1", ask, Image.new("F", (4, 5), -1))


def test_what_is_streamed_is_a_pair(segmenter):
    for odd in ((PHOTO, STAR, 1), (PHOTO,)):
        refused("is streamed; expected pairs .picture, text", list, segmenter.stream([odd]))
    refused("a text is of type list", list, segmenter.stream([(PHOTO, [STAR, STAR])]))
    refused("the picture is of type list", list, segmenter.stream([([PHOTO], STAR)]))


def test_a_missing_file_stops_before_anything_is_computed(segmenter, monkeypatch):
    monkeypatch.setattr(segmenter._engine, "start", None)
    refused("no such picture: x.png", segmenter, [PHOTO, "x.png"], STAR, kind=FileNotFoundError)
    refused("'ϡ'", segmenter, [PHOTO, PHOTO], [STAR, "ϡ"])


def test_texts(segmenter):
    refused("the expression '' is empty, expected at least one word", segmenter, PHOTO, "")
    refused(r"the expression ' \\n' is empty", segmenter, PHOTO, " \n")
    refused(r"knows no word of the expression '☃ ϡ'; expected words", segmenter, PHOTO, "☃ ϡ")
    refused("holds half a character", segmenter, PHOTO, "the \ud800 cup")
    refused("a text has 10001 characters; expected at most 10000", segmenter, PHOTO, "a" * 10001)
    refused("a text is of type int; expected words", segmenter, PHOTO, [STAR, 3])
    refused("no text is given for the picture; this model reads words", segmenter, PHOTO)
    refused("no text is given", segmenter, PHOTO, points=[(1, 1, 1)])
    refused("multimask is for points, boxes and masks", segmenter, PHOTO, STAR, multimask=True)
    refused("the list has 1 picture and texts has 2", segmenter, [PHOTO], [STAR] * 2)
    refused(
        "the list has 2 pictures and texts has 3; expected one",
        segmenter,
        [PHOTO] * 2,
        [STAR] * 3,
    )
    assert len(segmenter(PHOTO, "the ☃ star")) == 1  # one known word is enough


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        ([(40, 3, 1)], r"the point \(40, 3\) lies outside the picture, which is 40 pixels wide"),
        ([(3, 30, 1)], r"the point \(3, 30\) lies outside"),
        ([(-1, 3, 1)], r"the point \(-1, 3\) lies outside"),
        ([(3, 3, 2)], r"the label of a point is 2; expected 1 \(object\) or 0"),
        ([(3, float("nan"), 1)], r"a point is \(3, nan, 1\); expected numbers \(x, y\)"),
        ([(3,)], r"a point is \(3,\); expected numbers"),
        ([("3", 3, 1)], "a point is .'3', 3, 1.; expected numbers"),
        ((3, 4, 1), "a point is 3; expected .x, y. or .x, y, label."),
        ("ab", r"points is 'ab'; expected \[\(x, y, label\), …\]"),
        ([(3, 3, 1)] * 2000, "2000 points are given; expected at most 1024"),
    ],
)
def test_points(segmenter, points, sentence):
    refused(sentence, segmenter, PHOTO, STAR, points=points)


@pytest.mark.parametrize(
    "box", [(0, 0, 41, 3), (0, 0, 3, 31), (5, 5, 5, 9), (9, 9, 3, 3), (-1, 0, 3, 3)]
)
def test_boxes(segmenter, box):
    refused("is no box .x0, y0, x1, y1. inside the picture", segmenter, PHOTO, STAR, box=box)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (dict(box=(0.2, 0.3, 0.8, 0.8)), "the box look like fractions of the picture, because"),
        (dict(box=(0, 0, 1, 1)), "the box look like fractions"),
        (dict(points=[(0.5, 0.5)]), "the points look like fractions of the picture, because all"),
        (dict(points=[(0, 0.5, 1), (1, 1, 0)]), "expected pixels, of 40 .width. and 30 .height."),
        (dict(box=(30, 20, 5, 9)), "It would be one as .x, y, width, height.: box_xywh in a fil"),
    ],
)
def test_numbers_that_are_no_pixels(segmenter, given, sentence):
    refused(sentence, segmenter, PHOTO, STAR, **given)


def test_boxes_that_are_none(segmenter):
    refused(r"a box is \(1, 2, 3\); expected numbers \(x0", segmenter, PHOTO, STAR, box=(1, 2, 3))
    refused("a box is 3; expected", segmenter, PHOTO, STAR, box=3)
    refused(
        "the list has 2 pictures and box has 4",
        segmenter,
        [PHOTO] * 2,
        STAR,
        box=(1, 2, 3, 4),
    )


def test_settings(folder, segmenter):
    load = Segmenter.from_pretrained
    refused("threshold is 1.5, expected a probability", load, folder, threshold=1.5)
    refused("batch_size is 0; expected 1 or more", load, folder, batch_size=0)
    other = write_model(folder.parent / "sam", **PLAIN | dict(image_size=128))
    picture = load(other).open(PHOTO)
    refused("opened for a canvas of 128 pixels; expected 64", segmenter, picture, STAR)


def test_other_parameters(folder, segmenter):
    params = random_params(architecture(decoder_mlp_width=32))
    refused("what is given does not fit the model: of another", segmenter.replace_params, params)


def changed(folder, tmp_path, change):
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    (copy / "manifest.json").unlink(missing_ok=True)  # which would tell of any change
    change(copy)
    return copy


def config_with(**changes):
    def change(folder):
        values = json.loads((folder / "config.json").read_text())
        values["architecture"] |= changes
        (folder / "config.json").write_text(json.dumps(values))

    return change


def weights_with(change):
    def rewrite(folder):
        data = bytearray((folder / "model.safetensors").read_bytes())
        change(data)
        (folder / "model.safetensors").write_bytes(data)

    return rewrite


def of_kind(kind):
    """Name another kind of numbers in the header of the weights."""

    def change(data):
        size = 8 + int.from_bytes(data[:8], "little")
        header = bytes(data[8:size]).replace(b'"F32"', json.dumps(kind).encode(), 1)
        data[:size] = len(header).to_bytes(8, "little") + header

    return weights_with(change)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: (f / "vocab.txt").unlink(), "has no vocab.txt; copy the vocabulary of"),
        (lambda f: (f / "config.json").unlink(), "is no model directory: it has no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is not JSON"),
        (
            lambda f: (f / "vocab.txt").write_bytes(b"\xff\xfe"),
            "vocab.txt is no text; expected one",
        ),
        (
            lambda f: (f / "vocab.txt").write_text(
                (f / "vocab.txt").read_text() + "\n".join(f"word{i}" for i in range(300))
            ),
            "vocab.txt has .* word pieces; the model knows 256: it is the vocabulary of another",
        ),
        (weights_with(lambda d: d.__delitem__(slice(5000, None))), "no whole safetensors file"),
        (of_kind("\x1f"), r"no whole safetensors file: .*`\\x1f`"),
        (
            config_with(decoder_depth=3),
            r"it has 1 of mask_decoder.transformer.layers.\*, and config.json",
        ),
        (
            config_with(decoder_mlp_width=32),
            "does not fit the model: of another shape: mask_decoder",
        ),
        (config_with(decoder_depth=10**9), "decoder_depth is 1000000000; expected a number from 1"),
        (config_with(image_size=1 << 19), "image_size is 524288; expected at most 4096 pixels"),
        (config_with(image_sze=3), "unknown key architecture.image_sze; the nearest valid key"),
        (config_with(image_size="64"), "architecture.image_size is '64' of type str; expected int"),
    ],
)
def test_model_directories(folder, tmp_path, change, sentence):
    copy = changed(folder, tmp_path, change)
    refused(sentence, Segmenter.from_pretrained, copy, kind=(ValueError, OSError))


def test_no_model_directory(tmp_path):
    load = Segmenter.from_pretrained
    refused("nowhere is no model directory", load, "nowhere", kind=FileNotFoundError)
    refused("is no model directory: it has no config", load, tmp_path, kind=FileNotFoundError)


def test_the_model_directory_that_was_meant(folder, tmp_path):
    load, run = Segmenter.from_pretrained, tmp_path / "run"
    shutil.copytree(folder, run / "model")
    (run / "checkpoints" / "1").mkdir(parents=True)
    for odd, why in [
        (run, "it has no config.json"),
        (run / "mdel", "it is not there"),
        (run / "model" / "config.json", "it is a file"),
        (run / "checkpoints" / "1", "it has no config.json"),
    ]:
        say = f"{odd} is no model directory: {why}. Did you mean {run / 'model'}[?]"
        with pytest.raises(FileNotFoundError, match=say):
            load(odd)
    (run / "model").rename(run / ".model.before")  # killed between two renames
    refused("model.before is what was there: rename it", load, run / "model", kind=OSError)


def test_weights_that_are_no_numbers(folder, tmp_path):
    """Damage that the file's structure does not show."""

    def spoil(data):
        start = 8 + int.from_bytes(data[:8], "little")
        data[start:] = b"\xff" * (len(data) - start)

    copy = changed(folder, tmp_path, weights_with(spoil))
    refused("holds NaN or infinity in .* expected finite numbers", Segmenter.from_pretrained, copy)

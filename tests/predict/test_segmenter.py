"""`Segmenter`: every form of a picture, lists, scores, the evaluation's masks."""

import dataclasses
import io

import numpy as np
import pytest
from closeness import assert_same_answer
from photos import encoded, photo
from PIL import Image, ImageOps
from runs import config_of

from dit_jax import Segmenter
from dit_jax.data.pixels.pictures import rgb
from dit_jax.data.tokenizer import Unread
from dit_jax.eval.prediction_files import read
from dit_jax.predict.engine import Request
from dit_jax.predict.prompts import Prompt
from dit_jax.predict.segmentation import Segmentation
from dit_jax.train import scoring
from dit_jax.train.sources import Datasets

STAR, SQUARE = "the red star", "the large square"


def test_one_picture_and_one_text(segmenter):
    (found,) = segmenter(photo(), STAR)
    assert found.mask.shape == found.probability.shape == (48, 70)
    assert (found.mask.dtype, found.probability.dtype) == (np.bool_, np.float32)
    assert 0.05 < found.mask.mean() < 0.95  # or nothing here could fail
    assert 0 <= found.probability.min() < 0.35 < found.probability.max() <= 1
    np.testing.assert_array_equal(found.mask, found.probability > 0.35)
    assert found.score == pytest.approx(found.probability[found.mask].mean(), rel=1e-5)
    assert (type(found.score), found.score_kind) == (float, "confidence")
    assert (found.presence, found.nothing, found.text) == (None, None, STAR)
    (other,) = segmenter(photo(), SQUARE)
    assert (found.mask != other.mask).any()


def test_words_that_are_not_read_are_said(segmenter, caplog):
    long = "the red star \u661f of the large square left of the blue circle"
    texts = [STAR, long, "\u661f star"]
    found = segmenter(photo(), texts)
    assert [(one.cut, one.unknown) for one in found] == [
        ("", ()),
        ("the blue circle", ("\u661f",)),
        ("", ("\u661f",)),
    ]
    (said,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]  # one a call
    assert said.startswith(f"the model does not read all of {long!r} ('unknown: \u661f; beyond")
    caplog.clear()
    assert [one.cut for one in segmenter.stream([(photo(), long)] * 2)] == ["the blue circle"] * 2
    assert len(caplog.records) == 1
    caplog.clear()
    segmenter(photo(), STAR)
    assert not caplog.records


def test_a_model_with_a_presence_head_says_how_sure_it_is(default):
    found = default(photo(), [STAR, SQUARE])
    assert all(0 <= one.presence <= 1 and one.nothing == (one.presence < 0.5) for one in found)
    assert found[0].presence != found[1].presence


def test_every_form_of_a_picture_gives_one_answer(segmenter, tmp_path):
    pixels = photo()
    (tmp_path / "a.png").write_bytes(encoded(pixels))
    transparent = np.dstack([pixels, np.arange(70, dtype=np.uint8)[None].repeat(48, 0)])
    forms = {
        "path": tmp_path / "a.png",
        "text": str(tmp_path / "a.png"),
        "bytes": encoded(pixels),
        "webp": encoded(pixels, "WEBP", lossless=True),
        "PIL": Image.fromarray(pixels),
        "lazy PIL": Image.open(tmp_path / "a.png"),
        "RGBA": transparent,
        "RGBA file": encoded(transparent),
        "RGBA PIL": Image.fromarray(transparent),
        "not contiguous": np.asfortranarray(pixels),
        "opened": segmenter.open(pixels),
    }
    expected = segmenter(pixels, STAR)[0]
    for name, found in zip(forms, segmenter(list(forms.values()), STAR), strict=True):
        assert_same_answer(found, expected, name)
    grey = pixels[..., 0]
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    greys = [np.stack([grey] * 3, -1), grey, grey[..., None], Image.fromarray(grey), deep]
    greys += [encoded(grey), encoded(grey.astype(np.uint16) * 257)]
    for found in segmenter(greys, STAR):
        assert_same_answer(found, segmenter(greys[0], STAR)[0])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_seen_upright(tmp_path, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {} if kind in ("JPEG", "TIFF", "AVIF", "PNG") else {"lossless": True}
    data = encoded(photo(), kind, exif=exif, **lossless)
    with Image.open(io.BytesIO(data)) as picture:
        upright = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
        assert upright.shape[:2] == ((70, 48) if orientation > 4 else (48, 70))
        found = rgb(picture)
    np.testing.assert_array_equal(found, upright)
    decoded = rgb(data)
    assert decoded.shape == upright.shape
    assert np.abs(decoded.astype(int) - upright).mean() < 3  # other decoders, at most


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (3, 2), (64, 64), (700, 2500)])
def test_masks_have_the_size_of_the_picture(segmenter, size):
    for found in segmenter(np.full((*size, 3), 90, np.uint8), [STAR, SQUARE]):
        assert found.mask.shape == found.probability.shape == size


def test_lists(segmenter):
    images, texts = [photo(seed) for seed in range(5)], [STAR, SQUARE] * 2 + [STAR]
    alone = [segmenter(image, text)[0] for image, text in zip(images, texts, strict=True)]
    for one, other in zip(segmenter(images, texts), alone, strict=True):  # 2, 2 and 1
        assert_same_answer(one, other)
    for one, image in zip(segmenter(images, STAR), images, strict=True):
        assert_same_answer(one, segmenter(image, STAR)[0])
    for one, text in zip(segmenter(images[0], texts), texts, strict=True):
        assert_same_answer(one, segmenter(images[0], text)[0])
    streamed = list(segmenter.stream((i, t) for i, t in zip(images, texts, strict=True)))
    for one, other in zip(streamed, alone, strict=True):
        assert_same_answer(one, other)
    assert segmenter([], STAR) == segmenter(images[0], []) == []
    assert [found.name for found in segmenter(images[:2], STAR)] == ["picture 1", "picture 2"]


def test_masks_are_those_that_the_evaluation_scores(folder, tmp_path):
    """`--mode=eval` writes its masks; the same pictures, as files, give the same ones."""
    changes = dict(eval__predictions=True, data__eval_splits=("val",), eval__bootstrap=0)
    config = config_of(**changes)
    scoring.score(config, tmp_path, model_dir=folder)
    source = Datasets.of(config.data, size=config.model.image_size).splits[0].open()
    lines = list(read(tmp_path / "predictions" / "shapes-val.jsonl"))
    asked = []
    for referent in (source[i] for i in range(len(source))):
        path = tmp_path / f"{len(asked)}.png"
        path.write_bytes(encoded(referent.image))
        asked += [(path, text) for text in referent.expressions]
    assert len(asked) == len(lines) == 8
    segmenter = Segmenter.from_pretrained(folder, batch_size=2)
    edges = 0
    for found, line in zip(segmenter.stream(asked), lines, strict=True):
        assert found.text == line.values["text"]
        np.testing.assert_array_equal(found.mask, line.mask())
        edges += found.mask.any() and not found.mask.all()
    assert edges > 4


def test_the_score_of_a_trained_head_is_what_it_says(segmenter, monkeypatch):
    (before,) = segmenter(photo(), STAR)
    trained = dataclasses.replace(segmenter.arch, iou_trained=True)
    monkeypatch.setattr(segmenter, "arch", trained)  # of the same programs
    (found,) = segmenter(photo(), STAR)
    assert found.score_kind == "predicted_iou"
    asked = Request(segmenter.open(photo()), STAR, Prompt(), Unread())
    (answer,) = segmenter._engine.finish(segmenter._engine.start([asked], multimask=False))
    assert found.score == pytest.approx(float(answer.iou[0]), rel=1e-4)
    assert abs(found.score - before.score) > 1e-2


@pytest.mark.parametrize("height", [2, 5])
def test_a_confidence_is_of_the_mask_alone(height):
    """And 0 without one: a mask that is not there is worth nothing."""
    logits = np.array([[-9, 0.0], [2.0, -1]], np.float32)
    about = dict(name="x", text="y", height=height, width=height, presence=None, nothing=None)
    found = Segmentation(logits=logits, predicted_iou=None, threshold=0.35, **about)
    assert found.score == pytest.approx(found.probability[found.mask].mean(), rel=1e-6)
    if height == 2:
        assert found.score == pytest.approx((0.5 + 1 / (1 + np.exp(-2))) / 2, rel=1e-6)
    none = Segmentation(logits=logits - 9, predicted_iou=None, threshold=0.35, **about)
    assert (none.score, none.mask.sum()) == (0.0, 0)


def test_objects_of_a_mask():
    """Pieces that touch nowhere; specks are none. Each has the confidence of its own pixels."""
    logits = np.full((40, 60), -9, np.float32)
    logits[2:12, 3:23], logits[12, 23] = 1.0, 1.0  # touches at a corner
    logits[20:30, 30:50], logits[38, 2] = 4.0, 4.0
    about = dict(name="x", text="y", height=40, width=60, presence=None, nothing=None)
    found = Segmentation(logits=logits, predicted_iou=0.9, threshold=0.35, **about)
    best, other = found.instances()
    assert (best.mask.sum(), other.mask.sum()) == (200, 201)
    assert best.mask[25, 40] and other.mask[12, 23] and not (best.mask & other.mask).any()
    assert best.score == pytest.approx(1 / (1 + np.exp(-4)), rel=1e-6)
    assert (best.score_kind, found.score) == ("confidence", 0.9)
    none = Segmentation(logits=logits - 9, predicted_iou=0.1, threshold=0.35, **about)
    assert none.instances() == [none]


def test_objects_one_by_one(segmenter):
    (whole,) = segmenter(photo(), STAR)
    objects = segmenter(photo(), STAR, instances=True)
    assert len(objects) == len(whole.instances()) > 1
    assert not (np.any([one.mask for one in objects], axis=0) & ~whole.mask).any()


def test_a_threshold_and_a_bar(folder, capsys):
    strict = Segmenter.from_pretrained(folder, threshold=0.9, batch_size=2)
    loose = Segmenter.from_pretrained(folder, threshold=0.1, batch_size=2)
    assert strict(photo(), STAR)[0].mask.sum() < loose(photo(), STAR)[0].mask.sum()
    loose([photo()] * 3, STAR, progress=True)
    assert "0/3" in capsys.readouterr().err
    loose([photo()] * 40, STAR)  # long, but this is no terminal
    assert capsys.readouterr().err == ""

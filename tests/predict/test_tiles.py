"""Large pictures in tiles: no seam, one object, and what a tile says alone."""

import itertools
import tracemalloc

import cv2
import numpy as np
import pytest
from closeness import assert_same_answer
from photos import photo

from dit_jax.predict.picture import DIT
from dit_jax.predict.requests import Question
from dit_jax.predict.segmentation import Segmentation
from dit_jax.predict.tiles import Asker, Tiling

CANVAS, REACH = 64, 4  # pixels; REACH is how far the stand-in looks


def seen(gray):
    """The stand-in: a filter, the same everywhere, that sees REACH pixels around each."""
    kernel = np.outer(*[np.hanning(2 * REACH + 3)[1:-1]] * 2).astype(np.float32)
    return (
        cv2.filter2D(np.float32(gray), -1, kernel / kernel.sum(), borderType=cv2.BORDER_CONSTANT)
        / 32
        - 4
    )


class StandIn:
    """In place of a model; `nothing` says of a tile whether anything is meant there."""

    def __init__(self, *, nothing=lambda canvas: None):
        self.asked, self._nothing = [], nothing

    def stream(self, questions):
        for question in questions:
            picture = question.image
            self.asked.append((picture.height, picture.width, question.text))
            top, left, h, w = picture.content
            logits = seen(picture.canvas[top : top + h, left : left + w, 0])
            nothing = self._nothing(picture.canvas)
            there = None if nothing is None else 0.2 if nothing else 0.7
            about = (picture.name, question.text, picture.height, picture.width, logits)
            yield Segmentation(*about, 0.5, there, nothing, 0.5, low_res=logits)

    def asker(self, tile=CANVAS, overlap=24):
        return Asker(
            Tiling(tile, overlap, canvas=CANVAS),
            opened=lambda image, name: DIT.open(image, size=CANVAS, name=name),
            stream=self.stream,
            resized=DIT.resize,
            low=-4.0,
        )


def scene(height, width, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (height // 9, width // 9), np.uint8)
    gray = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.repeat(gray[..., None], 3, axis=2)


def ask(asker, image, *texts):
    return list(asker([Question(image, "x", text) for text in texts], hidden=True))


@pytest.mark.parametrize("size", [(200, 330), (65, 64), (64, 65), (40, 500), (129, 129)])
def test_tiled_is_untiled(size):
    """Also at seams; at the picture's own border the stand-in sees the same emptiness."""
    image = scene(*size)
    (found,) = ask(StandIn().asker(), image, "a")
    np.testing.assert_allclose(found.logits, seen(image[..., 0]), atol=1e-5)
    assert (found.height, found.width) == found.mask.shape == size
    assert found.score_kind == "confidence" and found.low_res is None


def test_a_picture_of_one_tile_is_asked_about_as_ever():
    (found,) = ask(StandIn().asker(tile=100, overlap=0), scene(100, 80), "a")
    assert found.predicted_iou == 0.5 and found.logits.shape == (64, 51)


def test_what_was_asked_before_a_mistake_is_answered_before_it():
    def asked():
        yield Question(scene(100, 80), "1.png", "a")
        raise ValueError("2.png is broken.")

    found = []
    with pytest.raises(ValueError, match=r"2\.png is broken"):
        for answer in StandIn().asker()(asked(), hidden=True):
            found.append(answer.name)
    assert found == ["1.png"]


def test_an_object_across_seams_is_one():
    image = np.zeros((150, 400, 3), np.uint8)
    cv2.line(image, (10, 20), (390, 130), (255, 255, 255), 15)
    (found,) = ask(StandIn().asker(), image, "a")
    assert len(found.instances()) == 1
    (cut,) = ask(StandIn().asker(overlap=0), image, "a")
    assert (cut.mask != found.mask).any()  # where a tile sees no surroundings it answers worse


def test_a_tile_is_shrunk_to_the_canvas():
    image = scene(400, 520)
    (found,) = ask(StandIn().asker(tile=128, overlap=40), image, "a")
    small = cv2.resize(image, (260, 200), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(found.logits, seen(small[..., 0]), atol=1e-5)
    assert found.mask.shape == (400, 520)


@pytest.mark.parametrize("length", [64, 65, 100, 104, 105, 333])
@pytest.mark.parametrize("overlap", [0, 1, 24, 32])
def test_what_counts_adds_up(length, overlap):
    spans = Tiling(CANVAS, overlap, canvas=CANVAS).spans(length)
    whole = np.zeros(length)
    for start, counts in spans:
        assert len(counts) == CANVAS and (counts >= 0).all()
        whole[start : start + CANVAS] += counts
    np.testing.assert_allclose(whole, 1, rtol=1e-6)
    assert spans[0][0] == 0 and spans[-1][0] == length - CANVAS
    starts = [start for start, _ in spans]
    assert all(b - a <= CANVAS - overlap + 1 for a, b in itertools.pairwise(starts))


def test_several_texts_share_a_tile_and_a_tile_where_nothing_is_meant_is_dark():
    """The right half is bright; only tiles that hold some of it say that anything is meant."""
    image = np.full((64, 240, 3), 150, np.uint8)
    image[:, 140:] = 255
    model = StandIn(nothing=lambda canvas: not (canvas == 255).any())
    first, second = ask(model.asker(), image, "a", "b")
    assert [text for *_, text in model.asked] == ["a", "b"] * (len(model.asked) // 2)
    assert (first.text, second.text) == ("a", "b")
    assert first.logits[30, 10] == pytest.approx(-4.0) and seen(image[..., 0])[30, 10] > 0
    assert (first.presence, first.nothing) == (0.7, False)
    (dark,) = ask(model.asker(), image[:, :130], "a")
    assert (dark.presence, dark.nothing) == (0.2, True) and not dark.mask.any()


def test_memory_is_bounded():
    """One canvas of logits a text, whatever the tiles are; no tile is kept."""
    image = scene(1500, 1500)
    asker = StandIn().asker(tile=128, overlap=32)
    tracemalloc.start()
    (found,) = ask(asker, image, "a")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.logits.shape == (750, 750)
    small, logits = 3 * 750**2, 4 * 750**2
    assert most < small + logits + 2e6


def test_of_a_model(segmenter, default):
    """As a picture that has one tile's size is answered alone; and only words can be asked."""
    image = photo(height=100, width=150)
    for model in (segmenter, default):
        (found,) = model(image, "the red star", tile=80)
        assert found.mask.shape == (100, 150) and np.isfinite(found.logits).all()
    (tiled,) = segmenter(image, "the red star", tile=200, overlap=10)
    assert_same_answer(tiled, segmenter(image, "the red star")[0])


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        (dict(tile=50), "tile is 50; expected 64 or more, what the model itself sees"),
        (dict(tile=80, overlap=41), "overlap is 41; expected a number from 0 to 40, half a tile"),
        (dict(tile=80, points=[(1, 1)]), "tile is for words alone; points, boxes and masks name"),
        (dict(tile=80, opened=True), "was opened, so its own pixels are gone; for tiles expected"),
    ],
)
def test_mistakes(segmenter, how, sentence):
    image = segmenter.open(photo()) if how.pop("opened", False) else photo()
    with pytest.raises(ValueError, match=sentence):
        segmenter(image, "the red star", **how)

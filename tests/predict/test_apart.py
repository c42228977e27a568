"""Objects that touch come apart, and one object stays one; on drawn scenes, by the shipped SAM."""

import dataclasses

import cv2
import numpy as np
import pytest

from dit_jax import Segmenter
from dit_jax.data.shapes import scene
from dit_jax.data.tokenizer import Unread
from dit_jax.predict.apart import POINTS, Apart, spread
from dit_jax.predict.engine import Request
from dit_jax.predict.picture import DIT
from dit_jax.predict.prompts import Prompt
from dit_jax.predict.segmentation import Segmentation

PAIR, SIZE = 203, 128  # of val: two of its things touch


@pytest.fixture(scope="module")
def sam():
    return Segmenter.from_pretrained("mini_sam", batch_size=8)


def test_things_that_touch(sam):
    drawn = scene("val", PAIR, size=SIZE)
    things = [drawn.mask(number) for number in range(len(drawn.layout.things))]
    (mask,) = (one for one in groups(drawn.owner >= 0) if sum(map(partly(one), things)) == 2)
    picture = sam.open(drawn.image())
    (together,) = sam(picture, mask=mask)
    assert len(together.instances()) == 1
    objects = sam(picture, mask=mask, instances=True)
    pair = [thing for thing in things if (thing & mask).any()]
    assert len(objects) == 2
    for thing in pair:
        assert max(iou(one.mask, thing) for one in objects) > 0.6
    assert not (objects[0].mask & objects[1].mask).any()
    assert not ((objects[0].mask | objects[1].mask) & ~together.mask).any()
    assert {one.score_kind for one in objects} == {"confidence"}


def test_one_thing_stays_one(sam):
    drawn = scene("val", PAIR, size=SIZE)
    picture = sam.open(drawn.image())
    for number in range(len(drawn.layout.things)):
        x, y, width, height = cv2.boundingRect(drawn.mask(number).view(np.uint8))
        box = (x, y, x + width, y + height)
        (whole,) = sam(picture, box=box)
        (one,) = sam(picture, box=box, instances=True)
        np.testing.assert_array_equal(one.mask, whole.mask)


def test_the_rest_is_kept():
    """Beside two things that touch lies one by itself, in a picture larger than its canvas."""
    blocks = [np.s_[10:30, 5:25], np.s_[10:30, 25:45], np.s_[10:30, 50:56]]
    about = dict(name="x", text="y", height=120, width=180, predicted_iou=None, presence=None)
    about |= dict(nothing=None, threshold=0.5)
    asked_at = []

    def block(*chosen):
        logits = np.full((40, 60), -3, np.float32)
        for one in chosen:
            logits[one] = 3
        return Segmentation(logits=logits, **about)

    def answer(rows, *, multimask):
        assert len(rows) <= 3 and not multimask
        places = [row.prompt.points[0] for row in rows]
        asked_at.extend(places)
        return [block(blocks[(x >= 75) + (x >= 141)]) for x, _, _ in places]

    picture = DIT.open(np.zeros((120, 180, 3), np.uint8), size=64, name="x")
    whole, alone = block(*blocks), block(blocks[2])
    apart = Apart(answer, Request(picture, "y", Prompt(), Unread()), 3)
    found = dataclasses.replace(whole, apart=apart).instances()
    objects = sorted((one.mask for one in found), key=lambda mask: mask.nonzero()[1].min())
    assert len(objects) == 3 and len(asked_at) == 2 * POINTS  # of the third, too
    np.testing.assert_array_equal(objects[2], alone.mask)
    lost = np.any(objects, axis=0) != whole.mask
    assert set(lost.nonzero()[1].tolist()) <= {74, 75}  # the seam
    assert np.sum(objects, axis=0).max() == 1
    for (rows, columns), mask in zip(blocks[:2], objects[:2], strict=True):
        inner = slice(3 * columns.start + 1, 3 * columns.stop - 1)
        assert mask[3 * rows.start : 3 * rows.stop, inner].all()


def test_places_lie_deep_and_far_apart():
    region = np.zeros((20, 40), bool)
    region[4:16, 3:37] = True
    places = spread(region, 4)
    assert len(places) == 4 and all(
        region[y - 1, x - 1] and region[y + 1, x + 1] for x, y in places
    )
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1) + 99 * np.eye(4)
    assert apart.min() > 7
    region[:] = False
    region[5, 5] = True
    assert spread(region, 4).tolist() == [[5, 5]]


def groups(mask):
    count, regions = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    return [regions == i for i in range(1, count)]


def partly(mask):
    return lambda thing: (thing & mask).any()


def iou(one, other):
    return (one & other).sum() / (one | other).sum()

"""Points and boxes, beside a text or alone."""

import numpy as np
import pytest
from closeness import assert_same_answer
from photos import photo

from dit_jax.predict.picture import DIT
from dit_jax.predict.prompts import Prompt
from dit_jax.predict.requests import questions

STAR, SQUARE = "the red star", "the large square"


def test_points_and_boxes_refine_the_text(segmenter, default):
    for model in (segmenter, default):
        plain = model(photo(), STAR)[0]
        pointed = model(photo(), STAR, points=[(10, 12, 1), (60, 40)])[0]
        boxed = model(photo(), STAR, points=[(10, 12, 0)], box=(5, 5, 30, 40))[0]
        assert (plain.mask != pointed.mask).any() and (boxed.mask != pointed.mask).any()
        images = [photo()] * 3
        both = model(
            images,
            STAR,
            points=[None, np.array([(10, 12, 1), (60, 40, 1)]), [(10, 12, 0)]],
            box=[None, None, (5, 5, 30, 40)],
        )
        for one, alone in zip(both, (plain, pointed, boxed), strict=True):
            assert_same_answer(one, alone)


def test_less_than_a_pixel_beyond_the_border_is_cut():
    picture = DIT.open(photo(), size=64, name="x")
    height, width = float(picture.height), float(picture.width)
    found = Prompt.of([(-0.5, 3, 1), (0, 1)], (-0.4, 2, width + 0.3, height + 0.9), picture=picture)
    assert found == Prompt(((0.0, 3.0, 1), (0.0, 1.0, 1)), (0.0, 2.0, width, height))
    half = Prompt.of([(0.5, 0.25, 0)], (0, 0, 1, 0.5), picture=picture, units="fraction")
    assert half == Prompt(((width / 2, height / 4, 0),), (0.0, 0.0, width, height / 2))
    with pytest.raises(ValueError, match="units is 'percent'; expected one of pixel, fraction"):
        Prompt.of(None, None, picture=picture, units="percent")


def test_points_that_only_fill_up_a_batch_change_nothing(segmenter, default):
    images, points = [photo(seed) for seed in range(3)], [(3, 4, 1), (40, 20, 0), (9, 30, 1)]
    lists = [points[:1], points, points[:2]]  # the first is filled up to 4 with the second
    for model in (segmenter, default):
        together = model(images, SQUARE, points=lists)
        for one, image, some in zip(together, images, lists, strict=True):
            assert_same_answer(one, model(image, SQUARE, points=some)[0])


def test_points_alone_where_the_picture_is_read_without_text(default):
    one = default(photo(), points=[(10, 12, 1)])[0]
    three = default(photo(), points=[(10, 12, 1)], multimask=True)
    assert one.text is None and len(three) == 3
    assert len({found.score for found in (one, *three)}) == 4


def test_several_boxes_of_one_picture_are_a_question_each():
    boxes = [(5, 5, 30, 40), (1, 2, 3, 4)]
    for given in (boxes, [list(box) for box in boxes], np.array(boxes)):
        asked = questions(photo(), [STAR, SQUARE], [(1, 1)], given)
        assert [(one.text, tuple(one.box)) for one in asked] == [
            (text, box) for text in (STAR, SQUARE) for box in boxes
        ]
    (one,) = questions(photo(), STAR, None, np.array(boxes[0]))
    assert tuple(one.box) == boxes[0]

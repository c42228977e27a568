"""Endless lists: each picture is answered as it is when it comes, whatever was there before."""

import dataclasses
import pickle

import numpy as np
import pytest
from PIL import Image

STAR = "the red star"


def frames(count=5):
    return np.random.default_rng(0).integers(0, 256, (count, 40, 56, 3), dtype=np.uint8)


def masks(answers):
    return np.stack([answer.mask for answer in answers])


def test_a_buffer_that_is_used_again(segmenter):
    buffer = np.empty_like(frames()[0])

    def camera():
        for frame in frames():
            buffer[...] = frame
            yield buffer, STAR

    expected = masks(segmenter(list(frames()), STAR))
    assert len(np.unique(expected.reshape(5, -1), axis=0)) == 5  # or nothing here could fail
    np.testing.assert_array_equal(masks(segmenter.stream(camera())), expected)


def test_a_generator_that_gives_one_buffer_or_one_file_again(segmenter, tmp_path):
    buffer, path = np.empty_like(frames()[0]), tmp_path / "camera.png"

    def camera(given):
        for frame in frames():
            buffer[...] = frame
            Image.fromarray(frame).save(path)
            yield given

    expected = segmenter(list(frames()), STAR)
    for given in (buffer, path):
        answers = segmenter(camera(given), STAR)
        np.testing.assert_array_equal(masks(answers), masks(expected))
    in_tiles = segmenter(list(frames()), STAR, tile=64, progress=False)
    for given in (buffer, path):
        answers = segmenter(camera(given), STAR, tile=64, progress=False)
        np.testing.assert_array_equal(masks(answers), masks(in_tiles))
    assert [answer.name for answer in segmenter(camera(buffer), STAR)] == [
        answer.name for answer in expected
    ]


def test_a_mistake_comes_after_the_answers_before_it(segmenter):
    answered = []
    with pytest.raises(ValueError, match="the expression ' ' is empty"):
        for answer in segmenter.stream(
            [*((frame, STAR) for frame in frames(3)), (frames()[0], " ")]
        ):
            answered.append(answer)
    assert len(answered) == 3


def test_a_file_that_is_written_again(segmenter, tmp_path):
    path = tmp_path / "camera.png"

    def camera():
        for frame in frames():
            Image.fromarray(frame).save(path)
            yield path, STAR

    expected = masks(segmenter(list(frames()), STAR))
    np.testing.assert_array_equal(masks(segmenter.stream(camera())), expected)


def test_a_picture_keeps_its_answer_in_another_process_and_under_another_name(segmenter):
    """Its key is that of its pixels: a copy has the same, other pixels another."""
    one, other = (segmenter.open(frame) for frame in frames(2))
    assert one.key != other.key
    assert pickle.loads(pickle.dumps(one)).key == one.key
    assert dataclasses.replace(one, name="b").key == one.key
    changed = dataclasses.replace(one, canvas=other.canvas, content=other.content)
    assert changed.key == other.key
    with pytest.raises(ValueError, match="read-only"):
        one.canvas[...] = 0


def test_results_come_while_the_list_goes_on(segmenter):
    taken = []

    def endless():
        while True:
            taken.append(frames()[len(taken) % 5])
            yield taken[-1], STAR

    stream = segmenter.stream(endless())
    next(stream)
    assert len(taken) == 4  # one batch is answered, the next one runs

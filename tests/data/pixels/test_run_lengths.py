"""COCO's run lengths in NumPy, against pycocotools."""

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle

from dit_jax.data.pixels import run_lengths

SHAPES = [(1, 1), (1, 9), (9, 1), (37, 53), (480, 640)]


def masks(height, width):
    """Empty, full, a corner, a block, noise of every density."""
    rng = np.random.default_rng(height * width)
    yield np.zeros((height, width), bool)
    yield np.ones((height, width), bool)
    for corner in ((0, 0), (-1, -1)):
        mask = np.zeros((height, width), bool)
        mask[corner] = True
        yield mask
    mask = np.zeros((height, width), bool)
    mask[height // 3 : height // 2, width // 4 :] = True
    yield mask
    yield from (rng.random((height, width)) < share for share in (0.001, 0.1, 0.5, 0.9))


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_decodes_what_pycocotools_encodes(height, width):
    for mask in masks(height, width):
        counts = rle.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
        decoded = run_lengths.decode(counts, height=height, width=width)
        assert decoded.dtype == bool and decoded.flags["C_CONTIGUOUS"]
        np.testing.assert_array_equal(decoded, mask)


@pytest.mark.parametrize("width", [640, 1920, 3024, 4032])
def test_a_narrow_mask_of_a_large_picture_is_resized(width):
    """Fewer columns than become one, wherever they lie; as OpenCV does it with all of them."""
    height, rng = 96, np.random.default_rng(width)
    for _ in range(60):
        h, w = (int(side) for side in rng.integers((40, 40), (96, 513)))
        left, narrow = int(rng.integers(width)), int(rng.integers(1, 12))
        mask = np.zeros((height, width), np.uint8)
        mask[20:60, left : left + narrow] = 255
        counts = rle.encode(np.asfortranarray(mask // 255))["counts"]
        lengths = run_lengths.checked(counts, height=height, width=width)
        found = run_lengths.resized(lengths, height=height, width=width, to=(h, w))
        expected = cv2.resize(mask, (w, h), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(found.astype(int), expected, atol=2)


def test_runs_are_the_uncompressed_counts():
    expected = [5, 3, 70_000, 1, 2, 90_000]
    size = [1, sum(expected)]
    counts = rle.frPyObjects({"size": size, "counts": expected}, *size)["counts"]
    assert run_lengths.runs(counts).tolist() == expected


@pytest.mark.parametrize("counts", [b"", b"5 3", b"P", b"\xff", b"PPPPPPPPPPP0", b"5P"])
def test_damaged_run_lengths_are_refused(counts):
    with pytest.raises(ValueError, match="^the mask's run lengths are damaged, expected"):
        run_lengths.decode(counts, height=2, width=4)


@pytest.mark.parametrize("shape", [(4, 6), (6, 5), (0, 0)])
def test_run_lengths_of_another_size_are_refused(shape):
    height, width = shape
    counts = rle.encode(np.asfortranarray(np.eye(5, dtype=np.uint8)))["counts"]
    message = rf"do not add up to the {height * width} pixels of a {height}x{width} \(height"
    with pytest.raises(ValueError, match=message):
        run_lengths.decode(counts, height=height, width=width)


def test_negative_runs_are_refused():
    assert run_lengths.runs(b"4N6").tolist() == [4, -2, 6]
    with pytest.raises(ValueError, match="do not add up"):
        run_lengths.decode(b"4N6", height=1, width=8)

"""What records hold, at its own size and at the size that training wants."""

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle

from dit_jax.data.pixels import Stored, decode_image, resize

FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
SIZES = [(75, 100), (100, 75), (40, 53), (31, 100), (100, 100), (120, 160)]


def picture(height, width):
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def masks(height, width):
    y, x = np.mgrid[:height, :width]
    for cy, cx in ((0.5, 0.5), (0.0, 0.9), (0.9, 0.0), (1.0, 1.0)):
        yield (y - cy * height) ** 2 + (x - cx * width) ** 2 < (min(height, width) / 4) ** 2
    yield np.random.default_rng(1).random((height, width)) < 0.1
    yield np.ones((height, width), bool)
    yield np.zeros((height, width), bool)


def stored(image, mask, *, suffix=".jpg", **about):
    counts = rle.encode(np.asfortranarray(mask, np.uint8))["counts"]
    size = about.pop("size", mask.shape)
    named = dict(expressions=("a",), id="r1", image_id=0)
    return Stored(cv2.imencode(suffix, image)[1].tobytes(), counts, size=size, **named, **about)


@pytest.mark.parametrize("to", SIZES)
def test_a_mask_is_resized_as_opencv_does_it(to):
    for height, width in ((100, 133), (120, 90)):
        for mask in masks(height, width):
            found = stored(picture(height, width), mask)
            np.testing.assert_array_equal(found.mask, mask)
            assert found.present == mask.any()
            expected = resize(mask * np.uint8(255), to)
            soft = found.fitted(to)[1]
            assert np.abs(soft.astype(int) - expected).max() <= 1
            assert soft.shape == to


@pytest.mark.parametrize(
    ("to", "times"), [((49, 64), 1), ((48, 64), 2), ((13, 32), 4), ((9, 9), 8)]
)
def test_a_jpeg_is_decoded_no_larger_than_twice_what_is_wanted(to, times):
    image, mask = picture(96, 128), next(masks(96, 128))
    found = stored(image, mask)
    whole = decode_image(cv2.imencode(".jpg", image)[1].tobytes(), name="x")
    small = decode_image(cv2.imencode(".jpg", image)[1].tobytes(), name="x", reduced=times)
    assert small.shape == (96 // times, 128 // times, 3)
    np.testing.assert_array_equal(found.fitted(to)[0], resize(small, to))
    np.testing.assert_array_equal(found.image, whole)
    average = cv2.resize(whole, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - average).mean() < 4
    png = stored(image, mask, suffix=".png").fitted(to)[0]
    np.testing.assert_array_equal(png, resize(image[..., ::-1], to))


def test_of_a_picture_decoded_smaller_nothing_is_moved():
    """Of sides that are no multiples of eight, the last pixel reaches beyond the picture."""
    ramp = np.broadcast_to(np.linspace(0, 255, 257)[None, :, None], (257, 257, 3)).astype(np.uint8)
    image, _ = stored(ramp, np.ones((257, 257), bool)).fitted((32, 32))
    expected = cv2.resize(ramp, (32, 32), interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("axis", [0, 1])
def test_of_a_turned_picture_decoded_smaller_nothing_is_moved(orientation, axis):
    """Wherever the row and the column are that reach beyond it."""
    shape = [1, 1, 1]
    shape[axis] = 257
    ramp = np.broadcast_to(np.linspace(0, 255, 257).reshape(shape), (257, 257, 3)).astype(np.uint8)
    one = stored(ramp, np.ones((257, 257), bool), orientation=orientation)
    image, _ = one.fitted((32, 32))
    expected = cv2.resize(one.image, (32, 32), interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(int) - expected).max() <= 3  # a pixel further is 8


def test_a_turned_picture_and_its_mask_fit_each_other():
    mask = next(masks(66, 40))
    image, _ = stored(picture(40, 66), mask, orientation=6).fitted((33, 20))
    small = cv2.imdecode(cv2.imencode(".jpg", picture(40, 66))[1], FLAGS | 16)
    np.testing.assert_array_equal(image, np.rot90(small, -1))


def test_what_is_broken_is_named():
    mask = np.zeros((40, 66), bool)
    with pytest.raises(ValueError, match="^r1: the mask's run lengths do not add up"):
        stored(picture(40, 66), mask, size=(41, 66))
    turned = stored(picture(40, 66), mask.T)
    for read in (lambda: turned.image, lambda: turned.fitted((8, 8))):
        with pytest.raises(ValueError, match=r"^r1: the mask is 66x40 \(height x width\) but the"):
            read()

"""Referents check themselves; pictures decode to the pixels that masks are drawn on."""

import struct

import cv2
import numpy as np
import pytest

from dit_jax.data.pixels.decode import decode_image
from dit_jax.data.referent import Referent

EXIF_ROTATED = (
    b"\xff\xe1"
    + struct.pack(">H", 34)
    + b"Exif\0\0"
    + struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)
)


def test_pictures_decode_to_the_pixels_as_stored():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 8, 3), np.uint8)
    jpeg = cv2.imencode(".jpg", pixels)[1].tobytes()
    plain = decode_image(jpeg, name="x")
    rotated = decode_image(jpeg[:2] + EXIF_ROTATED + jpeg[2:], name="x")
    np.testing.assert_array_equal(rotated, plain)  # masks are drawn on unrotated pixels
    grey = decode_image(cv2.imencode(".png", pixels[..., 0])[1].tobytes(), name="x")
    np.testing.assert_array_equal(grey, np.repeat(pixels[..., :1], 3, axis=2))
    deep = decode_image(cv2.imencode(".png", pixels.astype(np.uint16) * 257)[1].tobytes(), name="x")
    np.testing.assert_array_equal(deep, pixels[..., ::-1])
    for damaged in (b"", b"no picture", jpeg[: len(jpeg) // 2]):
        with pytest.raises(ValueError, match="^x: the picture .* cannot be decoded"):
            decode_image(damaged, name="x")


def test_a_referent_checks_itself():
    image, mask = np.zeros((4, 6, 3), np.uint8), np.zeros((6, 4), bool)
    with pytest.raises((ValueError, TypeError), match="mask"):  # TypeError: run-time shape checks
        Referent(image=image, mask=mask, expressions=("a",), id="r1", image_id=0)
    with pytest.raises(ValueError, match="^r1: expected at least one expression"):
        Referent(image=image, mask=mask.T, expressions=(), id="r1", image_id=0)

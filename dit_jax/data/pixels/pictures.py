"""A picture in whatever form a user has it, as the RGB pixels that a person sees.

Files are decoded as the evaluation decodes them, by OpenCV, and turned upright as viewers turn
them; NumPy arrays are taken as they are.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import UInt8
from PIL import Image

from dit_jax.data.pixels.decode import FORMATS, by_pillow, decode_image, is_deep, opened, or_heic
from dit_jax.data.pixels.near_names import near
from dit_jax.data.pixels.picture_size import LARGEST_FILE, check_pixels, header, orientation

Rgb = UInt8[np.ndarray, "H W 3"]
EXPECTED = "a path, encoded bytes, a PIL picture or a uint8 NumPy array [H, W, 3]"


def rgb(image: Any, *, name: str = "the picture") -> Rgb:
    """Pixels of a path, encoded bytes, PIL picture, or uint8 array `[H, W]` or `[H, W, 1|3|4]`.

    EXIF orientation is applied, transparency left out, and more than 8 bits become 8, with a
    warning where that is not evident (`from_pillow.eight_bits`). Raises FileNotFoundError,
    IsADirectoryError or ValueError, in one sentence with the path or `name`, also for more than
    `LARGEST` pixels, before they are decoded.
    """
    match image:
        case str() | os.PathLike():
            return _from_bytes(read_file(image), name=shown(image))
        case bytes() | bytearray() | memoryview():
            return _from_bytes(bytes(image), name=name)
        case Image.Image():
            return _from_pil(image, name=name)
        case np.ndarray():
            return _from_array(image, name=name)
    raise ValueError(f"{name} is of type {type(image).__name__}; expected {EXPECTED}.")


def read_file(path: str | os.PathLike) -> bytes:
    """A file's bytes; raises FileNotFoundError, IsADirectoryError, or ValueError if too large."""
    check_file(path)
    return Path(path).read_bytes()


def check_file(path: str | os.PathLike) -> None:
    """Raise, in a sentence, unless there is a file of a size that a picture can have."""
    name = shown(path)
    if not os.path.lexists(path):
        raise FileNotFoundError(f"no such picture: {name}{near(path)}.")
    if os.path.isdir(path):
        raise IsADirectoryError(f"{name} is a folder; expected a picture.")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{name} is no regular file; expected a picture.")
    if os.path.getsize(path) > LARGEST_FILE:
        raise ValueError(f"{name} has {os.path.getsize(path)} bytes; expected a smaller picture.")


def shown(path: str | os.PathLike) -> str:
    """A path for a message of one line."""
    text = os.fspath(path)
    return text if isinstance(text, str) and text.isprintable() and text else repr(text)


def _from_bytes(data: bytes, *, name: str) -> Rgb:
    found = header(data)
    if found is None:
        problem = or_heic(data, "is not a picture")
        raise ValueError(f"{name} {problem}; expected {', '.join(FORMATS)}.")
    check_pixels(*found[1], name=name)
    if is_deep(data):
        return _from_pil(opened(data)[1], name=name)
    return decode_image(data, name=name, orientation=orientation(data))


def _from_pil(image: Image.Image, *, name: str) -> Rgb:
    check_pixels(image.height, image.width, name=name)
    pixels, remark = by_pillow(image, name=name)
    if remark:
        logging.warning("%s %s", name, remark)
    return _from_array(pixels, name=name)


def _from_array(array: np.ndarray, *, name: str) -> Rgb:
    if array.dtype != np.uint8:
        raise ValueError(
            f"{name} is an array of {array.dtype}; expected uint8, with values from 0 to 255."
        )
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise ValueError(
            f"{name} is an array of shape {array.shape}; expected [height, width, 3], or 1 or 4"
            " channels."
        )
    if 0 in array.shape:
        raise ValueError(f"{name} has the shape {array.shape}; expected at least one pixel.")
    check_pixels(*array.shape[:2], name=name)
    if array.shape[2] == 1:
        array = np.broadcast_to(array, (*array.shape[:2], 3))
    return np.ascontiguousarray(array[..., :3])

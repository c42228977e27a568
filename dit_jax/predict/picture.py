"""A user's picture on the canvas that a model sees.

DIT centres it and resizes with OpenCV, as training and evaluation do (`dit_jax.data.pixels`);
Meta's SAM puts it into the top left corner and resizes with Pillow's antialiased bilinear filter
(`ResizeLongestSide` of segment-anything).
"""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from dit_jax.data.pixels import Content, antialiased, letterbox, pictures, place, resize
from dit_jax.eval.protocols import THRESHOLD

Resized = UInt8[np.ndarray, "h w 3"]
Coordinates = Float32[np.ndarray, "p 2"]


@dataclass(frozen=True, eq=False)
class Picture:
    """An opened picture: pass it instead of the file to ask more about it without reading it again.

    It keeps the canvas, not the picture's own pixels.
    """

    name: str
    height: int  # pixels, upright
    width: int
    canvas: UInt8[np.ndarray, "S S 3"] = field(repr=False)
    content: Content  # where the picture lies on the canvas

    @functools.cached_property
    def key(self) -> bytes:
        """Of what a model sees: equal in every process, another one for other pixels."""
        digest = hashlib.blake2b(np.ascontiguousarray(self.canvas), digest_size=16)
        digest.update(repr((self.canvas.shape, tuple(map(int, self.content)))).encode())
        return digest.digest()


@dataclass(frozen=True)
class Letterbox:
    """How a kind of model wants its pictures: onto a canvas, and coordinates along with them."""

    put: Callable[[pictures.Rgb, int], tuple[UInt8[np.ndarray, "S S 3"], Content]]
    resize: Callable[[pictures.Rgb, tuple[int, int]], Resized]  # to a height and a width
    move: Callable[[Coordinates, Picture], Coordinates]
    threshold: float  # on the probability of a pixel

    def open(self, image: Any, *, size: int, name: str) -> Picture:
        """Raises FileNotFoundError or ValueError, in a sentence; see `pictures.rgb`."""
        pixels = pictures.rgb(image, name=name)
        canvas, content = self.put(pixels, size)
        canvas.setflags(write=False)  # its key must stay true
        return Picture(name, *pixels.shape[:2], canvas, content)


def in_the_corner(image: pictures.Rgb, size: int) -> tuple[UInt8[np.ndarray, "S S 3"], Content]:
    """As Meta's SAM: long side `size`, rounded half up, the padding at the right and the bottom."""
    ratio = size / max(image.shape[:2])
    height, width = (max(1, int(side * ratio + 0.5)) for side in image.shape[:2])
    content = (0, 0, height, width)
    return place(antialiased(image, (height, width)), content, size=size), content


def by_centres(points: Coordinates, picture: Picture) -> Coordinates:
    """Pixel centres onto pixel centres, as the picture was resized."""
    top, left, height, width = picture.content
    scale = np.array([width / picture.width, height / picture.height])
    moved = (points + 0.5) * scale[None] - 0.5 + np.array([left, top])[None]
    return moved.astype(np.float32)


def by_corners(points: Coordinates, picture: Picture) -> Coordinates:
    """`apply_coords` of segment-anything: a factor, whatever the resizing did with half pixels."""
    _, _, height, width = picture.content
    scale = np.array([width / picture.width, height / picture.height])
    return (points * scale[None]).astype(np.float32)


DIT = Letterbox(put=letterbox, resize=resize, move=by_centres, threshold=THRESHOLD)
SAM = Letterbox(put=in_the_corner, resize=antialiased, move=by_corners, threshold=0.5)

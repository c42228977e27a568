"""Embedded data set: a layout becomes a picture and exact masks.

Every outline is filled at four times the resolution and averaged down to a coverage between 0 and
1, which both blends the object into the picture and, from one half up, makes its mask: picture and
mask cannot disagree.  Things are drawn back to front, so `owner` names the frontmost thing of every
pixel and the masks hold visible parts only.
"""

from dataclasses import dataclass
from functools import cache
from math import ceil, cos, floor, pi, sin

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int8, UInt8

from dit_jax.data.shapes.layout import COLOURS, Backdrop, Layout, Thing

OVERSAMPLING = 4
BACKGROUND = -1
STRIPE_PERIOD = 6.5  # reference pixels, for stripes and dots alike


@dataclass(frozen=True)
class Stencil:
    """Where one thing falls: coverage in [0, 1] of the pixels from (top, left) on."""

    top: int
    left: int
    coverage: Float32[np.ndarray, "h w"]

    @property
    def window(self) -> tuple[slice, slice]:
        height, width = self.coverage.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    @property
    def inside(self) -> Bool[np.ndarray, "h w"]:
        return self.coverage >= 0.5


@cache
def outline(shape: str) -> Float32[np.ndarray, "n 2"]:
    """The polygon of a shape, y down, scaled so that all shapes of one radius look equally large:
    the geometric mean of area-equivalent and circumscribed radius is 1."""
    points = np.asarray(OUTLINES[shape](), np.float64)
    area = cv2.contourArea(points.astype(np.float32))
    circumscribed = np.linalg.norm(points, axis=1).max()
    return (points / np.sqrt(np.sqrt(area / pi) * circumscribed)).astype(np.float32)


def _regular(corners: int, *, inner: float | None = None) -> list[tuple[float, float]]:
    """A regular polygon standing on its base, or with `inner` radius a star of as many tips."""
    radii = [1.0] if inner is None else [1.0, inner]
    steps = corners * len(radii)
    turns = [2 * pi * i / steps for i in range(steps)]
    return [
        (radii[i % len(radii)] * sin(t), -radii[i % len(radii)] * cos(t))
        for i, t in enumerate(turns)
    ]


def _heart() -> list[tuple[float, float]]:
    turns = [2 * pi * i / 40 for i in range(40)]
    return [
        (
            16 * sin(t) ** 3,
            # + 2.5 lowers the classic curve until its middle is at 0
            2.5 - 13 * cos(t) + 5 * cos(2 * t) + 2 * cos(3 * t) + cos(4 * t),
        )
        for t in turns
    ]


def _cross() -> list[tuple[float, float]]:
    a = 0.34  # half the width of an arm, of a length of 1
    quarter = [(-a, -1.0), (a, -1.0), (a, -a)]
    corners = list(quarter)
    for _ in range(3):
        quarter = [(-y, x) for x, y in quarter]
        corners += quarter
    return corners


OUTLINES = {
    "circle": lambda: _regular(48),
    "square": lambda: [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)],
    "triangle": lambda: _regular(3),
    "star": lambda: _regular(5, inner=0.45),
    "heart": _heart,
    "cross": _cross,
}


def stencil(thing: Thing) -> Stencil:
    """Fills the thing's outline in a window of its own."""
    c, s = cos(thing.angle), sin(thing.angle)
    turn = np.array([[c, s], [-s, c]], np.float32)
    corners = thing.radius * (outline(thing.shape) @ turn) + (thing.x, thing.y)
    left, top = (floor(v) for v in corners.min(0))
    right, bottom = (ceil(v) for v in corners.max(0))
    fine = np.zeros(((bottom - top) * OVERSAMPLING, (right - left) * OVERSAMPLING), np.uint8)
    # cv2 puts pixel centres at whole numbers: half a fine pixel is taken off.
    vertices = (corners - (left, top)) * OVERSAMPLING - 0.5
    cv2.fillPoly(fine, [np.rint(vertices * 16).astype(np.int32)], 255, shift=4)
    coverage = cv2.resize(fine, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    return Stencil(top, left, coverage.astype(np.float32) / np.float32(255))


def owners(layout: Layout, stencils: tuple[Stencil, ...]) -> Int8[np.ndarray, "H W"]:
    """Number of the frontmost thing of every pixel, `BACKGROUND` where there is none."""
    owner = np.full((layout.height, layout.width), BACKGROUND, np.int8)
    for number, part in enumerate(stencils):
        owner[part.window][part.inside] = number
    return owner


def paint(layout: Layout, stencils: tuple[Stencil, ...]) -> UInt8[np.ndarray, "H W 3"]:
    """The RGB picture."""
    canvas = _paint_backdrop(layout.backdrop, layout.height, layout.width)
    for thing, part in zip(layout.things, stencils, strict=True):
        window = canvas[part.window]
        window += part.coverage[:, :, None] * (_ink(thing, part, layout.unit) - window)
    return np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)


def _ink(thing: Thing, part: Stencil, unit: float) -> Float32[np.ndarray, "#h #w 3"]:
    """The thing's colour at every pixel of its window: even, or two tones in a texture."""
    colour = np.float32(thing.shade) * np.array(COLOURS[thing.colour], np.float32)
    if thing.texture == "plain":
        return colour[None, None]
    # Bright colours get dark marks and dark ones whitish marks: the contrast is always high.
    red, green, blue = colour
    bright = 0.3 * red + 0.59 * green + 0.11 * blue > 120
    mark = colour * np.float32(0.42) if bright else colour * np.float32(0.2) + np.float32(200)
    amount = _texture(thing, part.coverage.shape, unit)[:, :, None]
    return colour + amount * (mark - colour)


def _texture(thing: Thing, shape: tuple[int, ...], unit: float) -> Float32[np.ndarray, "h w"]:
    """Share of the mark's colour: clipped waves, whose slope makes edges about a pixel wide."""
    wave = 2 * pi / (STRIPE_PERIOD * unit)
    y = np.arange(shape[0], dtype=np.float32)[:, None] * np.float32(wave)
    x = np.arange(shape[1], dtype=np.float32)[None, :] * np.float32(wave)
    c, s = np.float32(cos(thing.phase)), np.float32(sin(thing.phase))
    along = np.cos(c * x + s * y + np.float32(thing.phase))
    if thing.texture == "striped":
        return np.clip(0.5 + along / np.float32(wave), 0, 1)
    across = np.cos(c * y - s * x)
    return np.clip(0.5 + (along + across - np.float32(0.75)) / np.float32(wave), 0, 1)


def _paint_backdrop(backdrop: Backdrop, height: int, width: int) -> Float32[np.ndarray, "H W 3"]:
    rng = np.random.Generator(np.random.PCG64(backdrop.seed))
    mix = _pattern(backdrop, rng, height, width)
    noise = np.frombuffer(rng.bytes(height * width), np.uint8).reshape(height, width)
    grain = (noise.astype(np.float32) - 127.5) * np.float32(backdrop.grain / 127.5)
    channels = [
        np.float32(first) + mix * np.float32(second - first) + grain
        for first, second in zip(backdrop.first, backdrop.second, strict=True)
    ]
    return cv2.merge(channels)


def _pattern(
    backdrop: Backdrop, rng: np.random.Generator, height: int, width: int
) -> Float32[np.ndarray, "H W"]:
    """Share of the second colour at every pixel, in [0, 1]."""
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :]
    c, s = np.float32(cos(backdrop.angle)), np.float32(sin(backdrop.angle))
    if backdrop.kind == "gradient":
        return np.clip(0.5 + 0.75 * (c * x + s * y), 0, 1)
    if backdrop.kind == "clouds":
        coarse = rng.random((5, 5), dtype=np.float32)
        return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    if backdrop.kind == "waves":
        return 0.5 + 0.35 * np.sin(45 * (c * x + s * y))
    if backdrop.kind == "tiles":
        return np.where((np.sin(25 * x + s) > 0) ^ (np.sin(25 * y + c) > 0), 0.3, 0.7).astype(
            np.float32
        )
    if backdrop.kind == "flat":
        return np.zeros((height, width), np.float32)
    raise ValueError(f"unknown backdrop {backdrop.kind!r}")

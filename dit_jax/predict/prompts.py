"""Points, boxes and masks, in pixels of the picture: checked, and moved onto the model's canvas."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int32

from dit_jax.data.entries import CHOICES, MaskFile
from dit_jax.data.pixels import drawn, inside
from dit_jax.predict.picture import Letterbox, Picture
from dit_jax.predict.segmentation import Segmentation
from dit_jax.strict import one_of

# Points of one mask are filled up to one of these, so that a click more compiles nothing: 16 take
# as long as one. A decoder attends from every point to every other, which limits them.
POINT_COUNTS = (16, 64, 256, 1024)
MOST_POINTS = POINT_COUNTS[-1]
LABELS = (0, 1)  # background, object
QUARTER = 4  # a mask prompt has a quarter of the canvas's side
SURE = 0.999  # probability of a pixel inside a drawn mask

Point = tuple[float, float, int]


MaskLogits = Float32[np.ndarray, "_ _"]  # a quarter of the canvas, as the decoder gives them


@dataclass(frozen=True)
class Prompt:
    """What somebody points at in one picture; empty where there is only a text."""

    points: tuple[Point, ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask: MaskLogits | None = None

    @staticmethod
    def of(
        points: Any, box: Any, *, picture: Picture, units: str = "pixel", mask: Any = None
    ) -> "Prompt":
        """From sequences of numbers; raises ValueError for what does not lie in the picture.

        What reaches less than a pixel beyond the border is cut.

        Args:
          units: "pixel", or "fraction" of the picture's width and height.
          mask: an earlier answer about the picture, a bool or uint8 array `[H, W]` (not 0 is
            inside), the path of a mask picture, or COCO's run lengths.
        """
        one_of("units", units, CHOICES["units"])
        listed = [] if points is None else _sequence(points, "points", "[(x, y, label), …]")
        if len(listed) > MOST_POINTS:
            raise ValueError(f"{len(listed)} points are given; expected at most {MOST_POINTS}.")
        named = [_named(point) for point in listed]
        corners = None if box is None else _numbers(box, "a box", (4,), "(x0, y0, x1, y1)")
        if units == "pixel":
            _check_pixels(named, corners, picture)
        scale = (picture.width, picture.height) if units == "fraction" else (1, 1)
        found = tuple(_point(x * scale[0], y * scale[1], k, picture) for x, y, k in named)
        logits = None if mask is None else _mask(mask, picture)
        if corners is None:
            return Prompt(found, None, logits)
        pixels = (n * side for n, side in zip(corners, (*scale, *scale), strict=True))
        return Prompt(found, _box(*pixels, picture), logits)


@dataclass(frozen=True)
class Placed:
    """Prompts of several rows on their canvases; points are filled up to one count."""

    points: Float32[np.ndarray, "b p 2"] | None
    labels: Int32[np.ndarray, "b p"] | None
    point_mask: Bool[np.ndarray, "b p"] | None  # False where a row only was filled up
    boxes: Float32[np.ndarray, "b 4"] | None
    masks: Float32[np.ndarray, "b H4 W4 1"] | None


def on_canvas(
    prompts: Sequence[Prompt], pictures: Sequence[Picture], *, letterbox: Letterbox, count: int
) -> Placed:
    """`count` points a row (0: none); all rows have a box, or none has, and so of masks."""
    boxes = None
    if prompts[0].box is not None:
        corners = [
            letterbox.move(np.reshape(np.float32(prompt.box), (2, 2)), picture)
            for prompt, picture in zip(prompts, pictures, strict=True)
        ]
        boxes = np.stack(corners).reshape(-1, 4)
    masks = None
    if prompts[0].mask is not None:
        masks = np.stack([prompt.mask for prompt in prompts])[..., None]
    if not count:
        return Placed(None, None, None, boxes, masks)
    points = np.zeros((len(prompts), count, 2), np.float32)
    labels, there = np.zeros((len(prompts), count), np.int32), np.zeros((len(prompts), count), bool)
    for row, (prompt, picture) in enumerate(zip(prompts, pictures, strict=True)):
        n = len(prompt.points)
        given = np.array(prompt.points, np.float32).reshape(n, 3)
        points[row, :n] = letterbox.move(given[:, :2], picture)
        labels[row, :n], there[row, :n] = given[:, 2], True
    return Placed(points, labels, there, boxes, masks)


def _named(point: Any) -> Point:
    values = _numbers(point, "a point", (2, 3), "(x, y) or (x, y, label)")
    x, y, label = (*values, 1)[:3]
    if label not in LABELS:
        raise ValueError(f"the label of a point is {label:g}; expected 1 (object) or 0.")
    return x, y, int(label)


def _check_pixels(points: Sequence[Point], box: Sequence[float] | None, picture: Picture) -> None:
    """Raise ValueError for numbers that can only be fractions of the picture."""
    numbers = [number for x, y, _ in points for number in (x, y)]
    whole = all(number.is_integer() for number in numbers)  # (0, 1) is a pixel
    for what, given, odd in (("points", numbers, not whole), ("box", box or (), True)):
        if given and odd and min(given) >= 0 and max(given) <= 1:
            raise ValueError(
                f"the {what} look like fractions of {picture.name}, because all numbers are from 0"
                f" to 1; expected pixels, of {picture.width} (width) and {picture.height} (height),"
                ' or "units": "fraction" in a line of pairs.'
            )


def _point(x: float, y: float, label: int, picture: Picture) -> Point:
    if not (-1 < x < picture.width and -1 < y < picture.height):
        raise ValueError(
            f"the point ({x:g}, {y:g}) lies outside {picture.name}, which is {picture.width} pixels"
            f" wide and {picture.height} high."
        )
    return max(x, 0.0), max(y, 0.0), label


def _box(
    x0: float, y0: float, x1: float, y1: float, picture: Picture
) -> tuple[float, float, float, float]:
    width, height = picture.width, picture.height
    if not (-1 < x0 < x1 < width + 1 and -1 < y0 < y1 < height + 1):
        fits = min(x0, y0, x1, y1) >= 0 and x0 + x1 <= width and y0 + y1 <= height
        hint = " It would be one as (x, y, width, height): box_xywh in a file." if fits else ""
        raise ValueError(
            f"the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) is no box (x0, y0, x1, y1) inside"
            f" {picture.name}, which is {width} pixels wide and {height} high.{hint}"
        )
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))


def _mask(given: Any, picture: Picture) -> MaskLogits:
    side = picture.canvas.shape[0]
    small = (side // QUARTER, side // QUARTER)
    if isinstance(given, Segmentation):
        same = (given.height, given.width) == (picture.height, picture.width)
        if same and given.seed is None and np.shape(given.low_res) == small:
            return given.low_res
        given = given.mask
    elif isinstance(given, (str, os.PathLike)):
        given = MaskFile(Path(given))
    if isinstance(given, (MaskFile, dict)):
        given = drawn(given, height=picture.height, width=picture.width)
    if not isinstance(given, np.ndarray) or given.dtype not in (np.bool_, np.uint8):
        kind = getattr(given, "dtype", type(given).__name__)
        raise ValueError(
            f"a mask is of type {kind}; expected an earlier answer, a bool or uint8 array [H, W],"
            " the path of a mask picture, or run lengths."
        )
    if given.shape != (picture.height, picture.width):
        raise ValueError(
            f"the mask has the shape {given.shape}; expected that of {picture.name},"
            f" {(picture.height, picture.width)}."
        )
    height, width = picture.content[2:]
    canvas = np.zeros((side, side), np.float32)
    how = cv2.INTER_AREA if height < picture.height else cv2.INTER_LINEAR
    inside(canvas, picture.content)[...] = cv2.resize(
        (given != 0).astype(np.float32), (width, height), interpolation=how
    )
    share = cv2.resize(canvas, small, interpolation=cv2.INTER_AREA)
    share = np.clip(share, 1 - SURE, SURE)
    return np.log(share / (1 - share)).astype(np.float32)


def _numbers(values: Any, what: str, counts: tuple[int, ...], expected: str) -> tuple[float, ...]:
    listed = _sequence(values, what, expected)
    if len(listed) not in counts or not all(map(_is_number, listed)):
        raise ValueError(f"{what} is {_short(values)}; expected numbers {expected}.")
    return tuple(map(float, listed))


def _sequence(values: Any, what: str, expected: str) -> list:
    if not isinstance(values, (list, tuple, np.ndarray)) or getattr(values, "ndim", 1) == 0:
        raise ValueError(f"{what} is {_short(values)}; expected {expected}.")
    return list(values)


def _is_number(value: Any) -> bool:
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return real and abs(value) < 1e9 and math.isfinite(value)


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:79] + "…"

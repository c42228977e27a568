"""Points and boxes, in pixels of the picture: checked, and moved onto the model's canvas."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int32

from dit_jax.predict.picture import Letterbox, Picture

MOST_POINTS = 1024  # of one mask; a decoder attends from every point to every other
LABELS = (0, 1)  # background, object

Point = tuple[float, float, int]


@dataclass(frozen=True)
class Prompt:
    """What somebody points at in one picture; empty where there is only a text."""

    points: tuple[Point, ...] = ()
    box: tuple[float, float, float, float] | None = None

    @staticmethod
    def of(points: Any, box: Any, *, picture: Picture) -> "Prompt":
        """From sequences of numbers; raises ValueError for what does not lie in the picture."""
        listed = [] if points is None else _sequence(points, "points", "[(x, y, label), …]")
        if len(listed) > MOST_POINTS:
            raise ValueError(f"{len(listed)} points are given; expected at most {MOST_POINTS}.")
        found = tuple(_point(point, picture) for point in listed)
        return Prompt(found, None if box is None else _box(box, picture))


@dataclass(frozen=True)
class Placed:
    """Prompts of several rows on their canvases; points are filled up to one count."""

    points: Float32[np.ndarray, "b p 2"] | None
    labels: Int32[np.ndarray, "b p"] | None
    point_mask: Bool[np.ndarray, "b p"] | None  # False where a row only was filled up
    boxes: Float32[np.ndarray, "b 4"] | None


def on_canvas(
    prompts: Sequence[Prompt], pictures: Sequence[Picture], *, letterbox: Letterbox, count: int
) -> Placed:
    """`count` points a row (0: none); all rows have a box, or none has."""
    boxes = None
    if prompts[0].box is not None:
        corners = [
            letterbox.move(np.reshape(np.float32(prompt.box), (2, 2)), picture)
            for prompt, picture in zip(prompts, pictures, strict=True)
        ]
        boxes = np.stack(corners).reshape(-1, 4)
    if not count:
        return Placed(None, None, None, boxes)
    points = np.zeros((len(prompts), count, 2), np.float32)
    labels, there = np.zeros((len(prompts), count), np.int32), np.zeros((len(prompts), count), bool)
    for row, (prompt, picture) in enumerate(zip(prompts, pictures, strict=True)):
        n = len(prompt.points)
        given = np.array(prompt.points, np.float32).reshape(n, 3)
        points[row, :n] = letterbox.move(given[:, :2], picture)
        labels[row, :n], there[row, :n] = given[:, 2], True
    return Placed(points, labels, there, boxes)


def _point(point: Any, picture: Picture) -> Point:
    values = _numbers(point, "a point", (2, 3), "(x, y) or (x, y, label)")
    x, y, label = (*values, 1)[:3]
    if label not in LABELS:
        raise ValueError(f"the label of a point is {label:g}; expected 1 (object) or 0.")
    if not (0 <= x < picture.width and 0 <= y < picture.height):
        raise ValueError(
            f"the point ({x:g}, {y:g}) lies outside {picture.name}, which is {picture.width} pixels"
            f" wide and {picture.height} high."
        )
    return x, y, int(label)


def _box(box: Any, picture: Picture) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = _numbers(box, "a box", (4,), "(x0, y0, x1, y1)")
    if not (0 <= x0 < x1 <= picture.width and 0 <= y0 < y1 <= picture.height):
        raise ValueError(
            f"the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) is no box (x0, y0, x1, y1) inside"
            f" {picture.name}, which is {picture.width} pixels wide and {picture.height} high."
        )
    return x0, y0, x1, y1


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

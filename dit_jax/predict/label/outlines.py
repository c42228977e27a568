"""Masks as polygons: outlines through the outermost pixels' centers, which fill to the same pixels.

A hole is joined to what lies left of it by a cut that is passed twice, since the formats that have
polygons alone know no holes. Filled by the even-odd rule, edges included, as `cv2.fillPoly` does
and the readers of these formats do with it, an outline gives back its mask.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Int

Outline = Int[np.ndarray, "_ 2"]  # x, y in pixels; as many points as it takes


def outlines(mask: Bool[np.ndarray, "H W"]) -> list[Outline]:
    """One closed outline for each piece of a mask (of pixels that touch, if only at corners)."""
    found, tree = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not found:
        return []
    around = [contour[:, 0] for contour in found]
    inside: dict[int, list[Outline]] = {}
    for contour, (_, _, _, parent) in zip(around, tree[0], strict=True):
        inside.setdefault(int(parent), []).append(contour)
    outer = [i for i, row in enumerate(tree[0]) if row[3] < 0]
    return [_straight(_joined(around[i], inside.get(i, []), mask)) for i in outer]


def _joined(outer: Outline, holes: Sequence[Outline], mask: Bool[np.ndarray, "H W"]) -> Outline:
    """One outline, from left to right: a cut runs through pixels of the mask to the left."""
    for hole in sorted(holes, key=lambda hole: hole[:, 0].min()):
        start = int(hole[:, 0].argmin())
        x, y = hole[start]
        outside = np.flatnonzero(~mask[y, :x])
        reached = outside[-1] + 1 if len(outside) else 0
        place = int(np.flatnonzero((outer == (reached, y)).all(axis=1))[0])
        loop = np.concatenate([hole[start:], hole[: start + 1]])
        outer = np.concatenate([outer[: place + 1], loop, outer[place:]])
    return outer


def _straight(outline: Outline) -> Outline:
    """Without points in the middle of straight pieces."""
    steps = np.sign(np.roll(outline, -1, axis=0) - outline)
    moved = steps.any(axis=1)
    if not moved.any():
        return outline[:1]
    outline, steps = outline[moved], steps[moved]
    return outline[(steps != np.roll(steps, 1, axis=0)).any(axis=1)]

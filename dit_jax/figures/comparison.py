"""The paper's Figure 4: rows are expressions, columns the photo, each model, and the truth.

An answer with an IoU below one half is a failure (P@0.5 counts the others), in a red frame with its
corner cut off.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from dit_jax import viz
from dit_jax.eval.metrics import iou
from dit_jax.figures.answers import Column, Example
from dit_jax.viz import CAPTION, GAP, INK, PAPER, Sheet

FAILED = 0.5  # IoU
RED = (214, 39, 40)
FRAME, CORNER = 4, 26  # pixels


def save(asked: Sequence[Example], columns: Sequence[Column], path: Path, *, side: int) -> None:
    """Write a PNG with panels of `side` pixels."""
    names = ["photo", *(column.name for column in columns), "truth"]
    strips = [_heads(names, side=side)]
    for row, example in enumerate(asked):
        strips += _row(example, [column.masks[row] for column in columns], side=side)
    viz.save(_framed(np.concatenate(strips, axis=0)), path)


def width_of(models: int, *, side: int) -> int:
    """Pixels of a sheet with that many models."""
    return (models + 2) * side + (models + 3) * GAP


def height_of(rows: int, *, side: int) -> int:
    return GAP + CAPTION + rows * (CAPTION + side + GAP)


def _row(example: Example, masks: Sequence[np.ndarray], *, side: int) -> list[Sheet]:
    image = viz.fit(example.image, side=side)
    panels = [image]
    for mask in masks:
        panels.append(_answer(image, mask, example.truth, side=side))
    panels.append(viz.overlay(image, viz.fit_mask(example.truth, side=side), viz.TRUTH))
    line = _beside(panels, height=side)
    failures = sum(iou(mask, example.truth) < FAILED for mask in masks)
    said = f"{failures} of {len(masks)} fail" if failures else ""
    return [
        viz.caption(example.text, said, width=line.shape[1]),
        line,
        viz.blank(GAP, line.shape[1]),
    ]


def _answer(image: Sheet, mask: np.ndarray, truth: np.ndarray, *, side: int) -> Sheet:
    """One panel: the mask, its IoU, and where it fails the frame that says so."""
    panel = viz.overlay(image, viz.fit_mask(mask, side=side), viz.PREDICTED)
    value = iou(mask, truth)
    failed = value < FAILED
    _label(panel, f"IoU {100 * value:.1f}", RED if failed else INK)
    if failed:
        cv2.rectangle(panel, (0, 0), (side - 1, side - 1), RED, 2 * FRAME - 1)
        corner = np.array([[side - CORNER, 0], [side - 1, 0], [side - 1, CORNER]])
        cv2.fillPoly(panel, [corner], RED)
        middle, arm = (side - CORNER // 3, CORNER // 3), 4
        for sign in (-1, 1):
            start = (middle[0] - arm, middle[1] - sign * arm)
            end = (middle[0] + arm, middle[1] + sign * arm)
            cv2.line(panel, start, end, PAPER, 2, cv2.LINE_AA)
    return panel


def _label(panel: Sheet, text: str, paper: viz.Colour) -> None:
    """In the lower left corner, on a ground of its own."""
    strip = viz.caption(text, width=9 * len(text) + GAP, ink=PAPER, paper=paper, size=14)
    height, width = strip.shape[:2]
    side = panel.shape[0]
    panel[side - height - FRAME : side - FRAME, FRAME : FRAME + width] = strip[:, : side - FRAME]


def _heads(names: Sequence[str], *, side: int) -> Sheet:
    heads = [viz.caption(name, width=side, ink=PAPER, paper=INK) for name in names]
    return _beside(heads, height=CAPTION, ground=INK)


def _beside(panels: Sequence[Sheet], *, height: int, ground: viz.Colour = viz.BACKGROUND) -> Sheet:
    gap = viz.blank(height, GAP, ground)
    parts = [part for panel in panels for part in (gap, panel)]
    return np.concatenate([*parts[1:]], axis=1)


def _framed(sheet: Sheet) -> Sheet:
    """With a margin; below the last row there is one already."""
    framed = viz.blank(sheet.shape[0] + GAP, sheet.shape[1] + 2 * GAP)
    framed[GAP : GAP + sheet.shape[0], GAP : GAP + sheet.shape[1]] = sheet
    return framed

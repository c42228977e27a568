"""Several expressions on one picture, each in its colour, with a legend underneath."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from dit_jax import viz
from dit_jax.predict import Segmentation
from dit_jax.viz import CAPTION, GAP, PAPER, Sheet

SIDES = (640, 1280)  # pixels of the longer side: smaller pictures are enlarged
NARROWEST = 400  # pixels, so that a legend can be read


def save(image: UInt8[np.ndarray, "H W 3"], answers: Sequence[Segmentation], path: Path) -> None:
    """Write a PNG whose picture has at least and at most `SIDES` pixels."""
    longer = max(image.shape[:2])
    ratio = min(max(longer, SIDES[0]), SIDES[1]) / longer
    height, width = (max(1, round(side * ratio)) for side in image.shape[:2])
    how = cv2.INTER_AREA if ratio < 1 else cv2.INTER_CUBIC
    small = cv2.resize(image, (width, height), interpolation=how)
    colours = [viz.COLOURS[i % len(viz.COLOURS)] for i in range(len(answers))]
    masks = [_small(answer, small) for answer in answers]
    drawn = viz.overlays(small, masks, colours)
    if width < NARROWEST:
        drawn = cv2.copyMakeBorder(
            drawn, 0, 0, 0, NARROWEST - width, cv2.BORDER_CONSTANT, value=PAPER
        )
    lines = [_line(*pair, width=drawn.shape[1]) for pair in zip(answers, colours, strict=True)]
    viz.save(np.concatenate([drawn, *lines], axis=0), path)


def _small(answer: Segmentation, small: Sheet) -> np.ndarray:
    mask = cv2.resize(
        answer.mask.view(np.uint8), small.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT
    )
    return mask.astype(bool) & (not answer.nothing)


def _line(answer: Segmentation, colour: viz.Colour, *, width: int) -> Sheet:
    share = 0.0 if answer.nothing else 100 * float(answer.mask.mean())
    said = "nothing" if answer.nothing else f"{share:.1f} % of the picture"
    strip = viz.caption(answer.text or "what is pointed at", said, width=width - CAPTION)
    patch = viz.blank(CAPTION, CAPTION, PAPER)
    patch[GAP:-GAP, GAP:] = colour
    return np.concatenate([patch, strip], axis=1)

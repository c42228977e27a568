"""Predictions as a picture to look at: photo | truth | prediction, with the words and the IoU."""

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

from dit_jax.eval.evaluate import Sample

PANEL, CAPTION, GAP = 192, 24, 6  # pixels
TRUTH, PREDICTED = (40, 190, 90), (255, 120, 20)
INK, PAPER = (25, 25, 25), (255, 255, 255)

Picture = UInt8[np.ndarray, "h w 3"]


def save_grid(samples: Sequence[Sample], path: Path, *, columns: int = 2) -> None:
    """Write a PNG of all samples, `columns` of them a row."""
    cards = [card(sample) for sample in samples]
    height, width = cards[0].shape[:2]
    rows = -(-len(cards) // columns)
    shape = (GAP + CAPTION + rows * (height + GAP), GAP + columns * (width + GAP), 3)
    sheet = np.full(shape, 225, np.uint8)
    for j in range(columns):
        left = GAP + j * (width + GAP)
        sheet[GAP : GAP + CAPTION, left : left + width] = _header(width)
    for i, picture in enumerate(cards):
        top = GAP + CAPTION + (i // columns) * (height + GAP)
        left = GAP + (i % columns) * (width + GAP)
        sheet[top : top + height, left : left + width] = picture
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".tmp")
    Image.fromarray(sheet).save(unfinished, format="PNG")
    os.replace(unfinished, path)


def card(sample: Sample) -> Picture:
    """One sample: three panels under a caption."""
    image = _fit(sample.image, cv2.INTER_AREA)
    truth, predicted = (_mask(mask) for mask in (sample.truth, sample.predicted))
    panels = [image, overlay(image, truth, TRUTH), overlay(image, predicted, PREDICTED)]
    gap = np.full((PANEL, GAP // 2, 3), PAPER, np.uint8)
    strip = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)
    caption = _caption(sample.expression, f"IoU {100 * sample.iou:.1f}", strip.shape[1])
    return np.concatenate([caption, strip], axis=0)


def overlay(image: Picture, mask: Bool[np.ndarray, "h w"], colour: tuple[int, int, int]) -> Picture:
    """The mask tinted and outlined; the rest of the picture a little darker."""
    tint = np.where(mask[..., None], 0.45 * image + 0.55 * np.array(colour), 0.6 * image)
    canvas = np.ascontiguousarray(tint.astype(np.uint8))
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(canvas, outlines, -1, colour, 1)


def _mask(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "h w"]:
    return _fit(mask.astype(np.uint8), cv2.INTER_NEAREST).astype(bool)


def _fit(picture: np.ndarray, interpolation: int) -> np.ndarray:
    """Into a square panel, aspect kept, centred."""
    h, w = picture.shape[:2]
    ratio = PANEL / max(h, w)
    height, width = max(1, round(h * ratio)), max(1, round(w * ratio))
    panel = np.zeros((PANEL, PANEL, *picture.shape[2:]), np.uint8)
    top, left = (PANEL - height) // 2, (PANEL - width) // 2
    shrinking = ratio < 1 or interpolation == cv2.INTER_NEAREST
    how = interpolation if shrinking else cv2.INTER_LINEAR
    panel[top : top + height, left : left + width] = cv2.resize(
        picture, (width, height), interpolation=how
    )
    return panel


def _header(width: int) -> Picture:
    """What the three panels of a column are."""
    strip = Image.new("RGB", (width, CAPTION), INK)
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(size=15)
    for i, (name, colour) in enumerate(
        (("photo", PAPER), ("truth", TRUTH), ("prediction", PREDICTED))
    ):
        draw.text((GAP + i * (width // 3), 3), name, colour, font=font)
    return np.asarray(strip)


def _caption(text: str, score: str, width: int) -> Picture:
    """The expression on the left, cut where it would meet the score on the right."""
    strip = Image.new("RGB", (width, CAPTION), PAPER)
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(size=15)
    room = width - draw.textlength(score, font=font) - 4 * GAP
    while draw.textlength(text, font=font) > room:
        text = text[:-2] + "…"
    draw.text((GAP, 3), text, INK, font=font)
    draw.text((width - GAP, 3), score, INK, font=font, anchor="ra")
    return np.asarray(strip)

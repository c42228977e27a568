"""What is drawn: tinted masks, panels, captions, and the grid photo | truth | prediction of a run.

Knows no model; `dit_jax.figures` asks models and draws with this.
"""

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
INK, PAPER, BACKGROUND = (25, 25, 25), (255, 255, 255), (225, 225, 225)
# One an expression: apart in hue and lightness, so that people who confuse red and green tell them
# apart (Okabe and Ito 2008, its black left out and its yellow last).
COLOURS = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167)),
    *((213, 94, 0), (0, 114, 178), (240, 228, 66)),
)

Picture = UInt8[np.ndarray, "h w 3"]
Sheet = UInt8[np.ndarray, "_ _ 3"]  # of any size: what panels are put together to
Colour = tuple[int, int, int]


def save_grid(samples: Sequence[Sample], path: Path, *, columns: int = 2) -> None:
    """Write a PNG of all samples, `columns` of them a row."""
    cards = [card(sample) for sample in samples]
    height, width = cards[0].shape[:2]
    rows = -(-len(cards) // columns)
    sheet = blank(GAP + CAPTION + rows * (height + GAP), GAP + columns * (width + GAP))
    for j in range(columns):
        left = GAP + j * (width + GAP)
        sheet[GAP : GAP + CAPTION, left : left + width] = _header(width)
    for i, picture in enumerate(cards):
        top = GAP + CAPTION + (i // columns) * (height + GAP)
        left = GAP + (i % columns) * (width + GAP)
        sheet[top : top + height, left : left + width] = picture
    save(sheet, path)


def card(sample: Sample) -> Picture:
    """One sample: three panels under a caption."""
    image = fit(sample.image)
    truth, predicted = (fit_mask(mask) for mask in (sample.truth, sample.predicted))
    panels = [image, overlay(image, truth, TRUTH), overlay(image, predicted, PREDICTED)]
    gap = blank(PANEL, GAP // 2, PAPER)
    strip = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)
    over = caption(sample.expression, f"IoU {100 * sample.iou:.1f}", width=strip.shape[1])
    return np.concatenate([over, strip], axis=0)


def overlay(image: Picture, mask: Bool[np.ndarray, "h w"], colour: Colour) -> Picture:
    """The mask tinted and outlined; the rest of the picture a little darker."""
    return overlays(image, [mask], [colour])


def overlays(
    image: Picture, masks: Sequence[Bool[np.ndarray, "h w"]], colours: Sequence[Colour]
) -> Picture:
    """Several masks, each in its colour; where they overlap, the colours mix and all outlines stay.

    What no mask covers is a little darker.
    """
    tint = np.zeros(image.shape, np.float32)
    depth = np.zeros((*image.shape[:2], 1), np.float32)
    for mask, colour in zip(masks, colours, strict=True):
        tint += mask[..., None] * np.float32(colour)
        depth += mask[..., None]
    mixed = 0.45 * image + 0.55 * tint / np.maximum(depth, 1)
    canvas = np.ascontiguousarray(np.where(depth > 0, mixed, 0.6 * image).astype(np.uint8))
    for mask, colour in zip(masks, colours, strict=True):
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, outlines, -1, colour, 1)
    return canvas


def blank(height: int, width: int, colour: Colour = BACKGROUND) -> Picture:
    return np.full((height, width, 3), colour, np.uint8)


def fit(picture: np.ndarray, *, side: int = PANEL, interpolation: int = cv2.INTER_AREA):
    """Into a square panel, aspect kept, centred on black."""
    h, w = picture.shape[:2]
    ratio = side / max(h, w)
    height, width = max(1, round(h * ratio)), max(1, round(w * ratio))
    panel = np.zeros((side, side, *picture.shape[2:]), picture.dtype)
    top, left = (side - height) // 2, (side - width) // 2
    shrinking = ratio < 1 or interpolation == cv2.INTER_NEAREST
    how = interpolation if shrinking else cv2.INTER_LINEAR
    panel[top : top + height, left : left + width] = cv2.resize(
        picture, (width, height), interpolation=how
    )
    return panel


def fit_mask(mask: Bool[np.ndarray, "H W"], *, side: int = PANEL) -> Bool[np.ndarray, "h w"]:
    return fit(mask.astype(np.uint8), side=side, interpolation=cv2.INTER_NEAREST).astype(bool)


def caption(
    text: str,
    right: str = "",
    *,
    width: int,
    ink: Colour = INK,
    paper: Colour = PAPER,
    size: int = 15,
) -> Picture:
    """A strip with a text on the left, cut where it would meet the one on the right."""
    strip = Image.new("RGB", (width, CAPTION), paper)
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(size=size)
    room = width - draw.textlength(right, font=font) - (4 if right else 2) * GAP
    draw.text((GAP, 3), shortened(text, draw, font, room=room), ink, font=font)
    draw.text((width - GAP, 3), right, ink, font=font, anchor="ra")
    return np.asarray(strip)


def shortened(text: str, draw: ImageDraw.ImageDraw, font, *, room: float) -> str:
    """The text on one line, with "…" for what does not fit into `room` pixels."""
    text = " ".join(text.split())
    while len(text) > 1 and draw.textlength(text, font=font) > room:
        text = text[:-2] + "…"
    return text


def save(sheet: Picture, path: Path) -> None:
    """Write a PNG, whole or not at all; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".tmp")
    Image.fromarray(sheet).save(unfinished, format="PNG")
    os.replace(unfinished, path)


def _header(width: int) -> Picture:
    """What the three panels of a column are."""
    strip = Image.new("RGB", (width, CAPTION), INK)
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(size=15)
    for i, (name, colour) in enumerate(
        (("photo", PAPER), ("truth", TRUTH), ("prediction", PREDICTED))
    ):
        draw.text((GAP + i * (width // 3), 3), name, colour, font=font)
    return np.asarray(strip)

"""Word maps of one expression: a column a word, a row a layer, and on top what deleting it does.

Every cell of a row has the same scale, whose top is the row's largest attention to a word; the
number in it is the attention to the word, mean over the mask's pixels.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from dit_jax import viz
from dit_jax.predict.explain import Explanation, Word
from dit_jax.viz import CAPTION, GAP, INK, PAPER, Picture, Sheet

MASK = "mask"
DELETED = (213, 94, 0)


def save(
    image: UInt8[np.ndarray, "H W 3"],
    explanation: Explanation,
    path: Path,
    *,
    side: int = 128,
    rows: int = 6,
) -> None:
    """Write a PNG with cells of `side` pixels, and at most `rows` layers, evenly spread."""
    photo = viz.fit(image, side=side)
    texts = [word.text for word in explanation.words]
    lines = [
        _beside([_head("", side)] + [_head(text, side) for text in texts], height=CAPTION),
        _without(photo, explanation, side=side),
    ]
    count = len(explanation.layers)
    for layer in sorted({round(i) for i in np.linspace(0, count - 1, min(rows, count))}):
        lines.append(_layer(photo, explanation, layer, side=side))
    width = lines[0].shape[1]
    said = explanation.answer.text
    sheet = [viz.caption(said, width=width), *lines]
    if explanation.remark:
        sheet.append(viz.caption(explanation.remark, width=width, size=12))
    viz.save(np.concatenate(sheet, axis=0), path)


def size_of(words: int, layers: int, *, side: int, remark: bool = False) -> tuple[int, int]:
    """Width and height of a sheet in pixels."""
    width = (words + 1) * side + (words + 2) * GAP
    height = 2 * CAPTION + (layers + 1) * (side + GAP)
    return width, height + (CAPTION if remark else 0)


def heated(picture: Picture, heat: Float32[np.ndarray, "h w"]) -> Picture:
    """The picture in grey under its heat, from 0 to 1."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None]
    levels = (255 * np.clip(heat, 0, 1)).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    return (0.3 * grey + 0.7 * colours).astype(np.uint8)


def _without(photo: Sheet, explanation: Explanation, *, side: int) -> Sheet:
    """The mask of all words, then the one without each."""
    whole = viz.overlay(photo, viz.fit_mask(explanation.answer.mask, side=side), viz.PREDICTED)
    cells = [_said(whole, MASK)]
    cells += [_deleted(photo, word, side=side) for word in explanation.words]
    return _under(_beside(cells, height=side))


def _deleted(photo: Sheet, word: Word, *, side: int) -> Sheet:
    if word.without is None:
        return _said(photo // 3, "no word left")
    mask = viz.fit_mask(word.without.mask, side=side)
    return _said(viz.overlay(photo, mask, DELETED), f"without: IoU {100 * word.iou:.0f}")


def _layer(photo: Sheet, explanation: Explanation, layer: int, *, side: int) -> Sheet:
    height, width = explanation.answer.height, explanation.answer.width
    ratio = side / max(height, width)
    size = dict(height=max(1, round(height * ratio)), width=max(1, round(width * ratio)))
    top = max(float(explanation.maps[layer].max()), 1e-9)
    name = viz.blank(side, side, PAPER)
    for line, text in enumerate((explanation.layers[layer], f"top {100 * top:.1f} %")):
        start = side // 2 + (line - 1) * CAPTION
        name[start : start + CAPTION] = viz.caption(text, width=side, size=13)
    cells = [name]
    for number in range(len(explanation.words)):
        heat = viz.fit(explanation.heat(layer, number, **size) / top, side=side)
        share = 100 * float(explanation.shares[layer, number])
        cells.append(_said(heated(photo, heat), f"{share:.1f} %"))
    return _under(_beside(cells, height=side))


def _said(cell: Sheet, text: str) -> Sheet:
    """A cell with a line at its foot."""
    side = cell.shape[1]
    strip = viz.caption(
        text, width=min(side, 8 * len(text) + 2 * GAP), ink=PAPER, paper=INK, size=12
    )
    cell = cell.copy()
    cell[-strip.shape[0] :, : strip.shape[1]] = strip
    return cell


def _head(text: str, side: int) -> Sheet:
    return viz.caption(text, width=side, ink=PAPER, paper=INK)


def _beside(cells: Sequence[Sheet], *, height: int) -> Sheet:
    gap = viz.blank(height, GAP)
    return np.concatenate([gap, *(part for cell in cells for part in (cell, gap))], axis=1)


def _under(line: Sheet) -> Sheet:
    return np.concatenate([line, viz.blank(GAP, line.shape[1])], axis=0)

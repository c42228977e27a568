"""What is wrong with the mask and the boxes of one entry."""

from collections.abc import Iterator

from pycocotools import mask as rle

from dit_jax.data.check.report import Problem
from dit_jax.data.entries import Box, Entry
from dit_jax.data.pixels import MARGIN, Size, broken_parts, in_pixels, read_entry
from dit_jax.strict import counted

AGREEMENT = 0.5  # IoU of the claimed boxes' hull and the mask's box


def mask_problems(entry: Entry, size: Size | None) -> Iterator[Problem]:
    """All of them; of masks that depend on the size of the picture, where that is known."""
    for text in broken_parts(entry):
        yield Problem("polygon parts that are left out", False, entry.name, text)
    if crowds := sum(entry.crowds):
        objects = counted(len(entry.crowds), "object")
        text = f"COCO marks {crowds} of its {objects} as iscrowd; they count."
        yield Problem("masks of crowds", False, entry.name, text)
    if size is not None:
        entry = in_pixels(entry, height=size[0], width=size[1])
        yield from _boxes(entry, size)
        yield from _polygons(entry, size)
        yield from _mask(entry, size)


def _boxes(entry: Entry, size: Size) -> Iterator[Problem]:
    height, width = size
    for box in entry.boxes:
        x, y, w, h = box
        inside = min(x, y) >= -MARGIN and x + w <= width + MARGIN and y + h <= height + MARGIN
        if not inside or min(w, h) <= 0:
            text = f"the box {_shown(box)} leaves a picture of {height}x{width} (height x width)."
            yield Problem("boxes off their picture", False, entry.name, text)


def _polygons(entry: Entry, size: Size) -> Iterator[Problem]:
    """Polygons that leave the picture, whose rest is cut off."""
    height, width = size
    for parts in entry.segmentations or ():
        numbers = [part for part in parts if isinstance(part, list)] if type(parts) is list else []
        xs = [x for part in numbers for x in part[::2] if isinstance(x, int | float)]
        ys = [y for part in numbers for y in part[1::2] if isinstance(y, int | float)]
        if not xs or not ys:
            continue
        left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
        if min(left, top) < -MARGIN or right > width + MARGIN or bottom > height + MARGIN:
            text = (
                f"the polygon reaches from ({left:g}, {top:g}) to ({right:g}, {bottom:g}), beyond a"
                f" picture of {height}x{width} (height x width); the rest is cut off."
            )
            yield Problem("polygons off their picture", False, entry.name, text)


def _mask(entry: Entry, size: Size) -> Iterator[Problem]:
    if not entry.segmentations:
        return
    height, width = size
    try:
        counts, remarks = read_entry(entry, height=height, width=width)
    except ValueError as error:
        yield Problem("masks that cannot be used", True, entry.name, str(error))
        return
    for remark in remarks:
        yield Problem("masks that are not evident", False, entry.name, remark)
    mask = {"size": [height, width], "counts": counts}
    if rle.area(mask) == height * width:
        text = "every pixel of the picture belongs to it."
        yield Problem("masks of whole pictures", False, entry.name, text)
    if entry.boxes:
        claimed, real = _hull(entry.boxes), tuple(float(side) for side in rle.toBbox(mask))
        if _iou(claimed, real) < AGREEMENT:
            text = f"the boxes span {_shown(claimed)}, the mask {_shown(real)}."
            yield Problem("masks elsewhere than their boxes", False, entry.name, text)


def _hull(boxes: tuple[Box, ...]) -> Box:
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(x + w for x, _, w, _ in boxes), max(y + h for _, y, _, h in boxes)
    return left, top, right - left, bottom - top


def _iou(a: Box, b: Box) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(width, 0.0) * max(height, 0.0)
    return both / max(a[2] * a[3] + b[2] * b[3] - both, 1e-9)


def _shown(box: Box) -> str:
    return "x {:g}, y {:g}, width {:g}, height {:g}".format(*box)

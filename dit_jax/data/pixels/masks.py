"""From what annotation files say about an entry's objects to one mask, as COCO's run lengths.

An object is given by polygons, run lengths, a mask picture or a box (`entries.Segmentation`). The
mask of an entry is their union: parts that overlap are merged, never summed.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw
from pycocotools import mask as rle

from dit_jax.data.entries import Box, Entry, Filled, MaskFile, NamedBox, Segmentation
from dit_jax.data.pixels.mask_pictures import read_mask
from dit_jax.data.pixels.run_lengths import decode, runs

FARTHEST = 100_000  # pixels; pycocotools walks along every edge, so time and memory grow with it
MARGIN = 1.0  # pixels that a box may reach beyond its picture: COCO's are rounded
NEARLY = 0.01  # that a fraction may be below 0 or above 1
RunLengths = dict[str, Any]  # {"size": [height, width], "counts": compressed}


def entry_mask(entry: Entry, *, height: int, width: int) -> bytes:
    """The union of all objects of an entry, as compressed run lengths of a height x width picture.

    Empty exactly where the entry names no object. Raises ValueError, one sentence that does not
    repeat the entry's name, where a mask is unknown, cannot be read, has another size than the
    picture, or has no pixel. Polygon parts that are `broken_parts` are left out.
    """
    return read_entry(entry, height=height, width=width)[0]


def read_entry(entry: Entry, *, height: int, width: int) -> tuple[bytes, tuple[str, ...]]:
    """`entry_mask`, and a sentence for each thing about it that was not evident."""
    if entry.segmentations is None:
        raise ValueError("its mask is unknown, because the file that says it is missing.")
    if not entry.segmentations:
        return _from_runs([height * width], height=height, width=width)["counts"], ()
    objects, remarks = [], []
    entry = in_pixels(entry, height=height, width=width)
    for number, segmentation in enumerate(entry.segmentations, start=1):
        which = f"object {number} of {len(entry.segmentations)}: "
        try:
            mask, said = _object_mask(segmentation, height=height, width=width)
        except ValueError as error:
            raise ValueError(f"{which}{error}") from error
        objects.append(mask)
        remarks += [which + one for one in said]
    union = rle.merge(objects)
    if not rle.area(union):
        raise ValueError(f"the mask is empty, but {len(objects)} object(s) are named.")
    return union["counts"], tuple(remarks)


def drawn(segmentation: Segmentation, *, height: int, width: int) -> Bool[np.ndarray, "H W"]:
    """What one object of a height x width picture covers; ValueError as of `entry_mask`."""
    mask, _ = _object_mask(segmentation, height=height, width=width)
    return decode(mask["counts"], height=height, width=width)


def in_pixels(entry: Entry, *, height: int, width: int) -> Entry:
    """An entry whose polygons and boxes count pixels of a height x width picture."""
    if entry.units == "pixel" or entry.segmentations is None:
        return entry

    def scaled(numbers: Sequence[Any]) -> list[Any]:
        return [n * (height if i % 2 else width) for i, n in enumerate(numbers)]

    def moved(segmentation: Segmentation) -> Segmentation:
        if isinstance(segmentation, list):
            return type(segmentation)(scaled(part) for part in segmentation)
        is_box = isinstance(segmentation, tuple)
        return type(segmentation)(scaled(segmentation)) if is_box else segmentation

    return dataclasses.replace(
        entry,
        segmentations=tuple(map(moved, entry.segmentations)),
        boxes=tuple(map(moved, entry.boxes)),
        units="pixel",
    )


def broken_parts(entry: Entry) -> list[str]:
    """What is wrong with the polygon parts that `entry_mask` leaves out, one sentence each."""
    return [
        f"object {number} of {len(entry.segmentations)}: {problem}"
        for number, segmentation in enumerate(entry.segmentations or (), start=1)
        if isinstance(segmentation, list)
        for problem in _split(segmentation)[1]
    ]


def _object_mask(
    segmentation: Segmentation, *, height: int, width: int
) -> tuple[RunLengths, Sequence[str]]:
    """A mask and remarks on it."""
    match segmentation:
        case MaskFile():
            return _from_file(segmentation, height=height, width=width)
        case dict():
            return _from_coco(segmentation, height=height, width=width), ()
        case list():
            return _from_polygons(segmentation, height=height, width=width)
        case tuple():
            return _from_box(segmentation, height=height, width=width), ()
    raise ValueError(
        f"a mask is given as {type(segmentation).__name__}; expected polygons, run lengths, a mask"
        " picture or a box."
    )


def _from_polygons(
    parts: list[Any], *, height: int, width: int
) -> tuple[RunLengths, Sequence[str]]:
    sound, broken = _split(parts)
    if not sound:
        reason = f"; {broken[0]}" if broken else "."
        raise ValueError(
            f"the mask is empty: none of its {len(parts)} polygon parts is left{reason}"
        )
    _check_pixels([number for part in sound for number in part], "the polygon")
    if isinstance(parts, Filled):
        return _filled(sound, height=height, width=width), ()
    drawn = rle.frPyObjects(sound, height, width)
    return rle.merge(drawn), list(_useless(drawn)) if len(drawn) > 1 else ()


def _filled(parts: list[list[float]], *, height: int, width: int) -> RunLengths:
    """`entries.Filled`; each part by itself, so that parts that overlap are merged."""
    mask = np.zeros((height, width), np.uint8, order="F")
    for part in parts:
        image = Image.new("L", (width, height))
        points = list(zip(part[::2], part[1::2], strict=True))
        ImageDraw.Draw(image).polygon(points, outline=1, fill=1)
        mask |= np.asarray(image)
    return rle.encode(mask)


def _useless(drawn: list[RunLengths]) -> Iterator[str]:
    """What is said of polygon parts that lie inside others: their union is meant, not a hole."""
    areas = rle.area(drawn).tolist()
    order = sorted(range(len(drawn)), key=lambda i: (areas[i], -i))
    for place, i in enumerate(order):
        for j in order[place + 1 :]:
            both = rle.area(rle.merge([drawn[i], drawn[j]], intersect=True))
            if areas[i] and both == areas[i]:
                yield (
                    f"polygon part {i + 1} of {len(drawn)} lies inside part {j + 1} and adds"
                    " nothing; is it a hole? A mask with holes needs run lengths or a mask picture."
                )
                break


def _check_pixels(numbers: Sequence[float], what: str) -> None:
    """Raise ValueError for what can only be fractions of the picture."""
    if min(numbers) >= -NEARLY and max(numbers) <= 1 + NEARLY:
        raise ValueError(
            f"{what} looks like fractions of the picture, because all its numbers are from 0 to 1;"
            " expected pixels, or units=fraction (--units, data.units)."
        )


def _split(parts: list[Any]) -> tuple[list[list[float]], list[str]]:
    """Polygon parts that can be drawn, and what is wrong with the others."""
    sound, broken = [], []
    for number, part in enumerate(parts, start=1):
        problem = _problem(part)
        if problem is None:
            sound.append([float(value) for value in part])
        else:
            broken.append(f"polygon part {number} of {len(parts)} {problem}.")
    return sound, broken


def _problem(part: Any) -> str | None:
    """Why a polygon part cannot be drawn; pycocotools would read one of 4 numbers as a box."""
    if not isinstance(part, list):
        return f"is a {type(part).__name__}, expected a list of numbers"
    if len(part) < 6 or len(part) % 2:
        return f"has {len(part)} numbers, expected an even number of at least 6"
    if not all(_is_number(value) and abs(value) <= FARTHEST for value in part):
        return f"has a coordinate that is no number within ±{FARTHEST}"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _from_coco(segmentation: dict[str, Any], *, height: int, width: int) -> RunLengths:
    """COCO's run lengths, compressed or not."""
    if missing := {"size", "counts"} - segmentation.keys():
        raise ValueError(f"run lengths without {' and '.join(sorted(missing))!r}.")
    size, counts = segmentation["size"], segmentation["counts"]
    if size not in ([height, width], (height, width)):
        said = "x".join(map(str, size)) if isinstance(size, list | tuple) else size
        raise ValueError(
            f"the mask is {said} (height x width) but the picture is {height}x{width}."
        )
    if not isinstance(counts, list | str | bytes):
        raise ValueError(
            f"run lengths are given as {type(counts).__name__}, expected list or text."
        )
    if not isinstance(counts, list):
        counts = runs(counts.encode() if isinstance(counts, str) else counts).tolist()
    return _from_runs(counts, height=height, width=width)


def _from_runs(counts: list[Any], *, height: int, width: int) -> RunLengths:
    """pycocotools reads past the end where run lengths do not fill the picture: checked first."""
    sound = all(isinstance(run, int) and run >= 0 for run in counts)
    if not sound or sum(counts) != height * width:
        raise ValueError(
            f"the run lengths do not add up to the {height * width} pixels of a {height}x{width}"
            " (height x width) picture."
        )
    return rle.frPyObjects({"size": [height, width], "counts": counts}, height, width)


def _from_file(file: MaskFile, *, height: int, width: int) -> tuple[RunLengths, Sequence[str]]:
    found = read_mask(file)
    if found.mask.shape != (height, width):
        raise ValueError(
            f"the mask picture {file.path} is {found.mask.shape[0]}x{found.mask.shape[1]} (height x"
            f" width) but the picture is {height}x{width}."
        )
    remarks = [f"the mask picture {file.path.name} {remark}" for remark in found.remarks]
    return rle.encode(np.asfortranarray(found.mask, np.uint8)), remarks


def _from_box(box: Box, *, height: int, width: int) -> RunLengths:
    """Every pixel whose centre lies in the box; what is off the picture is cut off."""
    if not all(map(_is_number, box)) or min(box[2:]) <= 0:
        raise ValueError(f"the box {box} is not x, y, width, height with a size above 0.")
    _check_pixels(box, f"the box {_plain(box)}")
    if looks_like_corners(box, height=height, width=width):
        raise ValueError(
            f"the box {_plain(box)} leaves the picture as x, y, width, height, and not as corners;"
            " expected box_xyxy, or box_xywh."
        )
    x, y, box_width, box_height = box
    top, bottom = max(math.ceil(y - 0.5), 0), max(math.ceil(y + box_height - 0.5), 0)
    left, right = max(math.ceil(x - 0.5), 0), max(math.ceil(x + box_width - 0.5), 0)
    inside = np.zeros((height, width), np.uint8, order="F")
    inside[top:bottom, left:right] = 1
    if not inside.any():
        raise ValueError(f"the box {box} covers no pixel of a {height}x{width} picture.")
    return rle.encode(inside)


def looks_like_corners(box: Box, *, height: int, width: int) -> bool:
    """Whether x, y, width, height leave the picture, but would not as x0, y0, x1, y1."""
    a, b, c, d = box
    leaves = a + c > width + MARGIN or b + d > height + MARGIN
    fits = -MARGIN < a < c < width + MARGIN and -MARGIN < b < d < height + MARGIN
    return leaves and fits and not isinstance(box, NamedBox)


def _plain(box: Box) -> str:
    return "[" + ", ".join(f"{number:g}" for number in box) + "]"

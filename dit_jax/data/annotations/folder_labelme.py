"""Own folders: labelme's JSON, a file a picture.

    {"imagePath": "1.jpg", "imageHeight": 480, "imageWidth": 640,
     "shapes": [{"label": "the red cup", "points": [[x, y], …], "shape_type": "polygon"}]}

The folders `train`, `val` and `test…` are splits. What bears one label in a picture is meant by
it, together; where only masks are learned, each object is: shapes of one `group_id`, or a shape.
Outlines are filled as labelme fills them, edges included.
"""

import base64
import binascii
import io
import math
import posixpath
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image

from dit_jax.data.annotations import fields
from dit_jax.data.annotations.fields import ALL, SPLIT, Item
from dit_jax.data.annotations.strict_json import Mistake, Mistakes, content, document, shown
from dit_jax.data.entries import Filled, Reading, Segmentation

KEYS = (b'"shapes"', b'"imagePath"')
CIRCLE = 64  # corners


def find(folder: Path) -> dict[str, list[Path]]:
    """The files of each split, or all of the folder as `ALL`; {} where there are none.

    Raises ValueError where only some are in splits' folders.
    """
    named = [path for path in sorted(folder.iterdir()) if SPLIT.fullmatch(path.name)]
    splits = {at.name: found for at in named if (found := _files(at))}
    within = {file for files in splits.values() for file in files}
    others = _files(folder, but=within)
    if splits and others:
        raise ValueError(
            f"{others[0]} is in none of the splits' folders ({', '.join(splits)}); expected all of"
            " labelme's files there, or none."
        )
    return splits or ({ALL: others} if others else {})


def _files(folder: Path, *, but: Collection[Path] = ()) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.json")) if path not in but and is_one(path)]


def is_one(path: Path) -> bool:
    data = path.read_bytes()
    return all(key in data for key in KEYS)


def read(file: Path, *, folder: Path, mistakes: Mistakes, reading: Reading) -> tuple[Item, ...]:
    """The items of a file, without the shapes that go into `mistakes`."""
    objects: dict[Any, tuple[str, list[Segmentation]]] = {}
    picture, size, shapes = "", None, []
    with mistakes.at():
        values = fields.an_object(document(content(file)))
        picture = _picture(values.get("imagePath"), file, folder)
        sides = [values[key] for key in ("imageHeight", "imageWidth") if values.get(key)]
        named = zip(sides, ("imageHeight", "imageWidth"), strict=False)
        size = tuple(fields.pixels(n, key) for n, key in named) if len(sides) == 2 else None
        if not isinstance(shapes := values.get("shapes"), list):
            raise Mistake(f"'shapes' is {shown(shapes)}; expected a list.")
    for number, value in enumerate(shapes if picture else ()):
        with mistakes.at(f"shapes[{number}]"):
            shape = fields.an_object(value)
            label = fields.string(shape.get("label"), "label")
            key: Any = label
            if reading.captions == "optional":
                group = shape.get("group_id")
                key = number if group is None else (label, fields.identity(group, "group_id"))
            found = _shape(shape, size)
            objects.setdefault(key, (label, []))[1].append(found)
    return tuple(
        Item(
            name=f"{file.relative_to(folder).as_posix()} {label!r}",
            split=None,
            picture=picture,
            size=size,
            segmentations=tuple(several),
            boxes=(),
            expressions=(label,),
            ann_ids=(),
            units="pixel",
        )
        for label, several in objects.values()
    )


def _picture(value: Any, file: Path, folder: Path) -> str:
    """From the file's folder, whatever system wrote it."""
    name = PureWindowsPath(fields.string(value, "imagePath")).as_posix()
    beside = file.parent.relative_to(folder).as_posix()
    return fields.path(posixpath.normpath(posixpath.join(beside, name)), "imagePath", folder=folder)


def _shape(shape: dict[str, Any], size: tuple[int, int] | None) -> Segmentation:
    kind, points = shape.get("shape_type") or "polygon", shape.get("points")
    if kind not in SHAPES:
        raise Mistake(
            f"'shape_type' is {shown(kind)}, which has no inside; expected one of"
            f" {', '.join(SHAPES)}."
        )
    sound = isinstance(points, list) and all(
        isinstance(point, list) and len(point) == 2 and all(map(fields.is_number, point))
        for point in points
    )
    two = kind in ("rectangle", "circle", "mask")
    if not sound or (len(points) != 2 if two else len(points) < 3):
        count = "two points" if two else "three points or more"
        raise Mistake(f"'points' of a {kind} is {shown(points)}; expected {count} [x, y].")
    points = [[float(n) for n in point] for point in points]
    if kind == "mask":
        return _mask(points, shape.get("mask"), size)
    return Filled([[n for point in SHAPES[kind](points) for n in point]])


def _rectangle(points: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    (x0, y0), (x1, y1) = points
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _circle(points: Sequence[Sequence[float]]) -> Iterator[Sequence[float]]:
    (x, y), (on_x, on_y) = points
    radius = math.hypot(on_x - x, on_y - y)
    for i in range(CIRCLE):
        angle = 2 * math.pi * i / CIRCLE
        yield x + radius * math.cos(angle), y + radius * math.sin(angle)


SHAPES: dict[str, Callable] = {
    "polygon": list,
    "rectangle": _rectangle,
    "oriented_rectangle": list,
    "circle": _circle,
    "mask": list,
}


def _mask(
    corners: list[list[float]], data: Any, size: tuple[int, int] | None
) -> dict[str, list[int]]:
    """A PNG of the part from corner to corner, as run lengths of the picture."""
    if size is None:
        raise Mistake("a mask needs imageHeight and imageWidth.")
    (x0, y0), (x1, y1) = ((int(n) for n in point) for point in corners)
    part = y1 - y0 + 1, x1 - x0 + 1
    whole = np.zeros(size, bool)
    expected = f"a PNG of {part[0]}x{part[1]} (height x width) in base64, inside the picture"
    inside = 0 <= y0 <= y1 < size[0] and 0 <= x0 <= x1 < size[1]
    try:
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
            if not inside or image.size != part[::-1]:  # before it is decoded
                raise Mistake(f"'mask' is {image.height}x{image.width}; expected {expected}.")
            pixels = np.asarray(image.convert("L"))
    except (OSError, TypeError, binascii.Error) as error:
        raise Mistake(f"'mask' is {shown(data)}; expected {expected}.") from error
    whole[y0 : y1 + 1, x0 : x1 + 1] = pixels > 0
    down = whole.T.ravel()
    ends = np.flatnonzero(np.diff(down, prepend=False, append=~down[-1]))
    return {"size": list(size), "counts": np.diff(ends, prepend=0).tolist()}

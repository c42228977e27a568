"""Own folders: what polygons and boxes may be, in pixels or in fractions of the picture.

A key says what a box's four numbers are; whether the numbers fit a picture is known when it is
opened (`dit_jax.data.pixels`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from dit_jax.data.annotations import fields
from dit_jax.data.annotations.strict_json import Mistake, shown
from dit_jax.data.entries import Box, NamedBox

FARTHEST = 2.0  # fraction of the picture; some tools write a little beyond 1


def polygon(value: Any, key: str, *, units: str) -> list[list[float]]:
    """Parts [x0, y0, x1, y1, …], one or a list of them; `masks.broken_parts` counts numbers."""
    parts = value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
    for part in parts:
        if not isinstance(part, list) or not all(map(fields.is_number, part)) or parts == [[]]:
            raise Mistake(
                f"{key!r} is {shown(value)}; expected numbers [x0, y0, x1, y1, …] or a list of"
                " such lists."
            )
    if all(len(part) == 2 for part in parts):
        raise Mistake(
            f"{key!r} is a list of points; expected their numbers in one list, [x0, y0, x1, y1, …]."
        )
    found = [[float(number) for number in part] for part in parts]
    _check_units([number for part in found for number in part], value, key, units=units)
    return found


def box(value: Any, key: str, *, units: str) -> Box:
    """[x, y, width, height], however the numbers of `BOXES[key]` say it."""
    form = BOXES.get(key, BOXES["box_xywh"])
    sound = isinstance(value, list) and len(value) == 4 and all(map(fields.is_number, value))
    x, y, width, height = form.read(*map(float, value)) if sound else (0, 0, 0, 0)
    if min(width, height) <= 0:
        unit = "pixels" if units == "pixel" else "fractions of the picture"
        raise Mistake(f"{key!r} is {shown(value)}; expected {form.shape} in {unit}, {form.rule}.")
    _check_units(list(map(float, value)), value, key, units=units)
    if units == "fraction" and key not in BOXES:
        raise Mistake(
            f"{key!r} is {shown(value)}; of fractions expected {', '.join(BOXES)}, which say what"
            " the numbers are (YOLO's are cxcywh)."
        )
    return NamedBox((x, y, width, height)) if key in BOXES else (x, y, width, height)


class Form(NamedTuple):
    """A way to write a box."""

    shape: str
    rule: str
    read: Callable[..., tuple[float, ...]]  # four numbers to x, y, width, height


BOXES = {
    "box_xywh": Form(
        "[x, y, width, height]", "width and height above 0", lambda x, y, w, h: (x, y, w, h)
    ),
    "box_xyxy": Form(
        "corners [x0, y0, x1, y1]",
        "x0 below x1 and y0 below y1",
        lambda x0, y0, x1, y1: (x0, y0, x1 - x0, y1 - y0),
    ),
    "box_cxcywh": Form(
        "[centre x, centre y, width, height]",
        "width and height above 0",
        lambda x, y, w, h: (x - w / 2, y - h / 2, w, h),
    ),
}


def _check_units(numbers: list[float], value: Any, key: str, *, units: str) -> None:
    """Refuse pixels where fractions were announced; the other way round, see `pixels.masks`."""
    if units == "fraction" and numbers and max(map(abs, numbers)) > FARTHEST:
        raise Mistake(
            f"{key!r} is {shown(value)}; expected fractions of the picture, from 0 to 1, because"
            " units=fraction."
        )

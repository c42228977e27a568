"""Own folders: JSON lines, one referring example a line.

{"image": "images/1.jpg", "text": "the red cup", "mask": "masks/1.png"}
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from dit_jax.data.annotations import fields, geometry
from dit_jax.data.annotations.fields import Item
from dit_jax.data.annotations.strict_json import Mistake, Mistakes, content, parse, shown
from dit_jax.data.entries import Box, MaskFile, Reading, Segmentation

MEANT = ("mask", "polygon", "box", *geometry.BOXES)  # a line has exactly one of them
KEYS = ("image", "text", *MEANT, "label", "split", "id")


def read(file: Path, *, folder: Path, mistakes: Mistakes, reading: Reading) -> tuple[Item, ...]:
    """The items of a file, in its order, without the lines that go into `mistakes`."""
    lines = content(file).splitlines()
    first = next((line.strip() for line in lines if line.strip()), b"")
    if first.startswith(b"[") or first == b"{":
        raise ValueError(f"{file} is one JSON document; expected one object {{…}} in each line.")
    earlier, items = _Earlier(), []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            with mistakes.at(f"line {number}"):
                values = fields.an_object(parse(line))
                item = _item(values, number, file=file, folder=folder, reading=reading)
                earlier.check(values, number)
                items.append(item)
    return tuple(items)


def _item(
    values: dict[str, Any], number: int, *, file: Path, folder: Path, reading: Reading
) -> Item:
    fields.check_keys(values, known=KEYS)
    if reading.captions == "optional":
        values = {"text": fields.UNNAMED} | values
    for key in ("image", "text"):
        if key not in values:
            raise Mistake(
                f"{key!r} is missing; expected the keys image, text and {' or '.join(MEANT)}."
            )
    segmentation, claimed = _meant(values, folder=folder, units=reading.units)
    identity = f", id {fields.identity(values['id'], 'id')}" if "id" in values else ""
    return Item(
        name=f"{file.name} line {number}{identity}",
        split=fields.split(values["split"], file=file) if "split" in values else None,
        picture=fields.path(values["image"], "image", folder=folder),
        size=tuple(segmentation["size"]) if isinstance(segmentation, dict) else None,
        segmentations=() if segmentation is None else (segmentation,),
        boxes=claimed,
        expressions=fields.texts(values["text"], "text"),
        ann_ids=(),
    )


def _meant(
    values: dict[str, Any], *, folder: Path, units: str
) -> tuple[Segmentation | None, tuple[Box, ...]]:
    """The object of a line, None where nothing is meant, and the boxes that it claims."""
    key = fields.sole(values, MEANT, hint=' ("mask": null where nothing is meant)')
    value = values[key]
    if "label" in values and not (key == "mask" and isinstance(value, str)):
        raise Mistake("'label' is given; expected it beside the path of a mask picture only.")
    if key == "box" or key in geometry.BOXES:
        box = geometry.box(value, key, units=units)
        return box, (box,)
    if key == "polygon":
        return geometry.polygon(value, key, units=units), ()
    segmentation = None if value is None else fields.mask(value, key, folder=folder)
    if isinstance(segmentation, MaskFile) and "label" in values:
        label = fields.label(values["label"], "label")
        segmentation = dataclasses.replace(segmentation, label=label)
    return segmentation, ()


class _Earlier:
    """Refuses a line that is there twice, and an `id` that is."""

    def __init__(self) -> None:
        self.lines: dict[bytes, int] = {}
        self.ids: dict[int | str, int] = {}

    def check(self, values: dict[str, Any], number: int) -> None:
        identity = values.get("id")
        if identity is not None and (line := self.ids.setdefault(identity, number)) != number:
            raise Mistake(f"the id {shown(identity)} is that of line {line} already.")
        rest = {key: value for key, value in values.items() if key != "id"}
        digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).digest()
        if (line := self.lines.setdefault(digest, number)) != number:
            raise Mistake(f"says the same as line {line}; delete one of them.")

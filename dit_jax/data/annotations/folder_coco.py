"""Own folders: COCO's JSON (images, annotations) with captions on the annotations.

    {"images": [{"id": 1, "file_name": "1.jpg", "height": 480, "width": 640}],
     "annotations": [{"id": 7, "image_id": 1, "caption": "the red cup",
                      "segmentation": [[x0, y0, x1, y1, …]], "bbox": [x, y, width, height]}]}

Keys that are not needed here (category_id, area, …) are ignored, whatever their values are.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from dit_jax.data.annotations import fields, geometry
from dit_jax.data.annotations.fields import Item
from dit_jax.data.annotations.strict_json import Mistake, Mistakes, content, document, shown
from dit_jax.data.entries import Box, Reading, Segmentation

CAPTIONS = ("caption", "captions", "text")  # an annotation has one of them
# Where a file_name is looked for, best first.
PICTURES = ("images/{split}", "{split}", "images", "")
RUN_LENGTHS = ("size", "counts")
BOXES = ("bbox", *geometry.BOXES)


def read(file: Path, *, folder: Path, mistakes: Mistakes, reading: Reading) -> tuple[Item, ...]:
    """The items of a file, one an annotation, without those that go into `mistakes`."""
    images, annotations, categories = _document(file, mistakes)
    names = _names(categories) if reading.captions == "optional" else None
    pictures = _Pictures(file, folder, mistakes, annotations=annotations)
    for place, value in enumerate(images):
        with mistakes.at(f"images[{place}]"):
            pictures.add(value)
    items: dict[int | str, Item] = {}
    for place, value in enumerate(annotations):
        with mistakes.at(f"annotations[{place}]"):
            _annotation(
                value, items, pictures, mistakes, file=file, units=reading.units, names=names
            )
    if items and not any(item.expressions for item in items.values()):
        raise ValueError(
            f"{file}: none of {len(items)} annotations says which words mean it; expected the key"
            f" {', '.join(CAPTIONS[:-1])} or {CAPTIONS[-1]}."
        )
    return tuple(items.values())


def _document(file: Path, mistakes: Mistakes) -> tuple[list[Any], list[Any], Any]:
    """`images` and `annotations`, ValueError where these are no lists; and `categories`."""
    lists = []
    with mistakes.at():
        values = fields.an_object(document(content(file)))
        for key in ("images", "annotations"):
            if not isinstance(values.get(key), list):
                raise Mistake(f"no list {key!r}; expected COCO's lists images and annotations.")
            lists.append(values[key])
    mistakes.stop()
    return lists[0], lists[1], values.get("categories")


def _names(categories: Any) -> dict[str, str]:
    """What categories are called, by their ids, as far as the file says it."""
    rows = categories if isinstance(categories, list) else []
    named = [row for row in rows if isinstance(row, dict) and isinstance(row.get("name"), str)]
    return {_key(row.get("id")): row["name"] for row in named if row["name"].strip()}


class _Pictures:
    """What the items of a picture have in common, by its id: 1, 1.0 and "1" are one id.

    A mistake in a picture is one mistake, whatever annotations it has; in one that has none, it is
    a remark.
    """

    def __init__(self, file: Path, folder: Path, mistakes: Mistakes, *, annotations: list[Any]):
        self._file, self._folder, self._mistakes = file, folder, mistakes
        meant = (value.get("image_id") for value in annotations if isinstance(value, dict))
        self._count = Counter(map(_key, meant))
        self._found: dict[str, tuple[Any, dict[str, Any]]] = {}
        self._unusable: set[str] = set()

    def add(self, value: Any) -> None:
        """Read a picture; raises Mistake where annotations cannot do without it."""
        values = _complete(value, ("id",))
        identity = _identity(values["id"], "id")
        key, found = _key(identity), None
        earlier = self._found.get(key)
        try:
            found = identity, self._read(values)
            if earlier or key in self._unusable:
                raise Mistake(f"the id {shown(identity)} is that of another picture already.")
            self._found[key] = found
        except Mistake as mistake:
            if not (count := self._count[key]):
                self._mistakes.remark("pictures that no annotation mentions", str(mistake))
                return
            if earlier is None or found != earlier:  # nobody knows which one is meant
                self._unusable.add(key)
            raise Mistake(f"{mistake} ({count} annotations)") from mistake

    def of(self, value: Any) -> dict[str, Any] | None:
        """By an annotation's `image_id`; None where `add` has said already what is wrong."""
        key = _key(_identity(value, "image_id"))
        if key in self._unusable:
            return None
        if key not in self._found:
            raise Mistake(f"no picture has the id {shown(value)}.")
        identity, found = self._found[key]
        if type(identity) is not type(value):
            text = f"'image_id' is {shown(value)}; the picture of id {shown(identity)} is meant."
            self._mistakes.remark("numbers in another form", text)
        return found

    def _read(self, values: dict[str, Any]) -> dict[str, Any]:
        values = _complete(values, ("id", "file_name"))
        name = fields.path(values["file_name"], "file_name", folder=self._folder)
        split = self._file.stem
        places = [self._folder / place.format(split=split) / name for place in PICTURES]
        there = [place for place in dict.fromkeys(places) if place.is_file()]
        found = [fields.path(str(place), "file_name", folder=self._folder) for place in there]
        if len(found) > 1:
            text = f"{found[0]} is read, and not {' or '.join(found[1:])}."
            self._mistakes.remark("pictures of one name", text)
        name = found[0] if found else name
        sides = [self._pixels(values, key) for key in ("height", "width") if key in values]
        named = fields.split(values["split"], file=self._file) if "split" in values else None
        size = tuple(sides) if len(sides) == 2 else None
        return dict(split=named, picture=name, size=size)

    def _pixels(self, values: dict[str, Any], key: str) -> int:
        value, number = values[key], fields.pixels(fields.whole(values[key]), key)
        if type(value) is not int:
            text = f"{key!r} is {shown(value)}; read as {number}."
            self._mistakes.remark("numbers in another form", text)
        return number


def _annotation(
    value: Any,
    items: dict[int | str, Item],
    pictures: _Pictures,
    mistakes: Mistakes,
    *,
    file: Path,
    units: str,
    names: dict[str, str] | None,
) -> None:
    """`names`: of categories, which stand for captions that are missing; None where none may be."""
    values = _complete(value, ("id", "image_id"))
    identity = _identity(values["id"], "id")
    if identity in items:
        raise Mistake(f"the id {shown(identity)} is that of another annotation already.")
    if (picture := pictures.of(values["image_id"])) is None:
        return
    said = {key: values[key] for key in CAPTIONS if values.get(key) is not None}
    caption = fields.sole(said, CAPTIONS) if said else None
    expressions = fields.texts(values[caption], caption) if caption else ()
    if not expressions and names is not None:
        expressions = (names.get(_key(values.get("category_id")), fields.UNNAMED),)
    segmentation, claimed = _meant(values, mistakes, units=units)
    items[identity] = Item(
        name=f"{file.name} annotation {identity}",
        **picture,
        segmentations=() if segmentation is None else (segmentation,),
        boxes=claimed,
        expressions=expressions,
        ann_ids=(identity,) if isinstance(identity, int) else (),
        crowd=fields.whole(values.get("iscrowd")) in (1, True),
    )


def _meant(
    values: dict[str, Any], mistakes: Mistakes, *, units: str
) -> tuple[Segmentation | None, tuple[Box, ...]]:
    """The object of an annotation, None where nothing is meant, and the boxes that it claims.

    Detectors' annotations have a box and no segmentation, or an empty one: the box is meant. Beside
    a segmentation, a box is only compared with it.
    """
    shape, boxes = values.get("segmentation"), {k: values[k] for k in BOXES if values.get(k)}
    if isinstance(shape, list) and not any(part != [] for part in shape):
        shape = []
    key = fields.sole(boxes, BOXES) if boxes else None
    if shape:
        return _shape(shape, units=units), _claimed(key, boxes, mistakes, units=units)
    if key:
        box = geometry.box(boxes[key], key, units=units)
        return box, (box,)
    if "segmentation" in values and shape is None:
        return None, ()
    raise Mistake(
        "neither 'segmentation' nor 'bbox' is given; expected one of them"
        ' ("segmentation": null where nothing is meant).'
    )


def _shape(value: Any, *, units: str) -> Segmentation:
    if isinstance(value, dict):
        known = {key: value[key] for key in RUN_LENGTHS if key in fields.an_object(value)}
        return fields.run_lengths(known, "segmentation")
    return geometry.polygon(value, "segmentation", units=units)


def _claimed(
    key: str | None, boxes: dict[str, Any], mistakes: Mistakes, *, units: str
) -> tuple[Box, ...]:
    try:
        return (geometry.box(boxes[key], key, units=units),) if key else ()
    except Mistake as mistake:
        mistakes.remark("boxes that are left out", f"{mistake} The segmentation is meant.")
        return ()


def _identity(value: Any, key: str) -> int | str:
    """A number or a name; programs that count in fractions write 7.0 for 7."""
    return fields.identity(fields.whole(value) if isinstance(value, float) else value, key)


def _key(value: Any) -> str:
    return str(fields.whole(value))


def _complete(value: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    values = fields.an_object(value)
    for key in keys:
        if key not in values:
            raise Mistake(f"{key!r} is missing; expected the keys {' and '.join(keys)}.")
    return values

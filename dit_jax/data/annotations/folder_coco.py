"""Own folders: COCO's JSON (images, annotations) with captions on the annotations.

    {"images": [{"id": 1, "file_name": "1.jpg", "height": 480, "width": 640}],
     "annotations": [{"id": 7, "image_id": 1, "caption": "the red cup",
                      "segmentation": [[x0, y0, x1, y1, …]], "bbox": [x, y, width, height]}]}

Keys that are not needed here (category_id, area, iscrowd, …) are ignored.
"""

from pathlib import Path
from typing import Any

from dit_jax.data.annotations import fields
from dit_jax.data.annotations.fields import Item
from dit_jax.data.annotations.strict_json import Mistake, Mistakes, content, parse, shown
from dit_jax.data.entries import Box, Segmentation

CAPTIONS = ("caption", "captions", "text")  # an annotation has one of them
PICTURES = ("", "images", "{split}", "images/{split}")  # where a file_name is looked for


def read(file: Path, *, folder: Path) -> tuple[Item, ...]:
    """The items of a file, one an annotation; raises ValueError with the first mistakes of all."""
    mistakes = Mistakes(file)
    images, annotations = _document(file, mistakes)
    pictures: dict[int | str, dict[str, Any]] = {}
    for place, value in enumerate(images):
        with mistakes.at(f"images[{place}]"):
            _picture(value, pictures, file=file, folder=folder)
    items: dict[int | str, Item] = {}
    for place, value in enumerate(annotations):
        with mistakes.at(f"annotations[{place}]"):
            _annotation(value, items, pictures, file=file)
    mistakes.stop()
    if items and not any(item.expressions for item in items.values()):
        raise ValueError(
            f"{file}: none of {len(items)} annotations says which words mean it; expected the key"
            f" {', '.join(CAPTIONS[:-1])} or {CAPTIONS[-1]}."
        )
    return tuple(items.values())


def _document(file: Path, mistakes: Mistakes) -> tuple[list[Any], list[Any]]:
    """The lists `images` and `annotations`."""
    lists = []
    with mistakes.at():
        document = fields.an_object(parse(content(file)))
        for key in ("images", "annotations"):
            if not isinstance(document.get(key), list):
                raise Mistake(f"no list {key!r}; expected COCO's lists images and annotations.")
            lists.append(document[key])
    mistakes.stop()
    return lists[0], lists[1]


def _picture(
    value: Any, pictures: dict[int | str, dict[str, Any]], *, file: Path, folder: Path
) -> None:
    """Add what the items of a picture have in common."""
    values = _complete(value, ("id", "file_name"))
    identity = fields.identity(values["id"], "id")
    if identity in pictures:
        raise Mistake(f"the id {shown(identity)} is that of another picture already.")
    name = fields.path(values["file_name"], "file_name", folder=folder)
    places = [folder / place.format(split=file.stem) / name for place in PICTURES]
    found = next((place for place in places if place.is_file()), None)
    sides = [fields.pixels(values[key], key) for key in ("height", "width") if key in values]
    pictures[identity] = dict(
        split=fields.split(values["split"], file=file) if "split" in values else None,
        picture=fields.path(str(found), "file_name", folder=folder) if found else name,
        size=tuple(sides) if len(sides) == 2 else None,
    )


def _annotation(
    value: Any,
    items: dict[int | str, Item],
    pictures: dict[int | str, dict[str, Any]],
    *,
    file: Path,
) -> None:
    values = _complete(value, ("id", "image_id"))
    identity = fields.identity(values["id"], "id")
    if identity in items:
        raise Mistake(f"the id {shown(identity)} is that of another annotation already.")
    if (picture := fields.identity(values["image_id"], "image_id")) not in pictures:
        raise Mistake(f"no picture has the id {shown(picture)}.")
    said = any(key in values for key in CAPTIONS)
    caption = fields.sole(values, CAPTIONS) if said else None
    segmentation, claimed = _meant(values)
    items[identity] = Item(
        name=f"{file.name} annotation {identity}",
        **pictures[picture],
        segmentations=() if segmentation is None else (segmentation,),
        boxes=claimed,
        expressions=fields.texts(values[caption], caption) if caption else (),
        ann_ids=(identity,) if isinstance(identity, int) else (),
    )


def _meant(values: dict[str, Any]) -> tuple[Segmentation | None, tuple[Box, ...]]:
    """The object of an annotation, None where nothing is meant, and the boxes that it claims.

    Detectors' annotations have a box and no segmentation, or an empty one: the box is meant.
    """
    shape, box = values.get("segmentation"), values.get("bbox")
    claimed = (fields.box(box, "bbox"),) if box else ()
    if shape:
        read = fields.run_lengths if isinstance(shape, dict) else fields.polygon
        return read(shape, "segmentation"), claimed
    if claimed:
        return claimed[0], claimed
    if "segmentation" in values and shape is None:
        return None, ()
    raise Mistake(
        "neither 'segmentation' nor 'bbox' is given; expected one of them"
        ' ("segmentation": null where nothing is meant).'
    )


def _complete(value: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    values = fields.an_object(value)
    for key in keys:
        if key not in values:
            raise Mistake(f"{key!r} is missing; expected the keys {' and '.join(keys)}.")
    return values

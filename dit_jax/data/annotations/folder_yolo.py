"""Own folders: YOLO's, where `data.yaml` names classes and pictures, and each picture has a text.

    path: .                          # of the places below; else data.yaml's own folder
    train: images/train              # a folder, a list of them, or a .txt with a picture a line
    val: images/val
    names: {0: cup, 1: saucer}

`labels/train/1.txt` stands beside `images/train/1.jpg`, an object a line: its class and an outline
`x y x y …`, or a box `x y width height` around its center, in fractions of the picture. What is of
one class in a picture is meant by its name, together; where only masks are learned, each object is.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from dit_jax.data.annotations import fields, geometry
from dit_jax.data.annotations.fields import ALL, Item
from dit_jax.data.annotations.strict_json import Mistake, Mistakes, content, shown
from dit_jax.data.entries import ENDINGS, Filled, Reading, Segmentation

FILES = ("data.yaml", "data.yml", "dataset.yaml")
SPLITS = ("train", "val", "test")
LIST = ".txt"
LEAST = 6  # numbers of an outline


def find(folder: Path) -> Path | None:
    """The file that names the classes, where there is one."""
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def labels(file: Path) -> tuple[dict[str, dict[Path, Path]], dict[int, str]]:
    """Of each split the texts that are there, with their pictures; and what classes are called.

    One split alone, or the same pictures for each, is `ALL`. Raises ValueError where the file does
    not say it.
    """
    values = _values(file)
    names = values.get("names")
    named = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(named, dict) or not named or not all(map(str.isdigit, map(str, named))):
        raise ValueError(f"{file}: 'names' is no list of classes; expected names: [cup, saucer].")
    if "kpt_shape" in values:
        raise ValueError(f"{file} is of keypoints; expected outlines or boxes.")
    given = {split: values[split] for split in SPLITS if values.get(split)}
    if not given:
        raise ValueError(f"{file} names no pictures; expected the keys train and val.")
    top = file.parent / (values.get("path") or "")
    top = top if top.is_dir() else file.parent  # written on another machine
    found: dict[str, dict[Path, Path]] = {}
    for split, places in given.items():
        texts = {
            _label(picture): picture
            for place in (places if isinstance(places, list) else [places])
            for picture in _pictures(_place(str(place), top, file), top)
        }
        found[split] = {text: picture for text, picture in texts.items() if text.is_file()}
        if not found[split]:
            raise ValueError(
                f"{file}: of the pictures of {split!r} ({len(texts):,}) none has labels; expected"
                f" texts like {next(iter(texts), 'labels/1.txt')}."
            )
    if len(set(map(frozenset, found.values()))) == 1:
        found = {ALL: found.popitem()[1]}
    return found, {int(number): str(name) for number, name in named.items()}


def read(
    file: Path,
    *,
    picture: Path,
    names: dict[int, str],
    folder: Path,
    mistakes: Mistakes,
    reading: Reading,
) -> tuple[Item, ...]:
    """The items of a picture's text, without the lines that go into `mistakes`."""
    objects: dict[int, tuple[str, list[Segmentation]]] = {}
    for number, line in enumerate(content(file).splitlines(), start=1):
        if words := line.split():
            with mistakes.at(f"line {number}"):
                kind, found = _object(words, names)
                key = number if reading.captions == "optional" else kind
                objects.setdefault(key, (names[kind], []))[1].append(found)
    inside = fields.path(str(picture), "picture", folder=folder)
    where = fields.path(str(file), "labels", folder=folder)
    return tuple(
        Item(
            name=f"{where} {name!r}",
            split=None,
            picture=inside,
            size=None,
            segmentations=tuple(found),
            boxes=tuple(one for one in found if isinstance(one, tuple)),
            expressions=(name,),
            ann_ids=(),
            units="fraction",
        )
        for name, found in objects.values()
    )


def _values(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(content(file))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{file}: not readable as YAML ({' '.join(str(error).split())})."
        ) from error
    if not isinstance(values, dict):
        raise ValueError(f"{file} holds no keys; expected names, train and val.")
    return values


def _place(name: str, top: Path, file: Path) -> Path:
    """A folder or list of pictures; some tools count one folder too many."""
    near = (top / name, top / name.removeprefix("../"))
    found = next((place for place in near if place.exists()), None)
    if found is None:
        raise ValueError(f"{file}: there is no {top / name}; expected a folder of pictures.")
    return Path(os.path.normpath(found))


def _pictures(place: Path, top: Path) -> Iterator[Path]:
    """Of a list, or of a folder and those in it."""
    if place.suffix == LIST and place.is_file():
        lines = content(place).decode().splitlines()
        yield from (_listed(line.strip(), place, top) for line in lines if line.strip())
    else:
        yield from (path for path in sorted(place.rglob("*")) if path.suffix.lower() in ENDINGS)


def _listed(name: str, place: Path, top: Path) -> Path:
    """A list's picture: from the list's folder on, as Ultralytics reads `./`, or from the top."""
    starts = dict.fromkeys((place.parent, top))
    near = [Path(os.path.normpath(start / name)) for start in starts]
    # One that has labels is an example whose picture is missing, which the checks say.
    found = next((path for path in near if path.is_file() or _label(path).is_file()), None)
    if found is None:
        raise ValueError(
            f"{place}: there is no picture {name}; expected paths with / from"
            f" {' or '.join(map(str, starts))} on."
        )
    return found


def _label(picture: Path) -> Path:
    """As Ultralytics has it: the last folder `images` becomes `labels`."""
    parts = list(picture.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(LIST)


def _object(words: list[bytes], names: dict[int, str]) -> tuple[int, Segmentation]:
    said = b" ".join(words).decode(errors="replace")
    try:
        kind, numbers = int(words[0]), [float(word) for word in words[1:]]
    except ValueError as error:
        raise Mistake(f"{shown(said)} are no numbers; expected a class and an outline.") from error
    if kind not in names:
        raise Mistake(f"there is no class {kind}; expected one of {', '.join(map(str, names))}.")
    if len(numbers) == 4:
        return kind, geometry.box(numbers, "box_cxcywh", units="fraction")
    if len(numbers) < LEAST or len(numbers) % 2:
        raise Mistake(
            f"{shown(said)} has {len(numbers)} numbers behind its class; expected 4 of a box, or"
            f" pairs of an outline, {LEAST} numbers or more."
        )
    return kind, Filled(geometry.polygon(numbers, "outline", units="fraction"))

"""What REFER folders and gRefCOCO have in common: COCO's instances.json and COCO's pictures.

The files of expressions name pictures and objects by COCO's numbers; instances.json says how large
a picture is, what its file is called, and where its objects are.
"""

import dataclasses
import json
import os
import re
import reprlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any

from dit_jax.data.annotations.fields import whole
from dit_jax.data.annotations.strict_json import UNREADABLE
from dit_jax.data.entries import Annotations, Box, Entry, Note, Reading, Segmentation

# Where a REFER folder may keep train2014, best first.
IMAGE_PLACES = (
    *("images/train2014", "images/mscoco/images/train2014", "train2014"),
    *("images/train2014.zip", "train2014.zip", "images"),
)
SHOWN = 3  # mistakes that an error message spells out
SPLIT = re.compile(r"\w+")  # becomes part of file names
# REFER appends a number to the pictures' names: COCO_train2014_000000581857_16.jpg.
SUFFIX = re.compile(r"(?<=_\d{12})_\d+(?=\.\w+$)")


@dataclass(frozen=True, kw_only=True)
class Ref:
    """What a record of refs(…).p or grefs(…).json says."""

    name: str
    split: str
    image_id: int
    file_name: str  # as REFER writes it
    ann_ids: tuple[int, ...]  # () where nothing is meant
    expressions: tuple[str, ...]
    ref_id: int
    sent_ids: tuple[int, ...]


@dataclass(frozen=True)
class Picture:
    file_name: str
    height: int
    width: int


@dataclass(frozen=True)
class Object:
    image_id: int
    segmentation: Segmentation
    boxes: tuple[Box, ...]  # one, or none where instances.json claims none
    crowd: bool


def find_images(source: Path, images: str | os.PathLike[str] | None) -> Path:
    """The folder or zip file of pictures: `images`, or the first of the usual places in `source`
    that exists (the first of all where none does)."""
    if images:
        if not Path(images).exists():
            raise ValueError(
                f"{images} is missing; expected a folder or zip file of COCO's train2014 pictures."
            )
        return Path(images)
    places = [source / place for place in IMAGE_PLACES]
    return next((place for place in places if place.exists()), places[0])


class Notes:
    """What is odd, and what is wrong: that stops the reading, or with `skip` is collected."""

    def __init__(self, *, skip: bool):
        self._skip = skip
        self.left_out: list[Note] = []
        self.remarks: list[Note] = []

    def wrong(self, found: list[Note], what: str) -> None:
        """Raises ValueError with the first mistakes, where there are any and none is to be left
        out."""
        self.left_out += found
        if found and not self._skip:
            rest = [f"and {len(found) - SHOWN} more."] if len(found) > SHOWN else []
            said = [f"{note.name}: {note.text}" for note in found[:SHOWN]]
            raise ValueError("\n  ".join([f"wrong {what} ({len(found)}):", *said, *rest]))


def parse(
    records: Any,
    *,
    file: Path,
    dataset: str,
    targets: Callable[[dict[str, Any]], tuple[int, ...]],
    notes: Notes,
) -> list[Ref]:
    """The records of a file of expressions, without the malformed ones, which go into `notes`, and
    without those that hold no sentence: gRefCOCO's published file has some.

    Args:
      targets: which annotations a record means; raises ValueError where it does not say.
    """
    if not isinstance(records, list) or not records:
        raise ValueError(f"{file} holds no list of referents; expected REFER's list of records.")
    refs, mistakes = [], []
    for place, record in enumerate(records):
        try:
            refs.append(_ref(record, dataset=dataset, targets=targets))
        except ValueError as error:
            mistakes.append(Note(UNREADABLE, f"record {place}", str(error)))
    notes.wrong(mistakes, f"records of {file}")
    said = [ref for ref in refs if any(map(str.strip, ref.expressions))]
    silent = [ref.name for ref in refs if not any(map(str.strip, ref.expressions))]
    text = "nothing is said of it, so it is left out."
    notes.remarks += [Note("referents without a sentence", name, text) for name in silent]
    return said


def _ref(record: Any, *, dataset: str, targets: Callable[..., tuple[int, ...]]) -> Ref:
    sentences = field(record, "sentences", list)
    split, ref_id = field(record, "split", str), field(record, "ref_id", int)
    if not SPLIT.fullmatch(split):
        raise ValueError(f"'split' is {_shown(split)}, expected letters, digits and _.")
    return Ref(
        name=f"{dataset} {split} ref_id {ref_id}",
        split=split,
        image_id=field(record, "image_id", int),
        file_name=_file_name(record),
        ann_ids=targets(record),
        expressions=tuple(field(sentence, "sent", str) for sentence in sentences),
        ref_id=ref_id,
        sent_ids=tuple(field(sentence, "sent_id", int) for sentence in sentences),
    )


def field(record: Any, key: str, kind: type | UnionType) -> Any:
    """A value of a record; ValueError where it is missing or of another type."""
    if not isinstance(record, dict):
        raise ValueError(f"{_shown(record)}, expected a dict with {key!r}.")
    if key not in record:
        raise ValueError(f"no {key!r} among {', '.join(map(str, record))[:200]}.")
    if not isinstance(record[key], kind) or isinstance(record[key], bool):
        expected = getattr(kind, "__name__", kind)
        raise ValueError(f"{key!r} is {_shown(record[key])}, expected {expected}.")
    return record[key]


def annotations(
    dataset: str,
    refs: Sequence[Ref],
    *,
    files: dict[str, Path],
    images: Path,
    notes: Notes,
    reading: Reading,
) -> Annotations:
    """Expressions joined with what instances.json says; masks are unknown where it is missing.

    Pictures and objects that it lacks or describes wrongly go into `notes`.
    """
    if files["instances"].is_file():
        joined = _join(refs, files["instances"], notes, drop=reading.crowds == "drop")
    else:
        joined = map(_without_instances, refs)
    splits: dict[str, list[Entry]] = {}
    for entry in joined:
        splits.setdefault(entry.split, []).append(entry)
    return Annotations(
        dataset=dataset,
        splits={split: tuple(entries) for split, entries in splits.items()},
        sources={key: file for key, file in files.items() if file.is_file()},
        images=images,
        reading=reading,
        remarks=tuple(notes.remarks),
        left_out=tuple(notes.left_out),
    )


def _without_instances(ref: Ref) -> Entry:
    segmentations = None if ref.ann_ids else ()
    name = SUFFIX.sub("", ref.file_name)
    return _entry(ref, file_name=name, size=None, segmentations=segmentations, boxes=())


def _join(refs: Sequence[Ref], path: Path, notes: Notes, *, drop: bool) -> list[Entry]:
    pictures, objects = _instances(path, refs, notes)
    entries, mistakes = [], []
    for ref in refs:
        found = [Note(UNREADABLE, ref.name, text) for text in _mistakes(ref, pictures, objects)]
        mistakes += found
        if found:
            continue
        meant = {number: objects[number] for number in ref.ann_ids}
        kept = {number: thing for number, thing in meant.items() if not (drop and thing.crowd)}
        if len(kept) < len(meant):
            notes.remarks.append(without_crowds(ref.name, kept=len(kept), count=len(meant)))
        if kept or not meant:
            entries.append(_joined(ref, pictures[ref.image_id], kept))
    notes.wrong(mistakes, f"references to {path}")
    return entries


def without_crowds(name: str, *, kept: int, count: int) -> Note:
    """The remark on a referent of `count` objects that keeps those that are no crowds."""
    text = f"{count - kept} of its {count} objects; the rest is meant."
    if not kept:
        text = "nothing else is meant, so the referent is left out."
    return Note("crowds that are left out", name, text)


def _joined(ref: Ref, picture: Picture, meant: dict[int, Object]) -> Entry:
    crowds = tuple(thing.crowd for thing in meant.values())
    return _entry(
        dataclasses.replace(ref, ann_ids=tuple(meant)),
        file_name=picture.file_name,
        size=(picture.height, picture.width),
        segmentations=tuple(thing.segmentation for thing in meant.values()),
        boxes=tuple(box for thing in meant.values() for box in thing.boxes),
        crowds=crowds if any(crowds) else (),
    )


def _entry(ref: Ref, **found: Any) -> Entry:
    kept = ("name", "split", "image_id", "expressions", "ref_id", "ann_ids", "sent_ids")
    return Entry(**{key: getattr(ref, key) for key in kept}, **found)


def _mistakes(ref: Ref, pictures: dict[int, Picture], objects: dict[int, Object]) -> Iterable[str]:
    if ref.image_id not in pictures:
        yield f"there is no picture {ref.image_id}."
        return
    for number in ref.ann_ids:
        if number not in objects:
            yield f"there is no annotation {number}."
        elif objects[number].image_id != ref.image_id:
            yield (
                f"annotation {number} belongs to picture {objects[number].image_id}, expected"
                f" {ref.image_id}."
            )


def _instances(
    path: Path, refs: Sequence[Ref], notes: Notes
) -> tuple[dict[int, Picture], dict[int, Object]]:
    """The pictures and objects that are referred to, by their numbers."""
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: not readable as JSON ({error}).") from error
    mistakes: list[Note] = []
    found = []
    for key, build, wanted in (
        ("images", _picture, {ref.image_id for ref in refs}),
        ("annotations", _object, {number for ref in refs for number in ref.ann_ids}),
    ):
        try:
            records = field(document, key, list)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        found.append({})
        for place, record in enumerate(records):
            try:
                if (number := field(record, "id", int)) in wanted:
                    found[-1][number] = build(record)
            except ValueError as error:
                mistakes.append(Note(UNREADABLE, f"{key}[{place}]", str(error)))
    notes.wrong(mistakes, f"records of {path}")
    return found[0], found[1]


def _picture(record: dict[str, Any]) -> Picture:
    height, width = field(record, "height", int), field(record, "width", int)
    if min(height, width) < 1:
        raise ValueError(f"the size is {height}x{width}, expected numbers above 0.")
    return Picture(_file_name(record), height, width)


def _file_name(record: dict[str, Any]) -> str:
    """The picture's name, which leads nowhere but into its folder."""
    name = field(record, "file_name", str)
    if name.startswith("/") or ".." in name.split("/") or "\\" in name or "\0" in name:
        raise ValueError(f"'file_name' is {_shown(name)}, expected a name in the folder.")
    return name


def _object(record: dict[str, Any]) -> Object:
    segmentation = field(record, "segmentation", list | dict)
    boxes = (_box(record["bbox"]),) if "bbox" in record else ()
    crowd = whole(record.get("iscrowd")) in (1, True)
    return Object(field(record, "image_id", int), segmentation, boxes, crowd)


def _box(value: Any) -> Box:
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError(f"'bbox' is {_shown(value)}, expected [x, y, width, height].")
    try:
        x, y, width, height = map(float, value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"'bbox' is {_shown(value)}, expected four numbers.") from error
    return x, y, width, height


def _shown(value: Any) -> str:
    """Short, also of a value that holds itself many times over."""
    return reprlib.repr(value)

"""Own folders: pictures and annotation files, read into `Annotations`.

A folder holds `annotations.jsonl`, whose lines may name their split, or a file for each split
(`train.jsonl`, `val.jsonl`, `test….jsonl`); or the same names with `.json`, in COCO's form. The
format, line by line, is in docs/own-data.md. Where there are none of these: YOLO's `data.yaml`, or
labelme's files, one a picture.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from dit_jax.data.annotations import fields, folder_coco, folder_labelme, folder_lines, folder_yolo
from dit_jax.data.annotations.coco import without_crowds
from dit_jax.data.annotations.fields import ALL, SPLIT, Item
from dit_jax.data.annotations.strict_json import Mistakes
from dit_jax.data.entries import USUAL, Annotations, Entry, Note, Reading

READERS: dict[str, Callable[..., tuple[Item, ...]]] = {
    ".jsonl": folder_lines.read,
    ".json": folder_coco.read,
}


def read(
    source: str | os.PathLike[str],
    *,
    val_share: float = 0.1,
    skip: bool = False,
    reading: Reading = USUAL,
) -> Annotations:
    """All referents of a folder, in the order of its files.

    Where `annotations` names no splits, about `val_share` of the pictures become "val" and the
    rest "train"; a hash of the picture's path decides, so a picture stays where it is when others
    are added. Raises ValueError that names file and line of everything that is not of the format;
    with `skip`, such lines and annotations are left out and listed in `left_out`.
    """
    if not 0 <= val_share < 1:
        raise ValueError(f"val_share is {val_share}; expected a number from 0 to below 1.")
    if not os.fspath(source):
        raise ValueError("data.source is empty; expected your folder of pictures and annotations.")
    if not Path(source).is_dir():
        raise ValueError(f"{source} is no folder; expected one of pictures and annotations.")
    folder = Path(os.path.abspath(source))  # not resolved: a link's name is the name it was given
    items: list[tuple[str, Item]] = []
    remarks: list[Note] = []
    left_out: list[Note] = []
    parts = find_parts(folder)
    for part in parts:
        found: list[Item] = []
        every = [Mistakes(file) for file in part.readers]
        for mistakes, (file, reader) in zip(every, part.readers.items(), strict=True):
            found += reader(file, folder=folder, reading=reading, mistakes=mistakes)
            if not skip:
                mistakes.stop()
        if not found:
            for mistakes in every:
                mistakes.stop()
            raise ValueError(f"{part.named} is empty; expected at least one referring example.")
        divided = _divided(found, part, val_share=val_share)
        drop = reading.crowds == "drop"
        items += [(split, item) for split, item in divided if not (drop and item.crowd)]
        crowds = [item.name for _, item in divided if drop and item.crowd]
        remarks += [remark for mistakes in every for remark in mistakes.remarks]
        remarks += [without_crowds(name, kept=0, count=1) for name in crowds]
        left_out += [one for mistakes in every for one in mistakes.found]
    return Annotations(
        dataset=f"folder({folder.name})",
        splits=_entries(items, reading),
        sources={key: file for part in parts for key, file in part.sources.items()},
        images=folder,
        reading=reading,
        remarks=tuple(remarks),
        left_out=tuple(left_out),
    )


@dataclass(frozen=True)
class Part:
    """Files that are read and divided together."""

    split: str  # or ALL
    named: Path  # in messages
    readers: dict[Path, Callable[..., tuple[Item, ...]]]  # of the files
    sources: dict[str, Path]


def find_parts(folder: Path) -> list[Part]:
    """Of all kinds of annotations the first that is there."""
    if files := find_files(folder):
        return [
            Part(file.stem, file, {file: READERS[file.suffix]}, {file.stem: file}) for file in files
        ]
    if data := folder_yolo.find(folder):
        splits, names = folder_yolo.labels(data)
        return [
            Part(
                split,
                data,
                {
                    text: functools.partial(folder_yolo.read, picture=picture, names=names)
                    for text, picture in texts.items()
                },
                {data.name: data} | _by_path(texts, folder),
            )
            for split, texts in splits.items()
        ]
    found = folder_labelme.find(folder)
    if not found:
        raise ValueError(
            f"{folder} holds no annotations; expected {_expected('.jsonl')}, or {ALL}.json and so"
            f" on in COCO's form, or YOLO's {folder_yolo.FILES[0]}, or labelme's files."
        )
    return [
        Part(split, folder, dict.fromkeys(files, folder_labelme.read), _by_path(files, folder))
        for split, files in sorted(found.items(), key=lambda one: _order(one[0]))
    ]


def _by_path(files: Iterable[Path], folder: Path) -> dict[str, Path]:
    return {fields.path(str(file), "file", folder=folder): file for file in files}


def find_files(folder: Path) -> tuple[Path, ...]:
    """`annotations`, or train, val and the tests, of lines or COCO's; () where there are none."""
    kinds = {}
    for suffix in READERS:
        present = sorted(path for path in folder.glob(f"*{suffix}") if path.is_file())
        named = [path for path in present if path.stem == ALL or SPLIT.fullmatch(path.stem)]
        if suffix == ".json":  # labelme's are called as their pictures, perhaps "test1"
            named = [path for path in named if not folder_labelme.is_one(path)]
        if suffix == ".jsonl" and len(named) < len(present):
            other = next(path for path in present if path not in named)
            raise ValueError(f"{other}: no such split; expected {_expected(suffix)}.")
        if named:
            kinds[suffix] = named
    files = [file for named in kinds.values() for file in named]
    if len(kinds) > 1 or (len(files) > 1 and any(file.stem == ALL for file in files)):
        raise ValueError(
            f"{folder} holds {', '.join(file.name for file in files)}; expected either {ALL}, or a"
            " file for each split, all .jsonl or all .json."
        )
    return tuple(sorted(files, key=lambda file: _order(file.stem)))


def _expected(suffix: str) -> str:
    names = ", ".join(f"{split}{suffix}" for split in ("train", "val", "test…"))
    return f"{ALL}{suffix}, or {names}"


def _order(split: str) -> tuple[int, str]:
    """Training first, then validation, then tests by name."""
    return next(i for i, part in enumerate(("train", "val", "")) if split.startswith(part)), split


def _divided(items: list[Item], part: Part, *, val_share: float) -> list[tuple[str, Item]]:
    """Every item with its split: the file's, or what it says itself, or by its picture."""
    if part.split != ALL:
        return [(part.split, item) for item in items]
    named = [item for item in items if item.split is not None]
    if len(named) not in (0, len(items)):
        silent = next(item for item in items if item.split is None)
        raise ValueError(
            f"{silent.name}: no split is named, but {named[0].name} names one; expected it for all"
            " or for none."
        )
    if named:
        return [(item.split or "", item) for item in items]
    val = _validation({item.picture for item in items}, part.named, share=val_share)
    return [("val" if item.picture in val else "train", item) for item in items]


def _validation(pictures: set[str], file: Path, *, share: float) -> set[str]:
    """About `share` of the pictures, at least one of them, and never all."""
    if not share:
        return set()
    if len(pictures) == 1:
        raise ValueError(f"{file} has one picture, which cannot be divided; name its split.")
    places = {picture: _place(picture) for picture in pictures}
    order = sorted(pictures, key=places.__getitem__)
    count = sum(place < share for place in places.values())
    return set(order[: min(max(count, 1), len(order) - 1)])


def _place(picture: str) -> float:
    """A number from 0 to 1 that follows from the picture's path alone."""
    return int.from_bytes(hashlib.sha256(picture.encode()).digest()[:8]) / 2**64


def _entries(items: list[tuple[str, Item]], reading: Reading) -> dict[str, tuple[Entry, ...]]:
    """Entries by split, numbered through the whole folder."""
    splits: dict[str, list[Entry]] = {}
    sentences = 0
    for number, (split, item) in enumerate(items):
        count = len(item.expressions)
        entry = Entry(
            name=item.name,
            split=split,
            file_name=item.picture,
            image_id=None,
            size=item.size,
            segmentations=item.segmentations,
            boxes=item.boxes,
            expressions=item.expressions,
            ref_id=number,
            ann_ids=item.ann_ids,
            sent_ids=tuple(range(sentences, sentences + count)),
            crowds=(True,) if item.crowd else (),
            units=item.units or reading.units,
            orientation=reading.orientation,
        )
        splits.setdefault(split, []).append(entry)
        sentences += count
    return {split: tuple(splits[split]) for split in sorted(splits, key=_order)}

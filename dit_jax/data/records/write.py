"""From entries to shards of array records, in a folder that a killed build can continue.

Which entry goes into which shard follows from the annotations alone. A shard is written under
another name, renamed when it is complete, and then described by a small JSON file with its
SHA-256. So whatever moment a build is killed at, the next one keeps what was finished, and the
records are the same bytes as if nothing had happened.
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordWriter
from tqdm import tqdm

from dit_jax.data.entries import Annotations, Entry
from dit_jax.data.pixels import (
    ImageStore,
    Size,
    decode_image,
    entry_mask,
    frame,
    open_images,
    orientation,
)
from dit_jax.data.records.format import serialize, sha256, shard_name
from dit_jax.strict import counted

RECENT = 64  # pictures kept for the next referents of the same ones
RECENT_BYTES = 2**28  # of these together, the latest aside
RECORDS, NOTES = "records", "notes"  # in the folder of an unfinished build
OWN_PICTURE = 2**62  # above every image_id of COCO
SPLIT = re.compile(r"[A-Za-z0-9_]+")  # as TFDS's file names allow


@dataclass(frozen=True)
class Shard:
    """A file of records and the entries that it is written from."""

    name: str
    split: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a finished shard holds; this is its JSON file."""

    split: str
    sha256: str
    bytes: int  # of all records, before they are packed
    expressions: list[int]  # how many each record has
    image_ids: list[int]
    contents: list[int]
    no_target: int  # records where nothing is meant
    left_out: list[dict[str, str]]  # broken records: what they are called, and why


@dataclass(frozen=True)
class Picture:
    """An encoded picture that decodes."""

    data: bytes
    size: Size  # as it is stored
    orientation: int  # EXIF's

    @cached_property
    def content(self) -> int:
        """An identity that follows from the content: the first 60 bits of its SHA-256."""
        return OWN_PICTURE + (int.from_bytes(hashlib.sha256(self.data).digest()[:8]) >> 4)


class Pictures:
    """Pictures of a store, each decoded once for all the referents that follow one another."""

    def __init__(self, store: ImageStore):
        self._store = store
        self._recent: OrderedDict[str, Picture] = OrderedDict()

    def read(self, file_name: str, *, name: str) -> Picture:
        """One picture; ValueError that begins with `name` where it is missing or damaged."""
        if file_name not in self._recent:
            try:
                data = self._store.read(file_name)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            size = decode_image(data, name=name).shape[:2]
            self._recent[file_name] = Picture(data, size, orientation(data))
        self._recent.move_to_end(file_name)
        while len(self._recent) > RECENT or (len(self._recent) > 1 and self._size() > RECENT_BYTES):
            self._recent.popitem(last=False)
        return self._recent[file_name]

    def _size(self) -> int:
        return sum(len(picture.data) for picture in self._recent.values())


def write_all(
    annotations: Annotations,
    plan: dict[str, Any],
    staging: Path,
    *,
    skip: bool,
    broken: Mapping[str, str],
    progress: bool,
) -> list[Written]:
    """Write all shards into `staging/records`, or what is missing of them where an earlier build
    had the same plan; `skip` leaves broken records out, those of `broken` (name → why) too."""
    records, notes = _stage(staging, plan)
    pictures = Pictures(open_images(annotations.images))
    todo = shards(annotations, size=plan["shard_entries"])
    total = sum(len(shard.entries) for shard in todo)
    if not total:
        raise ValueError(f"{annotations.dataset}: there is no referent in it.")
    written = []
    with tqdm(
        total=total, desc="build", unit=" records", disable=None if progress else True
    ) as bar:
        for shard in todo:
            found = _finished(shard, broken, records=records, notes=notes)
            if found is None:
                how = dict(pictures=pictures, skip=skip, broken=broken, tick=bar.update)
                found = _write(shard, records, notes, **how)
            else:
                bar.update(len(shard.entries))
            written.append(found)
    return written


def shards(annotations: Annotations, *, size: int) -> list[Shard]:
    """All shards, of up to `size` entries of one split, in the order of the entries."""
    found = []
    for split, entries in annotations.splits.items():
        if not SPLIT.fullmatch(split):
            raise ValueError(
                f"{annotations.dataset}: a split is called {split!r}, expected letters, digits and"
                " underscores."
            )
        count = -(-len(entries) // size)
        for number in range(count):
            name = shard_name(split, number=number, count=count)
            found.append(Shard(name, split, entries[number * size : (number + 1) * size]))
    return found


def _stage(staging: Path, plan: dict[str, Any]) -> tuple[Path, Path]:
    """The folders of an unfinished build; another build's are deleted."""
    file, records, notes = staging / "plan.json", staging / RECORDS, staging / NOTES
    if not file.is_file() or json.loads(file.read_text()) != plan:
        if staging.exists():
            shutil.rmtree(staging)
        records.mkdir(parents=True)
        notes.mkdir()
        write_json(file, plan)
    return records, notes


def _finished(
    shard: Shard, broken: Mapping[str, str], *, records: Path, notes: Path
) -> Written | None:
    """What an earlier, interrupted build says of a shard, if it is all there.

    One with broken records is written again: they may be sound by now, or stop this build.
    """
    note, file = notes / f"{shard.name}.json", records / shard.name
    known = any(entry.name in broken for entry in shard.entries)
    if known or not note.is_file() or not file.is_file():
        return None
    written = Written(**json.loads(note.read_text()))
    return written if not written.left_out and sha256(file) == written.sha256 else None


def _write(
    shard: Shard,
    records: Path,
    notes: Path,
    *,
    pictures: Pictures,
    skip: bool,
    broken: Mapping[str, str],
    tick: Callable[[], object],
) -> Written:
    """Write one shard into `records`, and its note."""
    partial = notes / "partial"
    partial.unlink(missing_ok=True)
    found: dict[str, list[Any]] = {
        key: [] for key in ("expressions", "image_ids", "contents", "left_out")
    }
    size = no_target = 0
    writer = ArrayRecordWriter(str(partial), "group_size:1,uncompressed")  # for random access
    try:
        for entry in shard.entries:
            tick()
            try:
                example = _example(entry, pictures)
                if entry.name in broken:
                    raise ValueError(f"{example['id']}: {broken[entry.name]}")
            except ValueError as error:
                if not skip:
                    raise
                found["left_out"].append({"record": entry.name, "reason": str(error)})
                continue
            data = serialize(example)
            writer.write(data)
            size += len(data)
            no_target += not example["objects"]
            found["expressions"].append(len(example["expressions"]))
            found["image_ids"].append(example["image_id"])
            found["contents"].append(example["content"])
    finally:
        writer.close()
    fsync(partial)
    written = Written(
        split=shard.split, sha256=sha256(partial), bytes=size, no_target=no_target, **found
    )
    os.replace(partial, records / shard.name)
    write_json(notes / f"{shard.name}.json", dataclasses.asdict(written))
    return written


def write_json(path: Path, value: Any) -> None:
    """The whole file or none, also when the machine stops."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(value, indent=1, ensure_ascii=False))
    fsync(partial)
    os.replace(partial, path)


def fsync(path: Path) -> None:
    """Wait until a file, or a folder's list of files, would survive the machine's stopping."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _example(entry: Entry, pictures: Pictures) -> dict[str, Any]:
    """One record; everything that reading it relies on is checked here, once."""
    name = f"{entry.name} ({entry.file_name})"
    picture = pictures.read(entry.file_name, name=name)
    seen = frame(entry, stored=picture.size, orientation=picture.orientation)
    height, width = seen.size
    if entry.size not in (None, seen.size):
        raise ValueError(
            f"{name}: the annotations say {entry.size[0]}x{entry.size[1]} (height x width) but the"
            f" picture is {height}x{width}."
        )
    _check_words(entry, name)
    try:
        mask = entry_mask(entry, height=height, width=width)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return {
        "id": name,
        "file_name": entry.file_name,
        "ref_id": entry.ref_id,
        "ann_ids": entry.ann_ids,
        "image_id": picture.content if entry.image_id is None else entry.image_id,
        "image": picture.data,
        "content": picture.content,
        "orientation": seen.orientation,
        "mask": mask,
        "objects": len(entry.segmentations),
        "height": height,
        "width": width,
        "expressions": entry.expressions,
        "sent_ids": entry.sent_ids,
    }


def _check_words(entry: Entry, name: str) -> None:
    if not entry.expressions or not all(text.strip() for text in entry.expressions):
        raise ValueError(f"{name}: an expression is empty, expected at least one word in each.")
    if len(entry.sent_ids) != len(entry.expressions):
        raise ValueError(
            f"{name}: {counted(len(entry.sent_ids), 'sent_id')} for"
            f" {counted(len(entry.expressions), 'expression')}, expected one for each."
        )

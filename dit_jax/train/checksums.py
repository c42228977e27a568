"""Checksums of a checkpoint, written before it appears and compared before it is used.

`checksums.json` in a step's folder holds size and SHA-256 of every file. It is written while the
folder still has its temporary name, so a checkpoint that can be seen can also be checked.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
from absl import logging

from dit_jax import storage

CHECKSUMS = "checksums.json"
FORMER = "seal.json"  # the same, in checkpoints of version 0.1
CHANGES = ("_CHECKPOINT_METADATA",)  # Orbax notes the time of the commit there, afterwards
BLOCK = 1 << 22
AT_ONCE = 8  # objects of a bucket that are read


def write(folder: os.PathLike) -> None:
    """Checksums of what is in `folder`, into it."""
    left_out = (CHECKSUMS, *CHANGES)
    names = [name for name in _sizes(folder) if name.rpartition("/")[2] not in left_out]
    found = _sums(folder, names)
    (folder / CHECKSUMS).write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def check(folder: os.PathLike) -> None:
    """Raise ValueError naming the first file that is missing or has other bytes than were written.

    Processes share the work. Of a folder without checksums a warning says that nothing is compared.
    """
    path = _file(folder)
    if path is None:
        logging.warning(
            "%s has no %s, so its files are not compared with what was written.", folder, CHECKSUMS
        )
        return
    sizes = _sizes(folder)
    try:
        written = _read(path)
        names = sorted(written)[jax.process_index() :: jax.process_count()]
        there = [name for name in names if sizes.get(name) == written[name]["bytes"]]
        found = _sums(folder, there)
        wrong = next((name for name in names if found.get(name) != written[name]), None)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(_sentence(folder, f"{path.name} is not what was written")) from error
    if wrong is not None:
        what = "has other bytes than were written" if wrong in sizes else "is missing"
        raise ValueError(_sentence(folder, f"{wrong} {what}"))


def missing(folder: os.PathLike, *, items: Sequence[str]) -> str | None:
    """The first of `items`, or of the files that were written, that is not there."""
    path = _file(folder)
    try:
        names = [*items, *(() if path is None else _read(path))]
    except (ValueError, RecursionError):  # `check` says what is wrong with it
        names = items
    if storage.parse(folder) is None:
        return next((name for name in names if not (folder / name).exists()), None)
    there = _sizes(folder).keys()
    there |= {name.partition("/")[0] for name in there}
    return next((name for name in names if name not in there), None)


def _file(folder: os.PathLike) -> os.PathLike | None:
    paths = (folder / name for name in (CHECKSUMS, FORMER))
    return next((path for path in paths if path.is_file()), None)


def _read(path: os.PathLike) -> dict[str, dict[str, Any]]:
    """File → size and sum; raises ValueError for what is no such file."""
    written = json.loads(path.read_text(encoding="utf-8"))
    if not written or not isinstance(written, dict):
        raise ValueError(f"{path.name} holds no names.")
    return written


def _sentence(folder: os.PathLike, what: str) -> str:
    return (
        f"the checkpoint {folder} is damaged: {what}; remove that folder to continue from the"
        " checkpoint before it, or restore it from a copy."
    )


def _sizes(folder: os.PathLike) -> dict[str, int]:
    """The files of a folder, by their names in it, and their bytes."""
    if name := storage.parse(folder):
        return {inside: one.size for inside, one in sorted(storage.listing(name).items())}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _sums(folder: os.PathLike, names: list[str]) -> dict[str, dict[str, Any]]:
    with ThreadPoolExecutor(AT_ONCE if storage.parse(folder) else 1) as pool:
        return dict(zip(names, pool.map(lambda name: _sum(folder / name), names), strict=True))


def _sum(path: os.PathLike) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
    return {"bytes": size, "sha256": digest.hexdigest()}

"""Checksums of a checkpoint, written before it appears and compared before it is used.

`checksums.json` in a step's folder holds size and SHA-256 of every file. It is written while the
folder still has its temporary name, so a checkpoint that can be seen can also be checked.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import logging

CHECKSUMS = "checksums.json"
FORMER = "seal.json"  # the same, in checkpoints of version 0.1
CHANGES = ("_CHECKPOINT_METADATA",)  # Orbax notes the time of the commit there, afterwards
BLOCK = 1 << 22


def write(folder: Path) -> None:
    """Checksums of what is in `folder`, into it."""
    found = {str(path.relative_to(folder)): _sums(path) for path in _files(folder)}
    (folder / CHECKSUMS).write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def check(folder: Path) -> None:
    """Raise ValueError naming the first file that is missing or has other bytes than were written.

    Processes share the work. Of a folder without checksums a warning says that nothing is compared.
    """
    path = _file(folder)
    if path is None:
        logging.warning(
            "%s has no %s, so its files are not compared with what was written.", folder, CHECKSUMS
        )
        return
    try:
        written = _read(path)
        names = sorted(written)[jax.process_index() :: jax.process_count()]
        wrong = next((name for name in names if _differs(folder / name, written[name])), None)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(_sentence(folder, f"{path.name} is not what was written")) from error
    if wrong is not None:
        what = "has other bytes than were written" if (folder / wrong).is_file() else "is missing"
        raise ValueError(_sentence(folder, f"{wrong} {what}"))


def missing(folder: Path, *, items: Sequence[str]) -> str | None:
    """The first of `items`, or of the files that were written, that is not there."""
    path = _file(folder)
    try:
        names = [*items, *(() if path is None else _read(path))]
    except (ValueError, RecursionError):  # `check` says what is wrong with it
        names = items
    return next((name for name in names if not (folder / name).exists()), None)


def _file(folder: Path) -> Path | None:
    paths = (folder / name for name in (CHECKSUMS, FORMER))
    return next((path for path in paths if path.is_file()), None)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """File → size and sum; raises ValueError for what is no such file."""
    written = json.loads(path.read_text(encoding="utf-8"))
    if not written or not isinstance(written, dict):
        raise ValueError(f"{path.name} holds no names.")
    return written


def _sentence(folder: Path, what: str) -> str:
    return (
        f"the checkpoint {folder} is damaged: {what}; remove that folder to continue from the"
        " checkpoint before it, or restore it from a copy."
    )


def _files(folder: Path) -> list[Path]:
    named = (path for path in folder.rglob("*") if path.name not in (CHECKSUMS, *CHANGES))
    return sorted(path for path in named if path.is_file())


def _sums(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _differs(path: Path, written: dict[str, Any]) -> bool:
    if not path.is_file() or path.stat().st_size != written["bytes"]:
        return True
    return _sums(path) != written

"""Checksums of a checkpoint, written before it appears and compared before it is used.

`seal.json` in a step's folder holds size and SHA-256 of every file. It is written while the folder
still has its temporary name, so a checkpoint that can be seen can also be checked.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax

SEAL = "seal.json"
CHANGES = ("_CHECKPOINT_METADATA",)  # Orbax notes the time of the commit there, afterwards
BLOCK = 1 << 22


def write(folder: Path) -> None:
    """Seal what is in `folder`."""
    found = {str(path.relative_to(folder)): _sums(path) for path in _files(folder)}
    (folder / SEAL).write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def check(folder: Path) -> None:
    """Raise ValueError naming the first file that is missing or has other bytes than were sealed.

    Processes share the work. A folder without a seal is one of before there were any.
    """
    path = folder / SEAL
    if not path.is_file():
        return
    try:
        sealed: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        if not sealed or not isinstance(sealed, dict):
            raise ValueError(f"{SEAL} holds no names.")
        names = sorted(sealed)[jax.process_index() :: jax.process_count()]
        wrong = next((name for name in names if _differs(folder / name, sealed[name])), None)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(_sentence(folder, f"{SEAL} is not what was written")) from error
    if wrong is not None:
        what = "has other bytes than were written" if (folder / wrong).is_file() else "is missing"
        raise ValueError(_sentence(folder, f"{wrong} {what}"))


def _sentence(folder: Path, what: str) -> str:
    return (
        f"the checkpoint {folder} is damaged: {what}; remove that folder to continue from the"
        " checkpoint before it, or restore it from a copy."
    )


def _files(folder: Path) -> list[Path]:
    named = (path for path in folder.rglob("*") if path.name not in (SEAL, *CHANGES))
    return sorted(path for path in named if path.is_file())


def _sums(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _differs(path: Path, sealed: dict[str, Any]) -> bool:
    if not path.is_file() or path.stat().st_size != sealed["bytes"]:
        return True
    return _sums(path) != sealed

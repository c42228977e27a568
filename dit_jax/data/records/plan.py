"""What a build is made from, as digests: they say whether two builds are the same one."""

import dataclasses
import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2

from dit_jax import storage
from dit_jax.data.entries import Annotations, Entry, MaskFile, Reading
from dit_jax.data.records.format import FORMAT, manifest, sha256

PACKAGES = ("array_record", "tensorflow-datasets", "pycocotools", "numpy")
FIELDS = tuple(field.name for field in dataclasses.fields(Entry))


def plan(annotations: Annotations, *, shard_entries: int) -> dict[str, Any]:
    """Everything that the bytes of the records depend on, except the pictures.

    ValueError where a source file is missing.
    """
    return {
        "format": FORMAT,
        "dataset": annotations.dataset,
        "sources": {key: _digest(path) for key, path in annotations.sources.items()},
        "entries": entries_digest(annotations),
        "reading": dataclasses.asdict(annotations.reading),
        "shard_entries": shard_entries,
        "versions": {name: version(name) for name in PACKAGES} | {"opencv": cv2.__version__},
    }


def entries_digest(annotations: Annotations) -> str:
    """SHA-256 over all entries in order; mask pictures count by their content."""
    digest = hashlib.sha256()
    for split, entries in annotations.splits.items():
        digest.update(f"{split} {len(entries)}\n".encode())
        for entry in entries:
            values = [getattr(entry, name) for name in FIELDS]
            digest.update(json.dumps(values, default=_plain).encode())
    return digest.hexdigest()


def check_same(path: Path, annotations: Annotations) -> None:
    """ValueError where finished records were built from other files than these annotations.

    Files that are gone by now cannot differ: the records stand for themselves.
    """
    built = check_reading(path, annotations.reading)
    for key, file in annotations.sources.items():
        if not file.is_file():
            return
        then, now = built["sources"].get(key), _digest(file)
        if then is None or then["sha256"] != now["sha256"]:
            said = "no such file" if then is None else f"{then['path']} ({then['sha256'][:12]}…)"
            raise ValueError(
                f"{path} was built from other files: its {key} was {said}, now it is {file}"
                f" ({now['sha256'][:12]}…); delete {path} or choose another folder for records."
            )
    if built["entries"] != entries_digest(annotations):
        raise ValueError(
            f"{path} was built from the same files as {annotations.dataset}, but they give other"
            " records now (mask pictures that changed, another share of val, or another version of"
            f" dit_jax); delete {path} or choose another folder for records."
        )


def check_reading(path: Path, reading: Reading) -> dict[str, Any]:
    """The manifest; ValueError where annotations were to be understood otherwise."""
    built = manifest(path)
    for key, now in dataclasses.asdict(reading).items():
        if (then := built["reading"][key]) != now:
            raise ValueError(
                f"{path} was built with {key}={then}, and {key}={now} is asked for; delete it or"
                " choose another folder for records."
            )
    return built


def _digest(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise ValueError(f"{path} is missing; expected the file that the annotations came from.")
    return {"path": storage.named(path), "sha256": sha256(path)}


def _plain(value: MaskFile | bytes) -> str | list[Any]:
    """What JSON cannot say of a segmentation: a mask picture, run lengths as bytes."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return [sha256(value.path) if value.path.is_file() else None, value.label]

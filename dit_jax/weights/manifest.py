"""`manifest.json`: what a folder that is handed on holds, byte for byte, and where it is from.

    format       version of this file
    files        size and SHA-256 of every file but the manifest and the model card
    provenance   where the parameters come from
    license      under which they may be used; null where nobody said
    scores       of each data set, split and protocol, where the model was scored
    calibration  of the presence threshold, where it was calibrated
    packages     versions that wrote the folder

A folder without one, as dit_jax wrote them before, is taken as it is.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dit_jax.strict import build
from dit_jax.version import VERSION

FORMAT = 1
MANIFEST, CARD = "manifest.json", "README.md"
UNLISTED = (MANIFEST, CARD)  # a model card is written on by people
PACKAGES = ("flax", "jax", "jaxlib", "numpy", "safetensors")
REMEDY = f"copy the folder again, or remove {MANIFEST} if the change is yours."

Scores = Mapping[str, Mapping[str, Any]]  # "refcoco-val-original" → figures of that score


@dataclasses.dataclass(frozen=True)
class File:
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A presence threshold and its promise, as `--mode=calibrate` made it."""

    threshold: float  # on the probability that anything is meant
    false_alarm: float  # mean share of a picture's absent expressions that get a mask, at most
    n: int  # pictures with absent expressions that it was chosen by, of
    dataset: str
    split: str
    checks: dict  # "shapes-testA" → what came of it there, as `dit_jax.eval.calibration` says it

    def __post_init__(self):
        if not 0 < self.threshold < 1:
            raise ValueError(f"calibration.threshold is {self.threshold}, expected 0 < it < 1")

    @property
    def sentence(self) -> str:
        return (
            f'A presence below {self.threshold} means "nothing": so that at most'
            f" {100 * self.false_alarm:g} % of a picture's absent expressions get a mask in the"
            f" mean, calibrated on {self.n} pictures of {self.dataset} {self.split}."
        )


@dataclasses.dataclass(frozen=True)
class Manifest:
    """See the fields of the file above."""

    files: dict[str, File]
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    license: str | None = None
    scores: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    packages: dict[str, str] = dataclasses.field(default_factory=dict)
    calibration: Calibration | None = None

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files.values())


def write(
    folder: Path,
    *,
    provenance: Mapping[str, Any],
    license: str | None = None,
    scores: Scores | None = None,
    calibration: Calibration | None = None,
) -> Manifest:
    """Describes the files that lie in and below `folder` now, and writes `manifest.json`."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {path.relative_to(folder).as_posix(): describe(path) for path in paths}
    manifest = Manifest(
        files={name: file for name, file in files.items() if name not in UNLISTED},
        provenance=dict(provenance),
        license=license,
        scores={name: dict(row) for name, row in (scores or {}).items()},
        packages=versions(),
        calibration=calibration,
    )
    _write(folder, manifest)
    return manifest


def read(folder: Path) -> Manifest | None:
    """The manifest of a folder; None where it has none.

    Raises ValueError where it is damaged, of another format, or names a file outside the folder.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no JSON, or no text at all
        raise ValueError(f"{path} is damaged: it is not JSON; {REMEDY}") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(f"{path} is no manifest of format {FORMAT}; {REMEDY}")
    try:
        return _from_json(values)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {str(error).rstrip('.')}; {REMEDY}") from error


def verify(folder: Path) -> Manifest | None:
    """Raises ValueError naming the first file that is not what the manifest says.

    Sizes are compared before anything is hashed. Returns the manifest, or None without one.
    """
    manifest = read(folder)
    if manifest is None:
        return None
    for name, file in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{path} is missing, and {MANIFEST} lists it; {REMEDY}")
        found = path.stat().st_size
        if found != file.bytes:
            raise ValueError(
                f"{path} is damaged: it has {found} bytes, expected {file.bytes}; {REMEDY}"
            )
    for name, file in manifest.files.items():
        found = sha256(folder / name)
        if found != file.sha256:
            raise ValueError(
                f"{folder / name} is damaged: its SHA-256 is {found[:12]}…, expected"
                f" {file.sha256[:12]}…; {REMEDY}"
            )
    return manifest


def note_scores(folder: Path, scores: Scores) -> None:
    """Adds scores to the manifest of a folder that has one."""
    manifest = read(folder)
    if manifest is not None:
        merged = manifest.scores | {name: dict(row) for name, row in scores.items()}
        _write(folder, dataclasses.replace(manifest, scores=merged))


def note_calibration(folder: Path, calibration: Calibration, *, of: Manifest) -> None:
    """Writes a presence threshold into the manifest of a folder.

    Raises ValueError where the folder holds other files than when its manifest was read as `of`.
    """
    manifest = read(folder)
    if manifest is None or manifest.files != of.files:
        raise ValueError(f"{folder} was written anew while it was calibrated; calibrate it again.")
    _write(folder, dataclasses.replace(manifest, calibration=calibration))


def presence_threshold(folder: Path) -> float | None:
    """What a folder was calibrated to; None where it was not."""
    manifest = read(folder)
    return (
        None if manifest is None or manifest.calibration is None else manifest.calibration.threshold
    )


def describe(path: Path) -> File:
    return File(bytes=path.stat().st_size, sha256=sha256(path))


def sha256(path: Path) -> str:
    """Reads the file in pieces: the memory used does not grow with it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Versions of this package and of those that decide what is written."""
    return {"dit_jax": VERSION} | {name: importlib.metadata.version(name) for name in PACKAGES}


def _write(folder: Path, manifest: Manifest) -> None:
    values = {"format": FORMAT, **dataclasses.asdict(manifest)}
    if manifest.calibration is None:
        del values["calibration"]  # which version 0.1 does not know
    unfinished = folder / f"{MANIFEST}.tmp"
    unfinished.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(unfinished, folder / MANIFEST)


def _from_json(values: dict[str, Any]) -> Manifest:
    if "licence" in values:  # as version 0.1 wrote it
        values = {"license": values["licence"]} | values
        del values["licence"]
    values = {"calibration": None} | values
    fields = {field.name: field.type for field in dataclasses.fields(Manifest)}
    unknown, missing = values.keys() - fields.keys() - {"format"}, fields.keys() - values.keys()
    if unknown or missing:
        listed = ", ".join(sorted(unknown | missing))
        raise ValueError(f"expected the keys {', '.join(fields)}, and {listed} differ")
    for name in ("files", "provenance", "scores", "packages"):
        if not isinstance(values[name], dict):
            raise ValueError(f"{name} is {values[name]!r}, expected keys and values")
    for name in values["files"]:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{name!r} lies outside the folder")
    files = {name: build(File, row, f"files.{name}.") for name, row in values["files"].items()}
    if values["calibration"] is not None:
        values["calibration"] = build(Calibration, values["calibration"], "calibration.")
    return Manifest(files, *(values[name] for name in fields if name != "files"))

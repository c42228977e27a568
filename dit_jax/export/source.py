"""What is exported: a model directory, or a pack on its base."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dit_jax import vocabulary
from dit_jax.data import from_pillow
from dit_jax.eval.protocols import PRESENCE_THRESHOLD
from dit_jax.export import run
from dit_jax.models.architecture import Architecture
from dit_jax.models.params import Params
from dit_jax.weights import directory, manifest, packs


@dataclasses.dataclass(frozen=True)
class Source:
    """A whole model on the host, with what is known about it."""

    folder: Path
    arch: Architecture
    params: Params
    vocab: Path | None
    unused: dict[str, np.ndarray]
    provenance: dict[str, Any]
    license: str | None = None
    scores: manifest.Scores = dataclasses.field(default_factory=dict)
    calibration: manifest.Calibration | None = None

    @property
    def portable(self) -> Architecture:
        """`arch` with products that every device has."""
        return dataclasses.replace(self.arch, products=None)

    @property
    def presence_threshold(self) -> float:
        return PRESENCE_THRESHOLD if self.calibration is None else self.calibration.threshold

    def vocabulary(self) -> Path:
        """Raises ValueError where the model reads no text, FileNotFoundError without vocabulary."""
        if self.arch.bert is None:
            raise ValueError(
                f"{self.folder} is plain SAM, which reads no text; expected a model with a text"
                " encoder."
            )
        if self.vocab is None:
            raise FileNotFoundError(
                f"{self.folder} has no {directory.VOCAB}; copy the vocabulary of its text"
                " encoder there."
            )
        return self.vocab


def write_beside(vocab: Path, folder: Path) -> None:
    """Writes what an exported program wants beside it: its words, and what runs it."""
    vocabulary.write(vocab, folder)
    for path in map(Path, (run.__file__, from_pillow.__file__)):
        shutil.copyfile(path, folder / path.name)  # with the user's own permissions


def read(model_dir: Path, *, base: Path | None = None) -> Source:
    """A model directory, or a pack with its `base`; raises as `directory.read` does."""
    if packs.is_pack(model_dir):
        return _packed(model_dir, base)
    if base is not None:
        raise ValueError(f"{model_dir} is a whole model, which needs no base; expected a pack.")
    arch, params = directory.read(model_dir)
    contents = directory.read_contents(model_dir, rounded=True)
    about = _about(model_dir, vocab=model_dir)
    return Source(model_dir, arch, params, unused=contents.unused, **about)


def _packed(pack_dir: Path, base: Path | None) -> Source:
    if base is None:
        raise ValueError(f"{pack_dir} is a pack; give the model that it was trained from: --base.")
    arch, params = packs.Base.open(base).params(pack_dir)
    about = _about(pack_dir, vocab=base)
    return Source(pack_dir, arch, jax.device_get(params), unused={}, **about)


def _about(folder: Path, *, vocab: Path) -> dict[str, Any]:
    path, noted = vocab / directory.VOCAB, manifest.read(folder)
    about: dict[str, Any] = {"vocab": path if path.is_file() else None}
    if noted is None:
        return about | {"provenance": read_provenance(folder)}
    names = ("provenance", "license", "scores", "calibration")
    return about | {name: getattr(noted, name) for name in names}


def read_provenance(folder: Path) -> dict[str, Any]:
    """Of a model directory or a pack without a manifest."""
    if packs.is_pack(folder):
        return packs.read(folder).provenance
    return directory.read_provenance(folder)

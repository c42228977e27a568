"""A pack: what training changed in a model, small enough to hand on alone; its base stays at home.

    pack.json          architecture, hash of the base's part of the model, where it was trained
    pack.safetensors   parameters that differ from the base, by their dotted paths, float32
    manifest.json      see `dit_jax.weights.manifest`

With frozen encoders these are the projections, the decoder and little else. A pack is bound to
every tensor that it takes from its base, and to the vocabulary: on exactly those it gives the whole
model back, bit for bit. One base on a device carries one pack after another:

    base = packs.Base.open("models/start")
    model = base.with_pack("packs/street")

Models of one architecture have parameters of the same shapes, so a jitted function of them is not
compiled anew.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dit_jax import vocabulary
from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Architecture, from_json, to_json
from dit_jax.models.dit_sam import DitSam
from dit_jax.models.params import Params
from dit_jax.weights import directory, manifest
from dit_jax.weights.directory import VOCAB, Contents, atomic_folder, read_parameters, write_tensors

FORMAT = 1
CONFIG, WEIGHTS = "pack.json", "pack.safetensors"
NEW = ("image_encoder.injector.", "image_encoder.prob_text.")  # of DIT, inside SAM's encoder
ENCODERS = ("image_encoder.", "text_encoder.")

Digests = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Pack:
    """A pack's contents; `base` is the hash that its base must have."""

    arch: Architecture
    tensors: dict[str, np.ndarray]
    base: str
    provenance: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Base:
    """A model on the device, hashed once: taking on a pack is no more than reading it."""

    folder: Path
    tensors: dict[str, jax.Array]
    digests: Digests  # of every tensor, and of the vocabulary

    @staticmethod
    def open(model_dir: Path | str) -> "Base":
        """Raises as `directory.read_contents` does."""
        contents = directory.read_contents(model_dir)
        if contents.architecture is not None:
            params_lib.structure(contents.architecture)  # traced once, before a pack is waited for
        tensors = {path: jnp.asarray(value) for path, value in contents.tensors.items()}
        return Base(Path(model_dir), tensors, digests(contents, Path(model_dir)))

    def params(self, pack_dir: Path | str) -> tuple[Architecture, Params]:
        """Architecture and parameters of the whole model.

        Raises ValueError where this is not the base that the pack was made for.
        """
        pack = read(pack_dir)
        here = self.tensors.keys() | pack.tensors.keys()
        claimed = directory.depths(pack.arch)
        if any(depth > directory.layers(here, at) for at, depth in claimed.items()):
            raise self._refused(pack_dir, pack)  # before as many layers are built as it claims
        expected = params_lib.flatten(params_lib.structure(pack.arch)[1])
        shared = [path for path in expected if path not in pack.tensors]
        if binding(self.digests, shared) != pack.base:
            raise self._refused(pack_dir, pack)
        flat = {path: self.tensors[path] for path in shared if path in self.tensors}
        flat |= {path: jnp.asarray(value) for path, value in pack.tensors.items()}
        directory.check(flat, expected, source=str(Path(pack_dir) / WEIGHTS))
        return pack.arch, params_lib.unflatten(flat)

    def _refused(self, pack_dir: Path | str, pack: Pack) -> ValueError:
        name = pack.provenance.get("base", "another model")
        return ValueError(
            f"{self.folder} is not the base of {pack_dir}: expected the encoders and vocabulary of"
            f" {name}, hash {pack.base[:12]}…."
        )

    def with_pack(self, pack_dir: Path | str) -> DitSam:
        """The whole model, in evaluation mode."""
        arch, params = self.params(pack_dir)
        return params_lib.merge(params_lib.structure(arch)[0], params)


def save(model_dir: Path | str, base_dir: Path | str, out: Path | str) -> Pack:
    """Writes what tells `model_dir` from `base_dir` as a pack; raises as `make` does, and
    FileExistsError if `out` holds anything."""
    noted = manifest.read(Path(model_dir))
    names = ("license", "scores", "calibration")
    known = {} if noted is None else {name: getattr(noted, name) for name in names}
    with atomic_folder(Path(out)) as folder:
        pack = make(model_dir, base_dir)
        write(pack, folder)
        manifest.write(folder, provenance=pack.provenance, **known)
    return pack


def make(model_dir: Path | str, base_dir: Path | str) -> Pack:
    """The pack that makes the model of `model_dir` of `base_dir`.

    Raises ValueError where the two share no encoder, differ in vocabulary, or differ in nothing.
    """
    model, base = (directory.read_contents(folder) for folder in (model_dir, base_dir))
    if model.architecture is None:
        raise ValueError(f"{model_dir} holds only a text encoder; expected a whole model.")
    theirs, ours = digests(base, Path(base_dir)), digests(model, Path(model_dir))
    own = {path: value for path, value in model.tensors.items() if theirs.get(path) != ours[path]}
    check_trained_from(own, base_dir=base_dir, model_dir=model_dir)
    if theirs.get(VOCAB) != ours.get(VOCAB):
        raise ValueError(
            f"{model_dir} and {base_dir} have different vocabularies: {VOCAB}, or how"
            f" {vocabulary.CONFIG} spells texts."
        )
    provenance = {**model.provenance, "base": Path(base_dir).name}
    shared = model.tensors.keys() - own.keys()
    return Pack(model.architecture, own, binding(theirs, shared), provenance)


def write(pack: Pack, folder: Path) -> None:
    """Writes `pack.json` and `pack.safetensors` into a folder."""
    config = {
        "format": FORMAT,
        "architecture": to_json(pack.arch),
        "base": pack.base,
        "provenance": pack.provenance,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_tensors(folder / WEIGHTS, pack.tensors)


def check_trained_from(
    own: dict[str, np.ndarray], *, base_dir: Path | str, model_dir: Path | str
) -> None:
    """Raises ValueError unless a whole encoder of the model is the base's, and something is not."""
    if not own:
        raise ValueError(
            f"{model_dir} is {base_dir}: no parameter differs, so nothing was trained."
        )
    changed = {
        encoder
        for encoder in ENCODERS
        if any(path.startswith(encoder) and not path.startswith(NEW) for path in own)
    }
    if changed == set(ENCODERS):
        raise ValueError(
            f"{model_dir} shares no encoder with {base_dir}; expected the model that it was trained"
            " from, with frozen encoders (model.freeze)."
        )


def read(pack_dir: Path | str) -> Pack:
    """Raises FileNotFoundError or ValueError in one sentence."""
    folder = Path(pack_dir)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is no pack: it has no {name}.")
    manifest.verify(folder)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{folder / CONFIG} is not JSON: {error}.") from error
    kinds = {"architecture": dict, "base": str, "provenance": dict}
    if (
        not isinstance(config, dict)
        or config.get("format") != FORMAT
        or not all(isinstance(config.get(key), kind) for key, kind in kinds.items())
    ):
        raise ValueError(f"{folder / CONFIG} describes no pack of format {FORMAT}.")
    arch = from_json(config["architecture"])
    return Pack(arch, read_parameters(folder / WEIGHTS), config["base"], config["provenance"])


def is_pack(folder: Path | str) -> bool:
    return (Path(folder) / CONFIG).is_file()


def digests(contents: Contents, folder: Path) -> Digests:
    """Hashes of a directory's tensors (shapes, values) and of its vocabulary, if it has one.

    With the latter, how texts are spelled, where that is not in lower case.
    """
    found = {path: _digest(value) for path, value in contents.tensors.items()}
    vocab = folder / VOCAB
    if not vocab.is_file():
        return found
    spelling = vocabulary.read(vocab).spelling
    usual = spelling == vocabulary.Spelling()
    return found | {VOCAB: manifest.sha256(vocab) + ("" if usual else f" {spelling}")}


def binding(of: Digests, shared: Any) -> str:
    """One hash of the shared tensors and the vocabulary; one that is missing counts as such."""
    lines = [f"{name} {of.get(name)}\n" for name in sorted({*shared, VOCAB})]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _digest(value: np.ndarray) -> str:
    digest = hashlib.sha256(f"{value.dtype} {list(value.shape)} ".encode())
    digest.update(np.ascontiguousarray(value))
    return digest.hexdigest()

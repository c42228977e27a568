"""The model directory: what a trained or converted model is on disk.

    config.json          architecture and where the weights came from
    model.safetensors    every parameter by its dotted path, float32; float16 is read as float32;
                         of a model for asking alone, int8 with its scales (`dit_jax.models.int8`)
    vocab.txt            WordPiece vocabulary (absent from plain SAM and a BERT without one)
    tokenizer_config.json  whether its texts keep case and accents
    unused.safetensors   tensors of a converted checkpoint that the model never reads, for `reverse`
    manifest.json        size and SHA-256 of the files above: see `dit_jax.weights.manifest`

A directory is written whole or not at all, and read only if it is what its manifest says.
"""

import contextlib
import dataclasses
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dit_jax import storage, vocabulary
from dit_jax.lease import Lease
from dit_jax.models import initial, int8
from dit_jax.models import params as params_lib
from dit_jax.models.architecture import (
    Architecture,
    Bert,
    bert_from_json,
    from_json,
    to_json,
)
from dit_jax.models.dit_sam import DitSam
from dit_jax.models.params import Params
from dit_jax.strict import few, printed
from dit_jax.vocabulary import VOCAB
from dit_jax.weights import hub, manifest

FORMAT = 1
STORED = ("F32", "F16", "I64", "I8")  # as safetensors calls them; I64 are never parameters
PRESENCE_HEAD = "mask_decoder.presence_head."
CONFIG, WEIGHTS, UNUSED = "config.json", "model.safetensors", "unused.safetensors"


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a directory holds: a whole model, or only a text encoder (`architecture` None)."""

    architecture: Architecture | None
    bert: Bert | None
    tensors: dict[str, np.ndarray]  # dotted path → value
    unused: dict[str, np.ndarray]  # name in the source checkpoint → value
    provenance: dict[str, Any]


def save(
    out_dir: Path | str,
    arch: Architecture,
    params: Params,
    *,
    vocab: Path | str | None = None,
    unused: dict[str, np.ndarray] | None = None,
    provenance: dict[str, Any] | None = None,
    license: str | None = None,
    scores: manifest.Scores | None = None,
    half: bool = False,
    overwrite: bool = False,
) -> None:
    """Writes a model directory.

    Args:
      license, scores: what its manifest says of them, where they are known.
      half: float16, in half the space.

    Raises FileExistsError if `out_dir` holds anything and `overwrite` is False.
    """
    config = {"kind": "dit_sam", "architecture": to_json(arch)}
    tensors = params_lib.flatten(params)
    about = {"provenance": provenance or {}, "license": license, "scores": scores}
    _write(out_dir, config, tensors, vocab, unused, about, half, overwrite)


def save_text_encoder(
    out_dir: Path | str,
    bert: Bert,
    tensors: dict[str, np.ndarray],
    *,
    vocab: Path | str | None = None,
    unused: dict[str, np.ndarray] | None = None,
    provenance: dict[str, Any] | None = None,
    license: str | None = None,
    half: bool = False,
    overwrite: bool = False,
) -> None:
    """Writes a directory that holds only `text_encoder.*`: a part to assemble a model from."""
    config = {"kind": "text_encoder", "bert": dataclasses.asdict(bert)}
    about = {"provenance": provenance or {}, "license": license}
    _write(out_dir, config, tensors, vocab, unused, about, half, overwrite)


def _write(out_dir, config, tensors, vocab, unused, about, half, overwrite) -> None:
    host = jax.device_get(tensors)
    if half:
        host = {name: value.astype(np.float16) for name, value in host.items()}
    with atomic_folder(Path(out_dir), overwrite=overwrite) as folder:
        config = {"format": FORMAT, **config, "provenance": about["provenance"]}
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        write_tensors(folder / WEIGHTS, int8.apart(host))
        if unused:
            write_tensors(folder / UNUSED, unused)
        if vocab is not None:
            vocabulary.write(Path(vocab), folder)
        manifest.write(folder, **about)


@contextlib.contextmanager
def atomic_folder(out_dir: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside `out_dir` that becomes `out_dir` if the block succeeds.

    What was there before is renamed aside until then, so that at every moment one of them is
    whole; `tidy` puts it back after a kill. Of a link, all of this happens where it points. Raises
    OSError where another process writes `out_dir`.
    """
    out_dir = Path(os.path.realpath(out_dir))
    if Path.cwd().is_relative_to(out_dir):
        raise ValueError(
            f"{out_dir} is where you are; name another folder to write the model into."
        )
    with Lease(out_dir.parent, purpose=f"writing {out_dir.name}", name=f".{out_dir.name}.lease"):
        tidy(out_dir)
        yield from _replaced(out_dir, overwrite=overwrite)
        storage.push(out_dir)


def _replaced(out_dir: Path, *, overwrite: bool) -> Iterator[Path]:
    if out_dir.exists() and not out_dir.is_dir():
        raise FileExistsError(f"{out_dir} is a file; expected a folder to write the model into.")
    if out_dir.is_dir() and any(out_dir.iterdir()) and not overwrite:
        raise FileExistsError(f"{out_dir} is not empty; choose another folder or remove it first.")
    folder = out_dir.with_name(f".{out_dir.name}-{secrets.token_hex(4)}")
    folder.mkdir()  # for whom the umask says; `tempfile` would make it for its owner alone
    try:
        yield folder
        before = _before(out_dir)
        if out_dir.exists():
            out_dir.rename(before)
        try:
            folder.rename(out_dir)
        except OSError:
            if before.exists():
                before.rename(out_dir)
            raise
        shutil.rmtree(before, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _before(out_dir: Path) -> Path:
    """What `out_dir` held until it was replaced."""
    return out_dir.with_name(f".{out_dir.name}.before")


def tidy(out_dir: Path) -> None:
    """Remove what killed writers of `out_dir` left beside it, and put back what they moved aside.

    Only for who alone writes there.
    """
    out_dir = Path(os.path.realpath(out_dir))
    before = _before(out_dir)
    if before.is_dir() and not out_dir.exists():
        before.rename(out_dir)
    name, unique = re.escape(out_dir.name), "-[0-9a-f]{8}"
    # An export writes a model inside of its own unfinished folder, under a lease of its own.
    unfinished = re.compile(rf"\.{name}{unique}|\.\.{name}{unique}({unique}|\.lease)")
    beside = out_dir.parent.iterdir() if out_dir.parent.is_dir() else ()
    for left in [before, *(path for path in beside if unfinished.fullmatch(path.name))]:
        if left.is_file() or left.is_symlink():  # as links were once renamed
            left.unlink()
        shutil.rmtree(left, ignore_errors=True)


def read_contents(model_dir: Path | str, *, rounded: bool = False) -> Contents:
    """Reads a directory's files; raises FileNotFoundError or ValueError in one sentence.

    A file that differs from the manifest is such an error: a flipped bit is no model. So are int8
    weights, unless they may be `rounded`.
    """
    folder = Path(model_dir)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            why = f"it has no {name}" if folder.is_dir() else "it is a file"
            why = why if folder.exists() else "it is not there"
            raise FileNotFoundError(f"{folder} is no model directory: {why}.{_meant(folder)}")
    manifest.verify(folder)
    config = _config(folder / CONFIG)
    unused = folder / UNUSED
    whole = config["kind"] == "dit_sam"
    arch = from_json(config["architecture"]) if whole else None
    if arch is not None and arch.weights == "int8" and not rounded:
        raise ValueError(
            f"{folder} holds int8 weights, which answer questions but are not trained, converted or"
            " packed; expected the model that they were rounded from."
        )
    return Contents(
        architecture=arch,
        bert=None if whole else bert_from_json(config["bert"]),
        tensors=int8.together(read_parameters(folder / WEIGHTS)),
        unused=read_tensors(unused) if unused.is_file() else {},
        provenance=config.get("provenance", {}),
    )


def _meant(folder: Path) -> str:
    """Which model directory lies in, around or beside what is none."""
    if _before(folder).is_dir() and not folder.exists():
        return f" Whoever wrote it was killed; {_before(folder)} is what was there: rename it."
    if storage.origin(folder):
        return ""
    around = [Path(os.path.abspath(folder)), *Path(os.path.abspath(folder)).parents][:4]
    for near in (path for place in around for path in (place / "model", place)):
        if all((near / name).is_file() for name in (CONFIG, WEIGHTS)):
            return f" Did you mean {near}?"
    return ""


def read_text_encoder(model_dir: Path | str) -> Bert:
    """What the text encoder of a directory is, without its parameters."""
    config = _config(Path(model_dir) / CONFIG)
    if config["kind"] == "text_encoder":
        return bert_from_json(config["bert"])
    bert = from_json(config["architecture"]).bert
    if bert is None:
        raise ValueError(f"{model_dir} is plain SAM; expected a model with a text encoder.")
    return bert


def read_provenance(model_dir: Path | str) -> dict[str, Any]:
    """Where a directory's parameters come from, as `save` was told."""
    return _config(Path(model_dir) / CONFIG).get("provenance", {})


def read(model_dir: Path | str) -> tuple[Architecture, Params]:
    """Architecture and parameters (NumPy, float32 or int8), every one checked against the
    architecture."""
    contents = read_contents(model_dir, rounded=True)
    if contents.architecture is None:
        raise ValueError(f"{model_dir} holds only a text encoder; expected a whole model.")
    source = str(Path(model_dir) / WEIGHTS)
    check_depths(contents.architecture, contents.tensors, source=source)
    _, expected = params_lib.structure(contents.architecture)
    check(contents.tensors, params_lib.flatten(expected), source=source)
    return contents.architecture, params_lib.unflatten(contents.tensors)


def with_presence(contents: Contents, *, seed: int) -> Contents:
    """The same whole model, able to say "nothing": a presence head that it lacks starts fresh."""
    if contents.architecture.presence:
        return contents
    arch = dataclasses.replace(contents.architecture, presence=True)
    flat = params_lib.flatten(params_lib.structure(arch)[1])
    head = {p: leaf.shape for p, leaf in flat.items() if p.startswith(PRESENCE_HEAD)}
    tensors = contents.tensors | initial.draw(arch, head, seed=seed)
    return dataclasses.replace(contents, architecture=arch, tensors=tensors)


def load(model_dir: Path | str) -> DitSam:
    """The model of a directory, or of `hf://org/name`, in evaluation mode."""
    arch, params = read(hub.local(model_dir))
    graph, _ = params_lib.structure(arch)
    return params_lib.merge(graph, jax.tree.map(jax.numpy.asarray, params))


def vocab_path(model_dir: Path | str) -> Path:
    """The directory's vocabulary; raises FileNotFoundError where there is none."""
    path = Path(model_dir) / VOCAB
    if not path.is_file():
        raise FileNotFoundError(
            f"{model_dir} has no {VOCAB}; copy the vocabulary of its text encoder there."
        )
    return path


def check_depths(arch: Architecture, tensors: dict[str, np.ndarray], *, source: str) -> None:
    """Raises ValueError where the file has other numbers of layers than the architecture says.

    `check` would find it too, after building the structure of as many layers as a file claims.
    """
    for prefix, depth in depths(arch).items():
        if (found := layers(tensors, prefix)) != depth:
            raise ValueError(
                f"{source} does not fit the model: it has {found} of {prefix}*, and {CONFIG} says"
                f" {depth}."
            )


def depths(arch: Architecture) -> dict[str, int]:
    """How many layers an architecture claims, by what their parameters' paths begin with."""
    return {
        "image_encoder.blocks.": arch.vit.depth,
        "mask_decoder.transformer.layers.": arch.decoder_depth,
        "text_encoder.layer.": 0 if arch.bert is None else arch.bert.depth,
    }


def layers(paths: Iterable[str], prefix: str) -> int:
    """Of how many layers there are parameters."""
    return len({p[len(prefix) :].split(".")[0] for p in paths if p.startswith(prefix)})


def check(tensors: dict[str, Any], expected: dict[str, Any], *, source: str) -> None:
    """Raises ValueError listing every missing or unexpected tensor, and other shapes and types."""
    tensors, expected = int8.apart(tensors), int8.apart(expected)
    missing = sorted(expected.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - expected.keys())
    both = [(name, tensors[name], expected[name]) for name in sorted(expected) if name in tensors]
    shapes = [f"{n} {list(v.shape)} ≠ {list(e.shape)}" for n, v, e in both if v.shape != e.shape]
    types = [f"{name} {v.dtype} ≠ {e.dtype}" for name, v, e in both if v.dtype != e.dtype]
    problems = {"missing": missing, "unexpected": unexpected}
    problems |= {"of another shape": shapes, "of another type": types}
    if any(problems.values()):
        listed = "; ".join(f"{k}: {few(v)}" for k, v in problems.items() if v)
        raise ValueError(f"{source} does not fit the model: {listed}.")


def _config(path: Path) -> dict:
    try:
        config = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}.") from error
    kinds = {"dit_sam": "architecture", "text_encoder": "bert"}
    kind = config.get("kind") if isinstance(config, dict) else None
    known = isinstance(kind, str) and kind in kinds and kinds[kind] in config
    noted = isinstance(config, dict) and isinstance(config.get("provenance", {}), dict)
    if not known or not noted or config.get("format") != FORMAT:
        raise ValueError(f"{path} is no model configuration of format {FORMAT}.")
    return config


def read_parameters(path: Path) -> dict[str, np.ndarray]:
    """`read_tensors`, of which every number is one: ValueError for NaN and infinity."""
    tensors = read_tensors(path)
    if odd := [printed(name) for name, value in tensors.items() if not np.isfinite(value).all()]:
        raise ValueError(f"{path} holds NaN or infinity in {few(odd)}; expected finite numbers.")
    return tensors


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file that `write_tensors` wrote.

    Raises ValueError where it is not whole, or holds other numbers than those that are written.
    """
    try:
        with safe_open(path, framework="np") as file:
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            odd = [f"{printed(n)} {kind}" for n, kind in kinds.items() if kind not in STORED]
            if odd:
                raise ValueError(f"{path} holds {few(odd)}; expected {' or '.join(STORED)}.")
            found = file.get_tensors()
        half = [name for name, kind in kinds.items() if kind == "F16"]
        return found | {name: found[name].astype(np.float32) for name in half}
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file: {printed(str(error))}.") from error


def write_tensors(
    path: Path, tensors: dict[str, np.ndarray], *, metadata: dict[str, str] | None = None
) -> None:
    """A safetensors file, for whom the umask says: safetensors 0.8 makes it for its owner alone.

    Raises OSError where it cannot be written.
    """
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file({n: np.ascontiguousarray(v) for n, v in tensors.items()}, path, metadata)
    except SafetensorError as error:  # a full disk
        raise OSError(f"{path} could not be written: {error}.") from error
    path.chmod(mode)

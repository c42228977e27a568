"""Which files hold a model's weights, and what is in one: tensors in nested dicts, nothing else.

A source is a file, or a folder as Hugging Face writes it: whole or in shards, safetensors or
pickled. What a file is, its first bytes say, whatever it is called.
"""

import json
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize, safe_open

from dit_jax.convert import inert
from dit_jax.strict import few, printed

WHOLE = ("model.safetensors", "pytorch_model.bin")  # as Hugging Face names them, best first
INDICES = tuple(f"{name}.index.json" for name in WHOLE)
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(\.\w+)")
TRAINERS = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state.*)\.\w+")
OURS = "kind"  # a key of a model directory's config.json; Hugging Face writes a config.json too

NOT_WEIGHTS = (  # first bytes → what the file is, and what to do
    (rb"version https://git-lfs", "a git-lfs pointer and not the file itself: run `git lfs pull`"),
    (rb"\s*(<!doctype|<html|<\?xml|<head)", "a web page: the download went wrong"),
    (rb"\s*[\{\[]", "JSON, not weights: the download went wrong, or another file is meant"),
    (rb"\x89HDF", "an HDF5 file of TensorFlow or Keras; expected PyTorch's or safetensors"),
    (rb"\x08.{,3}\x12?.?pytorch", "an ONNX program; expected PyTorch's weights or safetensors"),
    (rb"GGUF", "a GGUF file; expected PyTorch's weights or safetensors"),
    (rb"\x1f\x8b|7z|Rar!|BZh|\xfd7zXZ", "a compressed archive: unpack it first"),
)


def locate(source: Path) -> tuple[Path, ...]:
    """The file or the shards that a file or folder stands for.

    Raises FileNotFoundError, or ValueError where a folder leaves it open.
    """
    if source.is_dir():
        return _inside(source)
    if source.with_name(f"{source.name}.index").is_file():
        raise ValueError(f"{source} is a checkpoint of TensorFlow; expected PyTorch's weights.")
    if not source.is_file():
        raise FileNotFoundError(f"no such checkpoint: {source}.")
    if source.name.endswith(".index.json"):
        return _shards(source)
    part = SHARD.fullmatch(source.name)
    if part and (index := source.with_name(f"{part[1]}{part[2]}.index.json")).is_file():
        return _shards(index)
    return (source,)


def is_ours(folder: Path) -> bool:
    """Whether a folder is a model directory of dit_jax; raises ValueError where its `config.json`
    is no JSON."""
    config = folder / "config.json"
    if not config.is_file():
        return False
    try:
        values = json.loads(config.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{config} is not JSON: {error}.") from error
    return isinstance(values, dict) and OURS in values


def _inside(folder: Path) -> tuple[Path, ...]:
    if is_ours(folder):
        raise ValueError(f"{folder} is a model directory already; expected other people's weights.")
    for whole, index in zip(WHOLE, INDICES, strict=True):
        if (folder / whole).is_file():
            return (folder / whole,)
        if (folder / index).is_file():
            return _shards(folder / index)
    found = sorted(
        path
        for path in folder.iterdir()
        if path.suffix in SUFFIXES and path.is_file() and not TRAINERS.fullmatch(path.name)
    )
    if len(found) == 1:
        return (found[0],)
    if found:
        names = ", ".join(path.name for path in found[:5])
        raise ValueError(f"{folder} holds several files of weights ({names}); name one of them.")
    raise FileNotFoundError(
        f"{folder} holds no weights: expected {' or '.join(WHOLE)}, or one file that ends in"
        f" {', '.join(SUFFIXES)}."
    )


def _shards(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{index} is no index of shards: it has no weight_map.") from error
    if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
        raise ValueError(f"{index} is no index of shards: it must name files of its own folder.")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        listed = few(list(map(printed, missing)))
        raise FileNotFoundError(
            f"{index.parent} lacks {len(missing)} of {len(names)} shards: {listed}."
        )
    return tuple(index.parent / name for name in names)


def read(source: Path) -> Any:
    """What a file, or all shards of a folder, hold: nested dicts with tensors as leaves.

    Raises ValueError for a file that is no checkpoint, is cut short or holds anything but data.
    """
    files = locate(source)
    contents = [_read(file) for file in files]
    if len(contents) == 1:
        return contents[0]
    joined: dict[str, Any] = {}
    for file, content in zip(files, contents, strict=True):
        if not isinstance(content, dict) or joined.keys() & content.keys():
            raise ValueError(f"{file} is no shard of {source}: it repeats what another one holds.")
        joined |= content
    return joined


def _read(file: Path) -> Any:
    with file.open("rb") as opened:
        start = opened.read(200)
    if not start:
        raise ValueError(f"{file} is empty: the download or copy went wrong.")
    if len(start) > 8 and start[8:9] == b"{":
        return _safetensors(file)
    for pattern, what in NOT_WEIGHTS:
        if re.match(pattern, start, re.IGNORECASE | re.DOTALL):
            raise ValueError(f"{file} is {what}.")
    if what := _other_archive(file):
        raise ValueError(f"{file} is {what}.")
    return _safetensors(file) if file.suffix == ".safetensors" else _pickled(file)


def _other_archive(file: Path) -> str | None:
    """What a zip file is that holds no state dict of PyTorch, which is one too."""
    try:
        if not zipfile.is_zipfile(file):
            return None
        with zipfile.ZipFile(file) as archive:
            names = {Path(name).name for name in archive.namelist()}
    except Exception as error:  # on damaged files its reader fails in every way
        raise ValueError(f"{file} is a damaged zip archive, or one that is cut short.") from error
    if "constants.pkl" in names:
        return "a TorchScript program: save the state_dict() of its model"
    if any(name.endswith(".npy") for name in names):
        return "NumPy's .npz; expected PyTorch's weights or safetensors"
    return None if "data.pkl" in names else "a zip archive of files: unpack it first"


def _pickled(file: Path) -> Any:
    torch = require_torch()
    try:
        with inert.admitted(torch):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{file} cannot be read: {_refusal(error)}.") from error
    except Exception as error:  # on damaged files its reader fails in every way
        reason = "it is not a PyTorch checkpoint or is cut short"
        raise ValueError(f"{file} cannot be read: {reason}.") from error


def _safetensors(file: Path) -> dict[str, np.ndarray]:
    try:
        with safe_open(file, framework="np") as opened:
            kinds = {n: opened.get_slice(n).get_dtype() for n in opened.keys()}  # noqa: SIM118
            if "BF16" not in kinds.values():
                _check_kinds(file, kinds)
                return {name: opened.get_tensor(name) for name in kinds}
        _check_kinds(file, kinds)
        return {name: _numbers(tensor) for name, tensor in deserialize(file.read_bytes())}
    except SafetensorError as error:
        raise ValueError(f"{file} is no whole safetensors file: {error}.") from error


NUMPY = {"F16": "f2", "F32": "f4", "F64": "f8", "BF16": "u2", "BOOL": "?"} | {
    f"{sign}{8 * size}": f"{sign.lower()}{size}" for sign in "IU" for size in (1, 2, 4, 8)
}


def _check_kinds(file: Path, kinds: dict[str, str]) -> None:
    for name, kind in kinds.items():
        if kind not in NUMPY:
            raise ValueError(
                f"{file}: {name} is of type {kind}; expected numbers of 16, 32 or 64 bits."
            )


def _numbers(tensor: dict[str, Any]) -> np.ndarray:
    """A tensor of `deserialize`; NumPy has no bfloat16, which is the upper half of a float32."""
    value = np.frombuffer(tensor["data"], f"<{NUMPY[tensor['dtype']]}").reshape(tensor["shape"])
    if tensor["dtype"] == "BF16":
        value = (value.astype(np.uint32) << 16).view(np.float32)
    return value


def require_torch():
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "PyTorch checkpoints need PyTorch: pip install 'dit_jax[convert]'."
        ) from error
    return torch


def _refusal(error: pickle.UnpicklingError) -> str:
    """Why a pickle was refused; PyTorch's own text advises to run it."""
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    if named:
        return f"it holds more than data and would run {named[1]}"
    return "it is not a PyTorch checkpoint or holds more than data"

"""Reading and writing checkpoint files: PyTorch's `.pth` / `.bin` and safetensors.

Nothing a file contains is executed: `torch.load(weights_only=True)` admits tensors, containers and
numbers (NumPy's too, which schedulers leave in training checkpoints) and refuses all else.
"""

import pickle
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

State = dict[str, np.ndarray]  # name in PyTorch → value, float32 or int64


def read(path: Path | str) -> State:
    """The tensors of a checkpoint, unwrapped from `{"state_dict": …}` and without `module.`.

    Raises FileNotFoundError, or ValueError for a file that is no checkpoint, is cut short or
    holds anything but data.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such checkpoint: {path}.")
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if not state:
        raise ValueError(f"{path} holds no tensors.")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def write(path: Path | str, state: State, *, wrap: bool = False) -> None:
    """Writes a state dict, inside `{"state_dict": …}` if `wrap`; whole or not at all."""
    torch = _torch()
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; expected a file to write.")
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: torch.from_numpy(value.copy()) for name, value in state.items()}
    partial = path.with_name(f".{path.name}.partial")
    try:
        torch.save({"state_dict": tensors} if wrap else tensors, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _read_torch(path: Path) -> State:
    torch = _torch()
    try:
        with torch.serialization.safe_globals(_numpy_scalars()), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickle protocols
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} cannot be read: {_refusal(error)}.") from error
    except (RuntimeError, EOFError, zipfile.BadZipFile, OSError, ValueError, KeyError) as error:
        reason = "it is not a PyTorch checkpoint or is cut short"
        raise ValueError(f"{path} cannot be read: {reason}.") from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected a state dict.")
    others = sorted(str(k) for k, v in content.items() if not isinstance(v, torch.Tensor))
    if others:
        raise ValueError(f"{path} holds no state dict: {', '.join(others[:5])} are not tensors.")
    return {name: _array(value, torch) for name, value in content.items()}


def _read_safetensors(path: Path) -> State:
    # bfloat16 is unknown to NumPy, so half-precision files go through PyTorch.
    try:
        with safe_open(path, framework="np") as file:
            kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            if kinds <= {"F32", "F64", "I64", "I32"}:
                return {n: _numbers(file.get_tensor(n)) for n in file.keys()}  # noqa: SIM118
        torch = _torch()
        with safe_open(path, framework="pt") as file:
            return {n: _array(file.get_tensor(n), torch) for n in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file: {error}.") from error


def _array(tensor, torch) -> np.ndarray:
    floating = tensor.is_floating_point()
    return tensor.detach().to(torch.float32 if floating else torch.int64).numpy()


def _numbers(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float32 if value.dtype.kind == "f" else np.int64, copy=False)


def _numpy_scalars() -> list:
    kinds = [type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")]
    scalar = np._core.multiarray.scalar
    return [(scalar, "numpy.core.multiarray.scalar"), scalar, np.dtype, *kinds]


def _torch():
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

"""Filling a model from a checkpoint, strictly both ways, and emptying it into one again.

Every parameter of the model is filled and every tensor of the checkpoint is used or ignored with a
reason (`names.IGNORED`); a failure lists both sides.
"""

import dataclasses

import numpy as np

from dit_jax.convert import layout, names
from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Architecture

State = dict[str, np.ndarray]
Flat = dict[str, np.ndarray]  # our dotted path → value in our axes


@dataclasses.dataclass(frozen=True)
class Filled:
    """Parameters in our layout, and the tensors nothing reads, under the checkpoint's names."""

    tensors: Flat
    unused: State


def fill(expected: dict, state: State, *, source: str) -> Filled:
    """Takes the parameters `expected` (path → anything with a shape) out of `state`.

    Raises ValueError naming every missing, unexpected and wrongly shaped tensor.
    """
    wanted = {path: layout.torch_name(path) for path in expected}
    unused = {n: v for n, v in state.items() if names.reason_to_ignore(n) is not None}
    missing = sorted(name for name in wanted.values() if name not in state)
    unexpected = sorted(state.keys() - set(wanted.values()) - unused.keys())
    tensors = {
        path: layout.from_torch(path, state[name]) for path, name in wanted.items() if name in state
    }
    shapes = [
        f"{wanted[path]} {list(value.shape)} ≠ {list(expected[path].shape)} (our axes)"
        for path, value in tensors.items()
        if value.shape != expected[path].shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    if any(problems.values()):
        listed = "; ".join(f"{k}: {', '.join(v)}" for k, v in problems.items() if v)
        raise ValueError(f"{source} does not fit the model it was taken for: {listed}.")
    return Filled(tensors, unused)


def targets(arch: Architecture, *prefixes: str) -> dict:
    """Abstract parameters by path, all of them or those below the given components."""
    flat = params_lib.flatten(params_lib.structure(arch)[1])
    return {path: v for path, v in flat.items() if not prefixes or path.startswith(prefixes)}


def to_state(tensors: Flat) -> State:
    """Our parameters under the released code's names and axes."""
    return {layout.torch_name(p): layout.to_torch(p, np.asarray(v)) for p, v in tensors.items()}

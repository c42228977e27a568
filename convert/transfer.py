"""Filling a model from a checkpoint, strictly both ways, and emptying it into one again.

Every parameter of the model is filled and every tensor of the checkpoint is used or ignored with a
reason (`names.IGNORED`); a failure lists both sides.
"""

import dataclasses

import numpy as np

from dit_jax.convert import layout, names
from dit_jax.convert.checkpoint import Checkpoint
from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Architecture, Bert, Injection, Vit
from dit_jax.strict import few, printed

State = dict[str, np.ndarray]
Flat = dict[str, np.ndarray]  # our dotted path → value in our axes


@dataclasses.dataclass(frozen=True)
class Filled:
    """Parameters in our layout, and the tensors nothing reads, under the released code's names."""

    tensors: Flat
    unused: State


def fill(expected: dict, found: Checkpoint) -> Filled:
    """Takes the parameters `expected` (path → anything with a shape) out of a checkpoint.

    Raises ValueError naming, as the file does, missing, unexpected and wrongly shaped tensors, and
    those that hold no finite numbers.
    """
    state, theirs = found.tensors, lambda name: printed(found.theirs(name))
    wanted = {path: layout.torch_name(path) for path in expected}
    unused = {n: v for n, v in state.items() if names.reason_to_ignore(n) is not None}
    missing = wanted.values() - state.keys()
    unexpected = state.keys() - set(wanted.values()) - unused.keys()
    tensors = {
        path: layout.from_torch(path, state[name]) for path, name in wanted.items() if name in state
    }
    shapes = [
        f"{theirs(wanted[path])} {list(value.shape)} ≠ {list(expected[path].shape)} (our axes)"
        for path, value in tensors.items()
        if value.shape != expected[path].shape
    ]
    odd = [p for p, v in tensors.items() if v.dtype != np.float32 or not np.isfinite(v).all()]
    problems = {
        "missing": sorted(map(theirs, missing)),
        "unexpected": sorted(map(theirs, unexpected)),
        "of another shape": shapes,
        "not finite real numbers": [theirs(wanted[path]) for path in odd],
    }
    if any(problems.values()):
        listed = "; ".join(f"{what}: {few(which)}" for what, which in problems.items() if which)
        raise ValueError(f"{found.source} does not fit the model it was taken for: {listed}.")
    return Filled(tensors, unused)


def targets(arch: Architecture, *prefixes: str) -> dict:
    """Abstract parameters by path, all of them or those below the given components."""
    flat = params_lib.flatten(params_lib.structure(arch)[1])
    return {path: v for path, v in flat.items() if not prefixes or path.startswith(prefixes)}


def text_targets(bert: Bert) -> dict:
    """As `targets`, of a text encoder alone; it has the same parameters in every model."""
    image = Vit(depth=1, width=16, heads=1, global_blocks=(0,), grid=1)
    arch = Architecture(image, bert, Injection.NONE, text_layer=bert.depth)
    return targets(arch, "text_encoder.")


def to_state(tensors: Flat) -> State:
    """Our parameters under the released code's names and axes."""
    return {layout.torch_name(p): layout.to_torch(p, np.asarray(v)) for p, v in tensors.items()}

"""What a step takes, as shapes, dtypes and places: enough to compile it, nothing is allocated."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from dit_jax import config as configs
from dit_jax.models import params as parameters
from dit_jax.models.architecture import Architecture
from dit_jax.train import state as states
from dit_jax.train.placement import sharding
from dit_jax.train.state import TrainState

Abstract = jax.ShapeDtypeStruct


def state(
    arch: Architecture,
    mesh: Mesh | AbstractMesh,
    *,
    freeze: tuple[str, ...],
    rules: configs.Optim,
) -> TrainState:
    """The state of a run."""
    # Neither the dtype of the arithmetic nor the batch changes it: one answer for many configs.
    arch = dataclasses.replace(arch, dtype="float32")
    rules = dataclasses.replace(rules, batch_size=1, accumulate=1)
    return _state(arch, freeze, rules, mesh)


@functools.lru_cache(maxsize=32)
def _state(
    arch: Architecture, freeze: tuple[str, ...], rules: configs.Optim, mesh: Mesh | AbstractMesh
) -> TrainState:
    make = functools.partial(states.create, freeze=freeze, rules=rules)
    shapes = jax.eval_shape(make, parameters.structure(arch)[1])
    places = sharding.shardings(shapes, mesh)
    return jax.tree.map(lambda x, at: Abstract(x.shape, x.dtype, sharding=at), shapes, places)


def batch(arch: Architecture, mesh: Mesh | AbstractMesh, *, rows: int) -> dict[str, Abstract]:
    """One batch, as `dit_jax.train.step.place_batch` makes it."""
    b, side, l = rows, arch.image_size, arch.text_tokens  # noqa: E741
    shapes = {
        "image": ((b, side, side, 3), jnp.uint8),
        "content": ((b, 4), jnp.int32),
        "input_ids": ((b, l), jnp.int32),
        "attention_mask": ((b, l), jnp.int32),
        "mask": ((b, side, side), jnp.uint8),
        "present": ((b,), jnp.bool_),
    }
    split = sharding.batch_sharding(mesh)
    return {key: Abstract(shape, kind, sharding=split) for key, (shape, kind) in shapes.items()}


def key(mesh: Mesh | AbstractMesh) -> Abstract:
    """The key of dropout."""
    made = jax.eval_shape(lambda: jax.random.key(0))
    return Abstract(made.shape, made.dtype, sharding=sharding.replicated(mesh))


def bytes_per_device(tree) -> int:
    """Of all leaves, as they are split over the mesh."""
    return sum(_bytes(leaf) for leaf in jax.tree.leaves(tree))


def _bytes(leaf: Abstract) -> int:
    shape = leaf.sharding.shard_shape(leaf.shape)
    return functools.reduce(int.__mul__, shape, 1) * leaf.dtype.itemsize

"""Parameters as plain nested dicts, and a model as a function of them.

`flax.nnx` defines modules; everything else (jit, gradients, optax, checkpoints, sharding) sees
dicts of arrays whose joined keys are the model's own attribute path, such as
`image_encoder.blocks.3.attn.qkv.kernel`.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from dit_jax.models import initial, int8
from dit_jax.models.architecture import Architecture
from dit_jax.models.dit_sam import DitSam
from dit_jax.models.layers import Linear, OneKey
from dit_jax.ops.linear import PRODUCTS

# Nested; keys are strings, leaves arrays, or `int8.Int8` of them (or jax.ShapeDtypeStruct).
Params = dict[str, Any]


def split(model: DitSam) -> tuple[nnx.GraphDef, Params]:
    """The model's structure, and its parameters as a nested dict."""
    graph, state = nnx.split(model, nnx.Param)
    return graph, unflatten({".".join(map(str, p)): v[...] for p, v in nnx.to_flat_state(state)})


def merge(graph: nnx.GraphDef, params: Params) -> DitSam:
    """Inverse of `split`; cheap, so it is called inside jitted functions.

    Weights that are int8 become float32 here, each just before it is read where that is compiled.
    """
    whole = {path: int8.whole(value) for path, value in flatten(params).items()}
    flat = {_nnx_path(path): nnx.Param(value) for path, value in whole.items()}
    return nnx.merge(graph, nnx.from_flat_state(flat))


@functools.lru_cache(maxsize=64)
def structure(arch: Architecture) -> tuple[nnx.GraphDef, Params]:
    """As `split(model)`, with shapes and dtypes for values; allocates nothing.

    The result is shared between calls: read it, do not change it.
    """
    abstract = nnx.eval_shape(lambda: DitSam(arch, rngs=OneKey()))
    for _, layer in nnx.iter_graph(abstract):
        if isinstance(layer, Linear) and arch.products and layer.precision is None:
            layer.precision = PRODUCTS[arch.products]
    graph, state = nnx.split(abstract, nnx.Param)
    flat = {".".join(map(str, p)): v.get_value() for p, v in nnx.to_flat_state(state)}
    if arch.weights == "int8":
        flat |= {p: int8.outline(flat[p].shape, channels=axis) for p, axis in int8.chosen(flat)}
    return graph, unflatten(flat)


def to_int8(arch: Architecture, params: Params) -> tuple[Architecture, Params]:
    """The same model with int8 weights, for asking only; params are NumPy arrays."""
    flat = flatten(to_float32(arch, params)[1])
    flat |= {path: int8.rounded(flat[path], channels=axis) for path, axis in int8.chosen(flat)}
    return dataclasses.replace(arch, weights="int8"), unflatten(flat)


def to_float32(arch: Architecture, params: Params) -> tuple[Architecture, Params]:
    """The same model, as rounded as it is, with float32 weights."""
    flat = {path: int8.whole(value) for path, value in flatten(params).items()}
    return dataclasses.replace(arch, weights="float32"), unflatten(flat)


def init(arch: Architecture, *, seed: int = 0) -> Params:
    """Fresh parameters (NumPy, float32): see `initial.py`."""
    shapes = {path: value.shape for path, value in flatten(structure(arch)[1]).items()}
    return unflatten(initial.draw(arch, shapes, seed=seed))


def build(arch: Architecture, *, seed: int = 0) -> DitSam:
    """A model with fresh parameters; the same seed gives the same ones."""
    return merge(structure(arch)[0], jax.tree.map(jnp.asarray, init(arch, seed=seed)))


def flatten(params: Params) -> dict[str, Any]:
    """`{"image_encoder.blocks.3.attn.qkv.kernel": array, …}` in sorted order of blocks."""
    return dict(_walk(params, ""))


def unflatten(flat: dict[str, Any]) -> Params:
    """Inverse of `flatten`."""
    nested: Params = {}
    for path, value in flat.items():
        *parents, leaf = path.split(".")
        node = nested
        for key in parents:
            node = node.setdefault(key, {})
        node[leaf] = value
    return nested


def _walk(node: Params, prefix: str) -> Iterator[tuple[str, Any]]:
    for key in sorted(node, key=lambda k: (0, int(k), "") if k.isdigit() else (1, 0, k)):
        path = f"{prefix}.{key}" if prefix else key
        if isinstance(node[key], dict):
            yield from _walk(node[key], path)
        else:
            yield path, node[key]


def _nnx_path(path: str) -> tuple[str | int, ...]:
    return tuple(int(key) if key.isdigit() else key for key in path.split("."))

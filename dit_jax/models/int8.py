"""Weights as int8 with a float32 scale for each output channel: a quarter of the bytes.

Symmetric: a channel's largest weight becomes ±127, and zero stays zero. What is kept is int8;
products are computed in floats, of weights that are made `whole` inside the program that reads
them.
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# What is kept as int8, and the axis of its output channels: matrices and convolutions, and of the
# table of word pieces each row. First match wins; the rest stays float32.
CHANNELS = (
    (r".*\.word_embeddings\.embedding", 0),
    (r".*\.output_upscaling\.conv\d\.kernel", 2),  # of a transposed convolution
    (r".*\.kernel", -1),
)
FEW = 2**14  # numbers of a weight that is not worth it
LARGEST = 127
SCALE = ".int8_scale"  # behind a weight's path, in a file


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Int8:
    """`values * scale` is the weight; `scale` is 1 long along all axes but the channels'."""

    values: Any
    scale: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def size(self) -> int:
        return self.values.size

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.scale.nbytes


def chosen(flat: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Paths of the weights that are kept as int8, and the axes of their output channels."""
    for path, weight in flat.items():
        axis = next((axis for pattern, axis in CHANNELS if re.fullmatch(pattern, path)), None)
        if axis is not None and weight.size >= FEW:
            yield path, axis


def rounded(weight: np.ndarray, *, channels: int) -> Int8:
    """The nearest of a float32 array, whose axis `channels` has the output channels."""
    others = tuple(axis for axis in range(weight.ndim) if axis != channels % weight.ndim)
    largest = np.abs(weight).max(axis=others, keepdims=True)
    scale = np.where(largest > 0, largest / np.float32(LARGEST), np.float32(1))
    return Int8(np.rint(weight / scale).astype(np.int8), scale)


def outline(shape: tuple[int, ...], *, channels: int) -> Int8:
    """Shapes and types of what `rounded` returns."""
    scale = [1] * len(shape)
    scale[channels] = shape[channels]
    return Int8(
        jax.ShapeDtypeStruct(shape, jnp.int8), jax.ShapeDtypeStruct(tuple(scale), jnp.float32)
    )


def whole(weight: Any) -> Any:
    """An `Int8` as float32; anything else as it is."""
    if not isinstance(weight, Int8):
        return weight
    return weight.values.astype(jnp.float32) * weight.scale


def apart(flat: dict[str, Any]) -> dict[str, Any]:
    """Values and scales under names of their own, as files have them."""
    found = {}
    for path, weight in flat.items():
        if isinstance(weight, Int8):
            found |= {path: weight.values, path + SCALE: weight.scale}
        else:
            found[path] = weight
    return found


def together(flat: dict[str, Any]) -> dict[str, Any]:
    """Inverse of `apart`."""
    found = {path: value for path, value in flat.items() if not path.endswith(SCALE)}
    scales = {path.removesuffix(SCALE): flat[path] for path in flat.keys() - found.keys()}
    return found | {path: Int8(found[path], scale) for path, scale in scales.items()}

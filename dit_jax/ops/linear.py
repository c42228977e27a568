"""x·W + b with a derivative written out.

Left to automatic differentiation, the weight's gradient is a transposed product for which XLA turns
an array in memory first: 345 ms instead of 291 for the four matrices of a ViT-B block on one core.

With `BFLOAT16` products are of numbers rounded to bfloat16 and summed in float32: what matrix units
of GPUs and TPUs are for, and those of CPUs with AVX512-BF16 or AMX. XLA for CPUs takes no notice of
such a wish, and only knows these products where the first array's rows and the second's columns or
rows are added up, so that both are said to it.

With `FP8` they are of numbers of 8 bits, summed in float32: activations and weights e4m3, gradients
e5m2 (Micikevicius et al., arXiv:2209.05433), each array multiplied first so that its largest number
is the largest there is. Hopper, Ada and later GPUs have units for it; elsewhere it only rounds.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jax.typing import DTypeLike
from jaxtyping import Float

from dit_jax.ops.arrays import Array
from dit_jax.ops.platform import platform

Precision = jax.lax.Precision
# Where a coordinate or a score is made. By default a TPU rounds the arguments of a float32 product
# to bfloat16, a GPU to TF32.
EXACT = Precision.HIGHEST
Preset = jax.lax.DotAlgorithmPreset
BFLOAT16 = Preset.BF16_BF16_F32
FP8 = Preset.ANY_F8_ANY_F8_F32
PRODUCTS = {"bfloat16": BFLOAT16, "fp8": FP8}  # of `model.products`


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def linear(
    x: Float[Array, "*b n"],
    kernel: Float[Array, "n out"],
    bias: Float[Array, " out"] | None,
    precision: Precision | Preset | None = None,
) -> Float[Array, "*b out"]:
    """Computed in x's type; gradients of kernel and bias are summed and returned in their own."""
    return _forward(x, kernel, bias, precision)[0]


def _forward(x, kernel, bias, precision):
    saved = x
    if precision == FP8:
        saved = quantized(x.reshape(-1, x.shape[-1]), jnp.float8_e4m3fn)
        y = _fp8_product(saved, quantized(kernel, jnp.float8_e4m3fn), (1, 0)).astype(x.dtype)
        y = y.reshape(*x.shape[:-1], -1)
    elif _rounds(x, precision):
        rows = _product(x.reshape(-1, x.shape[-1]), kernel, (1, 0))
        y = rows.reshape(*x.shape[:-1], -1)
    else:
        y = jnp.matmul(x, kernel.astype(x.dtype), precision=precision)
    if bias is not None:
        y = y + bias.astype(x.dtype).reshape((1,) * (y.ndim - 1) + bias.shape)
    return y, (saved, kernel, bias)


def _backward(precision, residuals, upstream):
    saved, kernel, bias = residuals
    g = upstream.reshape(-1, upstream.shape[-1])
    if precision == FP8:
        rounded = quantized(g, jnp.float8_e5m2)
        dx = _fp8_product(rounded, quantized(kernel, jnp.float8_e4m3fn), (1, 1)).astype(g.dtype)
        dkernel = _fp8_product(saved, rounded, (0, 0)).astype(kernel.dtype)
    else:
        dx, dkernel = _wide_gradients(saved.reshape(-1, saved.shape[-1]), kernel, g, precision)
    dbias = None if bias is None else g.sum(0, dtype=bias.dtype)
    return dx.reshape(*upstream.shape[:-1], -1), dkernel, dbias


def _wide_gradients(rows, kernel, g, precision):
    if _rounds(rows, precision):
        columns = with_layout_constraint(rows.T, Layout((0, 1)))
        return _product(g, kernel, (1, 1)), _product(columns, g, (1, 0)).astype(kernel.dtype)
    dx = jnp.matmul(g, kernel.astype(g.dtype).T, precision=precision)
    down = (((0,), (0,)), ((), ()))
    how = dict(precision=precision, preferred_element_type=kernel.dtype)
    return dx, jax.lax.dot_general(rows, g, down, **how)


def _rounds(x, precision) -> bool:
    """Whether this has to be done by hand."""
    return precision == BFLOAT16 and x.dtype == jnp.float32 and platform() == "cpu"


def _product(x, y, along):
    """Sums over these axes of two matrices, float32, of what is rounded to bfloat16."""
    return _summed(x.astype(jnp.bfloat16), y.astype(jnp.bfloat16), along)


class Quantized(NamedTuple):
    """An array of 8-bit numbers, and what all are to be multiplied with."""

    values: Array
    scale: Float[Array, ""]


def quantized(x: Float[Array, "..."], dtype: DTypeLike) -> Quantized:
    """x in 8 bits, scaled so that its largest number is the largest there is."""
    scale = jnp.abs(x).max().astype(jnp.float32) / float(jnp.finfo(dtype).max)
    scale = jnp.where(scale > 0, scale, 1.0)
    return Quantized((x.astype(jnp.float32) / scale).astype(dtype), scale)


def _fp8_product(x: Quantized, y: Quantized, along):
    """Sums over these axes of two matrices, float32."""
    return _summed(x.values, y.values, along) * (x.scale * y.scale)


def _summed(x, y, along):
    how = dict(preferred_element_type=jnp.float32)
    return jax.lax.dot_general(x, y, (tuple((axis,) for axis in along), ((), ())), **how)


linear.defvjp(_forward, _backward)

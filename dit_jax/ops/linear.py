"""x·W + b with a derivative written out.

Left to automatic differentiation, the weight's gradient is a transposed product for which XLA turns
an array in memory first: 345 ms instead of 291 for the four matrices of a ViT-B block on one core.

With `BFLOAT16` products are of numbers rounded to bfloat16 and summed in float32: what matrix units
of GPUs and TPUs are for, and those of CPUs with AVX512-BF16 or AMX. XLA for CPUs takes no notice of
such a wish, and only knows these products where the first array's rows and the second's columns or
rows are added up, so that both are said to it.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Float

from dit_jax.ops.arrays import Array
from dit_jax.ops.platform import platform

Precision = jax.lax.Precision
# Where a coordinate or a score is made. By default a TPU rounds the arguments of a float32 product
# to bfloat16, a GPU to TF32.
EXACT = Precision.HIGHEST
BFLOAT16 = jax.lax.DotAlgorithmPreset.BF16_BF16_F32


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def linear(
    x: Float[Array, "*b n"],
    kernel: Float[Array, "n out"],
    bias: Float[Array, " out"] | None,
    precision: Precision | jax.lax.DotAlgorithmPreset | None = None,
) -> Float[Array, "*b out"]:
    """Computed in x's type; gradients of kernel and bias are summed and returned in their own."""
    return _forward(x, kernel, bias, precision)[0]


def _forward(x, kernel, bias, precision):
    if _rounds(x, precision):
        rows = _product(x.reshape(-1, x.shape[-1]), kernel, (1, 0))
        y = rows.reshape(*x.shape[:-1], -1)
    else:
        y = jnp.matmul(x, kernel.astype(x.dtype), precision=precision)
    if bias is not None:
        y = y + bias.astype(x.dtype).reshape((1,) * (y.ndim - 1) + bias.shape)
    return y, (x, kernel, bias)


def _backward(precision, residuals, upstream):
    x, kernel, bias = residuals
    rows, g = (y.reshape(-1, y.shape[-1]) for y in (x, upstream))
    if _rounds(x, precision):
        dx = _product(g, kernel, (1, 1))
        columns = with_layout_constraint(rows.T, Layout((0, 1)))
        dkernel = _product(columns, g, (1, 0)).astype(kernel.dtype)
    else:
        dx = jnp.matmul(g, kernel.astype(g.dtype).T, precision=precision)
        down = (((0,), (0,)), ((), ()))
        how = dict(precision=precision, preferred_element_type=kernel.dtype)
        dkernel = jax.lax.dot_general(rows, g, down, **how)
    dbias = None if bias is None else g.sum(0, dtype=bias.dtype)
    return dx.reshape(x.shape), dkernel, dbias


def _rounds(x, precision) -> bool:
    """Whether this has to be done by hand."""
    return precision == BFLOAT16 and x.dtype == jnp.float32 and platform() == "cpu"


def _product(x, y, along):
    """Sums over these axes of two matrices, float32, of what is rounded to bfloat16."""
    x, y = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
    how = dict(preferred_element_type=jnp.float32)
    return jax.lax.dot_general(x, y, (tuple((axis,) for axis in along), ((), ())), **how)


linear.defvjp(_forward, _backward)

"""x·W + b with a derivative written out.

Left to automatic differentiation, the weight's gradient is a transposed product for which XLA turns
an array in memory first: 345 ms instead of 291 for the four matrices of a ViT-B block on one core.
"""

import jax
from jaxtyping import Float

from dit_jax.ops.arrays import Array


@jax.custom_vjp
def linear(
    x: Float[Array, "*b n"], kernel: Float[Array, "n out"], bias: Float[Array, " out"] | None
) -> Float[Array, "*b out"]:
    """Computed in x's type; gradients of kernel and bias are summed and returned in their own."""
    return _forward(x, kernel, bias)[0]


def _forward(x, kernel, bias):
    y = x @ kernel.astype(x.dtype)
    if bias is not None:
        y = y + bias.astype(x.dtype).reshape((1,) * (y.ndim - 1) + bias.shape)
    return y, (x, kernel, bias)


def _backward(residuals, upstream):
    x, kernel, bias = residuals
    rows, g = (y.reshape(-1, y.shape[-1]) for y in (x, upstream))
    dx = g @ kernel.astype(g.dtype).T
    down = (((0,), (0,)), ((), ()))
    dkernel = jax.lax.dot_general(rows, g, down, preferred_element_type=kernel.dtype)
    dbias = None if bias is None else g.sum(0, dtype=bias.dtype)
    return dx.reshape(x.shape), dkernel, dbias


linear.defvjp(_forward, _backward)

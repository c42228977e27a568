"""LayerNorm (Ba et al. 2016) with a derivative written out.

Left to automatic differentiation, XLA puts sums along rows into the middle of long loops, where a
CPU adds one number at a time: 3.7 ms instead of 0.4 for [1024, 768] on one core. Here they are
products with a vector.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from dit_jax.ops import norm_kernel, norm_mosaic
from dit_jax.ops.arrays import Array
from dit_jax.ops.kernel_check import kernel_fault, like, warn
from dit_jax.ops.mesh import shard_rows_and_heads
from dit_jax.ops.platform import Target, platform, target

# Of the backward pass on NVIDIA GPUs. Nobody has timed Mosaic's: only where Triton's is not there.
TRITON, MOSAIC = "triton", "mosaic"
KERNELS = {TRITON: norm_kernel.backward, MOSAIC: norm_mosaic.backward}


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(
    x: Float[Array, "*b d"], scale: Float[Array, " d"], bias: Float[Array, " d"], epsilon: float
) -> Float[Array, "*b d"]:
    """(x − mean) / √(variance + ε)·scale + bias over the last axis.

    Computed in float32, returned in x's type. Mean first, then the deviations' squares:
    E[x²] − E[x]² is off by 0.57 where the mean dwarfs the deviation.
    """
    return _forward(x, scale, bias, epsilon)[0]


def _forward(x, scale, bias, epsilon):
    wide = x.astype(jnp.float32).reshape(-1, x.shape[-1])
    centred = wide - wide.mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + epsilon)
    y = centred * (inverse * scale[None]) + bias[None]
    return y.reshape(x.shape).astype(x.dtype), (x, scale, wide.mean(-1, keepdims=True), inverse)


def _backward(epsilon, residuals, upstream):
    x, scale, mean, inverse = residuals
    wide, g = (y.astype(jnp.float32).reshape(-1, x.shape[-1]) for y in (x, upstream))
    normal = (wide - mean) * inverse
    along = _weighted_sum(g, scale) / x.shape[-1]
    across = _weighted_sum(g * normal, scale) / x.shape[-1]
    dx = inverse * (g * scale[None] - along - normal * across)
    return dx.reshape(x.shape).astype(x.dtype), (g * normal).sum(0), g.sum(0)


def _weighted_sum(x: jax.Array, weights: jax.Array) -> jax.Array:
    """[n, 1]: Σ x·weights of every row, as whatever is one pass on this device."""
    if platform() == "cpu":
        return (x @ weights)[:, None]
    return jnp.sum(x * weights[None], axis=-1, keepdims=True)


layer_norm.defvjp(_forward, _backward)


def with_skip(
    x: Float[Array, "*b d"], scale: Float[Array, " d"], bias: Float[Array, " d"], epsilon: float
) -> tuple[Float[Array, "*b d"], Float[Array, "*b d"]]:
    """x for the skip connection and `layer_norm` of x; one kernel adds their gradients."""
    # In this order: sizes of a program for other machines may not even be numbers.
    kernel = _kernel(x.shape[-1], str(x.dtype), target())
    if kernel and norm_kernel.fits(x.shape):
        return with_kernel(x, scale, bias, epsilon, kernel)
    return x, layer_norm(x, scale, bias, epsilon)


@functools.lru_cache(maxsize=64)
def _kernel(width: int, dtype: str, target: Target) -> str | None:
    """Of `KERNELS` the first that a device runs, decided and logged once."""
    if target.kind != "gpu":
        return None
    for name in KERNELS:
        reason = fault(name, width, dtype, target)
        if reason is None:
            return name
        warn(f"layer norm: the kernel of its backward pass by {name}", f"{width} channels", reason)
    return None


def fault(kernel: str, width: int, dtype: str, target: Target) -> str | None:
    """Why a device should not run one of `KERNELS` for rows of so many channels; None where it
    should."""
    if kernel == MOSAIC and (reason := norm_mosaic.refusal(width, target)):
        return reason
    program, arguments, definition = comparison(kernel, width, dtype, target)
    return kernel_fault(target, program, *arguments, definition=definition)


def comparison(
    kernel: str, width: int, dtype: str, target: Target
) -> tuple[Callable, tuple, Callable]:
    """What `kernel_check.verdict` compares of the backward pass: program, arguments, definition."""
    rows = like(target, (128, norm_kernel.ROWS, width), dtype)
    program = functools.partial(_by_kernel, kernel)
    return program, (rows, rows, rows, like(target, (width,), "float32")), _by_definition


def _by_kernel(kernel, x, g, skip, scale):
    dx, *parts = KERNELS[kernel](x, g, skip, scale, epsilon=1e-6)
    return dx, *(part.sum(0) for part in parts)


def _by_definition(x, g, skip, scale):
    x, g, skip = (y.astype(jnp.float32) for y in (x, g, skip))
    _, back = jax.vjp(lambda *a: layer_norm(*a, 1e-6), x, scale, scale)
    dx, dscale, dbias = back(g)
    return dx + skip, dscale, dbias


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def with_kernel(x, scale, bias, epsilon, kernel):
    """`with_skip` by one of `KERNELS`, whatever the device."""
    return x, layer_norm(x, scale, bias, epsilon)


def _with_skip_forward(x, scale, bias, epsilon, kernel):
    return (x, _forward(x, scale, bias, epsilon)[0]), (x, scale)


def _with_skip_backward(epsilon, kernel, residuals, upstream):
    x, scale = residuals
    arrays = [y.reshape(x.shape[0], -1, x.shape[-1]) for y in (x, upstream[1], upstream[0])]
    backward = functools.partial(KERNELS[kernel], epsilon=epsilon)
    axes, out = ("b", "b", "b", ""), ("b", "b", "b")
    dx, *parts = shard_rows_and_heads(backward, *arrays, scale, axes=axes, out=out)
    return dx.reshape(x.shape), *(part.sum(axis=0) for part in parts)


with_kernel.defvjp(_with_skip_forward, _with_skip_backward)

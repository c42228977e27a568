"""LayerNorm's backward pass by Pallas' Mosaic GPU: what `norm_kernel` computes, without Triton.

A warp has rows of its own, whole ones, so that a row's sums need no barrier; those of columns stay
in registers until its last row.
"""

import functools
import inspect
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Float

from dit_jax.ops.arrays import Array
from dit_jax.ops.platform import Target, platform

WARPS = 4  # of a program, all of its warpgroup
LANES = 32
ROWS = 128  # of a program
AT_ONCE = 4  # numbers, that a thread reads or writes: 16 bytes of float32


def refusal(width: int, target: Target) -> str | None:
    """Why the kernel is not for rows of so many channels on such a device; None where it is."""
    capability = target.capability()
    if capability != "9.0":
        return f"compute capability is {capability}; expected 9.0, Hopper"
    least = 2 * LANES  # 4 bytes of 16-bit numbers a thread
    return f"{width} channels; expected a multiple of {least}" if width % least else None


def backward(
    x: Float[Array, "b n d"],
    g: Float[Array, "b n d"],
    skip: Float[Array, "b n d"],
    scale: Float[Array, " d"],
    *,
    epsilon: float,
) -> tuple[Float[Array, "b n d"], Float[Array, "p d"], Float[Array, "p d"]]:
    """As `norm_kernel.backward`."""
    from jax.experimental.pallas import mosaic_gpu as plgpu

    b, n, d = x.shape
    rows = math.gcd(b * n, ROWS)
    sums = jax.ShapeDtypeStruct((b * n // rows * WARPS, d), jnp.float32)
    interpreter = {} if platform() == "gpu" else dict(interpret=plgpu.InterpretGPUParams())
    run = plgpu.kernel(
        functools.partial(_kernel, plgpu, epsilon, rows),
        out_type=[jax.ShapeDtypeStruct((b * n, d), x.dtype), sums, sums],
        grid=(b * n // rows,),
        grid_names=("rows",),
        kernel_name="layer_norm_backward",
        compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Warpgroup),
        **interpreter,
    )
    dx, dscale, dbias = run(*(y.reshape(b * n, d) for y in (x, g, skip)), scale)
    return dx.reshape(b, n, d), dscale, dbias


def _kernel(plgpu, epsilon, rows, x, g, skip, scale, dx, dscale, dbias):
    d, program = x.shape[1], jax.lax.axis_index("rows")
    at_once = math.gcd(d // LANES, AT_ONCE)
    tiling = plgpu.Tiling(((WARPS, LANES * at_once), (at_once,)))
    layout = plgpu.Layout.TILED(tiling, warp_dims=(-3,), lane_dims=(-2,), vector_dim=-1)
    place_too = "idx" in inspect.signature(plgpu.load).parameters  # before jax 0.12
    load = functools.partial(plgpu.load, **dict(idx=...) if place_too else {}, optimized=False)

    def read(ref, *place):
        return load(ref.at[place], layout=layout).astype(jnp.float32)

    def spread(values, axis):
        values = jax.lax.broadcast_in_dim(values, (WARPS, d), [axis])
        return plgpu.layout_cast(values, layout)

    def mean(values):
        return spread(values.sum(axis=1) * (1 / d), 0)

    weights = spread(load(scale, layout=layout.reduce(0)), 1)

    def some(i, sums):
        here = pl.ds(program * rows + i * WARPS, WARPS), slice(None)
        centred, upstream = read(x, *here), read(g, *here)
        centred = centred - mean(centred)
        inverse = jax.lax.rsqrt(mean(centred * centred) + epsilon)
        normal, slope = centred * inverse, upstream * weights
        down = inverse * (slope - mean(slope) - normal * mean(slope * normal))
        dx[here] = (down + read(skip, *here)).astype(dx.dtype)
        return sums[0] + normal * upstream, sums[1] + upstream

    nothing = plgpu.layout_cast(jnp.zeros((WARPS, d), jnp.float32), layout)
    sums = jax.lax.fori_loop(0, rows // WARPS, some, (nothing, nothing))
    for target, values in zip((dscale, dbias), sums, strict=True):
        target[pl.ds(program * WARPS, WARPS), :] = values

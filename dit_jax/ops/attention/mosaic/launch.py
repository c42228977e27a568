"""How Mosaic GPU's kernels of packed attention run, and what they share.

A warpgroup is 128 threads. Those that compute take 64 queries (keys) each, which is what one
product takes; one more fetches what all of them read, some blocks ahead.

JAX's interpreter of such kernels has no products of registers, nor sums that start from anything
but zero: what `Sizes.compiled` decides.
"""

import dataclasses
import math
import types

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from dit_jax.ops.platform import Target, platform

LOG2_E = math.log2(math.e)
NOTHING = -1e30  # the largest of no scores
QUERIES = 64  # of a warpgroup
GROUPS = 2  # of warps that compute
STAGES = 4  # blocks that are on their way or in use
WORDS = 32  # of a row of text
LONGEST = 64  # text: one block


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What the kernel is compiled for."""

    h: int  # the grid's rows
    w: int  # and columns
    heads: int
    channels: int
    text: int
    dtype: jnp.dtype
    compiled: bool  # for a GPU, not interpreted
    keys: int  # of a block

    @property
    def rows(self) -> int:
        """Of the grid in a block of keys."""
        return self.keys // self.w

    @property
    def blocks(self) -> int:
        """Of keys, text's among them."""
        return 1 + self.h * self.w // self.keys

    @property
    def factor(self) -> float:
        """Of a score, in an exponent of two."""
        return self.channels**-0.5 * LOG2_E


@dataclasses.dataclass(frozen=True)
class Row:
    """Keys whose scores are a product of their own."""

    start: jax.Array  # [queries, keys], what scores start from
    place: pl.Slice  # in their block
    more: jax.Array | float = 0.0  # [queries], of every score


def refusal(problem, target: Target) -> str | None:
    """Why the kernel is not for a problem of `dispatch` on such a device; None where it is.

    The grid is one that `packed_launch.fits`.
    """
    text, capability = problem.n - problem.m, target.capability()
    if capability != "9.0":
        return f"compute capability is {capability}; expected 9.0, Hopper"
    columns, most = problem.grid[1], (80, LONGEST, QUERIES)
    if any(one > limit for one, limit in zip((problem.c, text, columns), most, strict=True)):
        return (
            f"{problem.c} channels a head, {text} tokens, {columns} columns; "
            f"expected at most {most[0]}, {most[1]} and {most[2]}"
        )


def sizes(qkv, text, rel_w, keys: int) -> Sizes:
    _, n, _, heads, c = qkv.shape
    w, compiled = rel_w.shape[3], platform() == "gpu"
    return Sizes(n // w, w, heads, c, text.shape[1], qkv.dtype, compiled, keys)


def flat(*packed) -> tuple[jax.Array, ...]:
    """[b, n, 3, k, c] as [b, n, 3k, c], since copies know five axes, tiles' among them."""
    return tuple(x.reshape(*x.shape[:2], -1, x.shape[4]) for x in packed)


def run(name: str, s: Sizes, body, grid, memory: dict, out_type, groups: int = GROUPS):
    """A function of arrays: programs of so many warpgroups that compute, and one that fetches."""
    from jax.experimental.pallas import mosaic_gpu as plgpu

    interpreter = {} if s.compiled else dict(interpret=plgpu.InterpretGPUParams())
    return plgpu.kernel(
        body,
        out_type=out_type,
        scratch_types=memory,
        grid=grid,  # the last axis is the fastest: a head's keys and values stay in the cache
        grid_names=("picture", "head", "block"),
        num_threads=groups + 1,
        thread_name="group",
        kernel_name=f"attention_{name}",
        compiler_params=plgpu.CompilerParams(
            approx_math=True, lowering_semantics=plgpu.LoweringSemantics.Warpgroup
        ),
        **interpreter,
    )


def tiled(plgpu, s: Sizes, *shape: int, columns: int = 64):
    """Memory as copies write it and products read it: tiles of `columns` or fewer, a power of two
    that has all."""
    columns = math.gcd(shape[-1], columns, 128 // s.dtype.itemsize)
    swizzle = plgpu.SwizzleTransform(columns * s.dtype.itemsize)
    layout = plgpu.TilingTransform((8, columns)), swizzle
    return plgpu.SMEM(shape, s.dtype, transforms=layout)


def room(plgpu, s: Sizes, width: int, groups: int = GROUPS) -> dict:
    """For the interpreter, whose products take nothing from registers."""
    return {} if s.compiled else dict(room=plgpu.SMEM((groups, QUERIES, width), s.dtype))


def program(plgpu, s: Sizes, fetch, compute, *arrays, groups: int = GROUPS, **memory):
    group, memory = jax.lax.axis_index("group"), types.SimpleNamespace(**memory)

    @pl.when(group < groups)
    def _():
        plgpu.set_max_registers(232, action="increase")
        compute(plgpu, s, group, arrays, memory)

    @pl.when(group == groups)
    def _():
        plgpu.set_max_registers(40, action="decrease")
        fetch(plgpu, s, arrays, memory)


def fetch(plgpu, s: Sizes, arrays, memory):
    """Keys and values, block after block."""
    qkv, text, *_ = arrays
    picture, head = jax.lax.axis_index("picture"), jax.lax.axis_index("head")
    of = (memory.k, memory.k_here, memory.k_read), (memory.v, memory.v_here, memory.v_read)

    for which, (target, here, _) in enumerate(of):
        words = text.at[picture, :, which * s.heads + head]
        plgpu.copy_gmem_to_smem(words, target.at[0, pl.ds(0, s.text)], here.at[0])

    def image(block, slot, wait):
        rows = pl.ds((block - 1) * s.keys, s.keys)
        for which, (target, here, read) in enumerate(of, 1):
            if wait:
                plgpu.barrier_wait(read.at[slot])
            some = qkv.at[picture, rows, which * s.heads + head]
            plgpu.copy_gmem_to_smem(some, target.at[slot], here.at[slot])

    for block in range(1, min(STAGES, s.blocks)):
        image(block, block, wait=False)

    @pl.loop(STAGES, s.blocks)
    def _(block):
        image(block, jax.lax.rem(block, jnp.int32(STAGES)), wait=True)


def left(s: Sizes, memory, group, x: jax.Array):
    """What a product takes on its left: registers, or memory in the interpreter."""
    if s.compiled:
        return x
    held = memory.room.at[group, :, pl.ds(0, x.shape[1])]
    held[...] = x
    return held


def spread(x: jax.Array, like: jax.Array, axis: int = 0) -> jax.Array:
    """A number for each row of `like`, or column, for all of it."""
    return jax.lax.broadcast_in_dim(x, like.shape, [axis])

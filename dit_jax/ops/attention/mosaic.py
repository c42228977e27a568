"""Packed attention's forward pass by Pallas' Mosaic GPU, for Hopper: what Triton's kernel computes.

A program takes 128 queries of a head: two warpgroups 64 each, which is what one product takes,
while a third fetches keys and values, some blocks ahead. Text is the first block; the others are
whole rows of the grid, and each row a product of its own: it starts from `rel_w`, which is the same
for every row and stays in registers, and `rel_h`, a number for each query and row, joins the
exponents. So positions cost no product. Text is rows of `WORDS` tokens, which start from what hides
them.

JAX's interpreter of such kernels has no products of registers, nor sums that start from anything
but zero: what `Sizes.compiled` decides.
"""

import dataclasses
import functools
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
KEYS = 128  # of a block at most, whole rows of the grid; and text
STAGES = 4  # blocks that are on their way or in use
WORDS = 32  # of a row of text


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

    @property
    def rows(self) -> int:
        """Of the grid in a block of keys."""
        return KEYS // self.w

    @property
    def blocks(self) -> int:
        """Of keys, text's among them."""
        return 1 + self.h * self.w // KEYS

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
    if problem.c > 80 or text > KEYS:
        return f"{problem.c} channels a head, {text} tokens; expected at most 80 and {KEYS}"


def forward(qkv, text, rel_h, rel_w, hidden) -> tuple[jax.Array, jax.Array]:
    """Arguments and results of `packed`'s own forward pass."""
    from jax.experimental.pallas import mosaic_gpu as plgpu

    b, n, _, heads, c = qkv.shape
    w, words, compiled = rel_w.shape[3], text.shape[1], platform() == "gpu"
    sizes = Sizes(n // w, w, heads, c, words, qkv.dtype, compiled)
    interpreter = {} if compiled else dict(interpret=plgpu.InterpretGPUParams())
    run = plgpu.kernel(
        functools.partial(_program, plgpu, sizes),
        out_type=[
            jax.ShapeDtypeStruct((b, n, heads, c), qkv.dtype),
            jax.ShapeDtypeStruct((b, heads, n), jnp.float32),
        ],
        scratch_types=_memory(plgpu, sizes),
        # The last axis is the fastest: a head's keys and values stay in the cache.
        grid=(b, heads, n // (GROUPS * QUERIES)),
        grid_names=("picture", "head", "block"),
        num_threads=GROUPS + 1,
        thread_name="group",
        kernel_name="attention_forward",
        compiler_params=plgpu.CompilerParams(
            approx_math=True, lowering_semantics=plgpu.LoweringSemantics.Warpgroup
        ),
        **interpreter,
    )
    packed = qkv.reshape(b, n, 3 * heads, c), text.reshape(b, words, 2 * heads, c)
    return tuple(run(*packed, rel_h, rel_w, hidden))


def _memory(plgpu, s: Sizes) -> dict:
    """What the warpgroups of a program share."""

    def tiles(*shape: int, columns: int):
        """As copies write it and products read it: columns of a power of two that has all."""
        columns = math.gcd(s.channels, columns, 128 // s.dtype.itemsize)
        swizzle = plgpu.SwizzleTransform(columns * s.dtype.itemsize)
        layout = plgpu.TilingTransform((8, columns)), swizzle
        return plgpu.SMEM((*shape, s.channels), s.dtype, transforms=layout)

    memory = dict(
        q=tiles(GROUPS, QUERIES, columns=64),
        k=tiles(STAGES, KEYS, columns=64),
        v=tiles(STAGES, KEYS, columns=min(s.w, WORDS)),  # no more than a product adds up
        hidden=plgpu.SMEM((GROUPS, s.text), jnp.float32),
        rel_h=plgpu.SMEM((GROUPS, s.h, QUERIES), s.dtype),
        rel_w=plgpu.SMEM((GROUPS, QUERIES, s.w), s.dtype),
        sums=plgpu.SMEM((GROUPS, QUERIES), jnp.float32),
        own=plgpu.Barrier(num_arrivals=4, num_barriers=GROUPS),
        k_here=plgpu.Barrier(num_barriers=STAGES),
        v_here=plgpu.Barrier(num_barriers=STAGES),
        k_read=plgpu.Barrier(num_arrivals=GROUPS, num_barriers=STAGES),
        v_read=plgpu.Barrier(num_arrivals=GROUPS, num_barriers=STAGES),
    )
    if not s.compiled:
        memory["weights"] = plgpu.SMEM((GROUPS, QUERIES, max(s.w, WORDS)), s.dtype)
    return memory


def _program(plgpu, s: Sizes, *arrays, **memory):
    group, memory = jax.lax.axis_index("group"), types.SimpleNamespace(**memory)

    @pl.when(group < GROUPS)
    def _():
        plgpu.set_max_registers(232, action="increase")
        _compute(plgpu, s, group, arrays, memory)

    @pl.when(group == GROUPS)
    def _():
        plgpu.set_max_registers(40, action="decrease")
        _fetch(plgpu, s, arrays, memory)


def _fetch(plgpu, s: Sizes, arrays, memory):
    """Keys and values, block after block."""
    qkv, text, *_ = arrays
    picture, head = jax.lax.axis_index("picture"), jax.lax.axis_index("head")
    of = (memory.k, memory.k_here, memory.k_read), (memory.v, memory.v_here, memory.v_read)

    for which, (target, here, _) in enumerate(of):
        words = text.at[picture, :, which * s.heads + head]
        plgpu.copy_gmem_to_smem(words, target.at[0, pl.ds(0, s.text)], here.at[0])

    def image(block, slot, wait):
        rows = pl.ds((block - 1) * KEYS, KEYS)
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


def _compute(plgpu, s: Sizes, group, arrays, memory):
    """A warpgroup's queries over all keys."""
    qkv, _, rel_h, rel_w, hidden, out, log_sum = arrays
    picture, head = jax.lax.axis_index("picture"), jax.lax.axis_index("head")
    first = (jax.lax.axis_index("block") * GROUPS + group) * QUERIES
    some, layout = pl.ds(first, QUERIES), plgpu.Layout.WGMMA
    mine = {name: x.at[group] for name, x in vars(memory).items() if name[1:2] != "_"}
    mine = types.SimpleNamespace(**mine)
    plgpu.copy_gmem_to_smem(qkv.at[picture, some, head], mine.q, mine.own)
    plgpu.copy_gmem_to_smem(hidden.at[picture], mine.hidden, mine.own)
    plgpu.copy_gmem_to_smem(rel_h.at[picture, head, pl.ds(0, s.h), some], mine.rel_h, mine.own)
    plgpu.copy_gmem_to_smem(rel_w.at[picture, head, some], mine.rel_w, mine.own)
    plgpu.barrier_wait(mine.own)

    def registers(ref, layout=layout):
        return plgpu.layout_cast(ref[...], layout)

    def filled(value, *shape):
        of = layout if len(shape) == 2 else layout.reduce(1)
        return plgpu.layout_cast(jnp.full(shape, value, jnp.float32), of)

    columns = registers(mine.rel_w).astype(jnp.float32)
    queries = registers(mine.q) if s.compiled else mine.q
    add = functools.partial(_add, plgpu, s, queries, memory, group)

    def words(start):
        place = pl.ds(start, WORDS)
        bias = registers(mine.hidden.at[place], layout.reduce(0))
        return Row(jax.lax.broadcast_in_dim(bias, (QUERIES, WORDS), [1]), place)

    def image(block, state):
        def line(i):
            of_row = registers(mine.rel_h.at[(block - 1) * s.rows + i], layout.reduce(1))
            return Row(columns, pl.ds(i * s.w, s.w), of_row.astype(jnp.float32))

        slot = jax.lax.rem(block, jnp.int32(STAGES))
        return add(state, slot, [line(i) for i in range(s.rows)])

    state = filled(NOTHING, QUERIES), filled(0, QUERIES), filled(0, QUERIES, s.channels)
    state = add(state, 0, [words(start) for start in range(0, s.text, WORDS)])
    largest, total, result = jax.lax.fori_loop(1, s.blocks, image, state)
    mine.q[...] = (result / _spread(total, result)).astype(s.dtype)
    mine.sums[...] = largest * s.factor + jnp.log(total) * LOG2_E
    plgpu.commit_smem()
    plgpu.copy_smem_to_gmem(mine.q, out.at[picture, some, head])
    plgpu.copy_smem_to_gmem(mine.sums, log_sum.at[picture, head, some])
    plgpu.wait_smem_to_gmem(0)


def _add(plgpu, s: Sizes, q, memory, group, state, slot, rows):
    """The state of a warpgroup's queries, that is their largest score, sum of exponentials and
    weighted values, with the rows of one more block."""
    largest, total, out = state

    def score(*sums):
        plgpu.barrier_wait(memory.k_here.at[slot])
        for row, scores in zip(rows, sums, strict=True):
            if s.compiled:
                scores[...] = row.start
            plgpu.wgmma(scores, q, memory.k.at[slot, row.place].T)
        scores = [x[...] for x in sums]
        if not s.compiled:
            scores = [x + row.start for x, row in zip(scores, rows, strict=True)]
        return scores

    scores = pl.run_scoped(score, *(plgpu.ACC(row.start.shape, jnp.float32) for row in rows))
    plgpu.barrier_arrive(memory.k_read.at[slot])
    new = largest
    for x, row in zip(scores, rows, strict=True):
        new = jnp.maximum(new, x.max(axis=1) + row.more)
    decay = jnp.exp2((largest - new) * s.factor)

    def weigh(more):
        of_places = 0.0  # added before lanes are: a block's rows are equally wide
        plgpu.barrier_wait(memory.v_here.at[slot])
        for x, row in zip(scores, rows, strict=True):
            weights = jnp.exp2(x * s.factor + _spread((row.more - new) * s.factor, x))
            of_places += weights
            weights = weights.astype(s.dtype)
            if not s.compiled:
                held = memory.weights.at[group, :, pl.ds(0, row.place.size)]
                held[...] = weights
                weights = held
            plgpu.wgmma(more, weights, memory.v.at[slot, row.place])
        return of_places.sum(axis=1), more[...]

    sums, more = pl.run_scoped(weigh, plgpu.ACC(out.shape, jnp.float32))
    plgpu.barrier_arrive(memory.v_read.at[slot])
    return new, total * decay + sums, out * _spread(decay, out) + more


def _spread(x: jax.Array, like: jax.Array) -> jax.Array:
    """A number for each query, for all that it has."""
    return jax.lax.broadcast_in_dim(x, like.shape, [0])

"""Packed attention's forward pass: what Triton's kernel computes.

Text is the first block of keys; the others are whole rows of the grid, and each row a product of
its own: it starts from `rel_w`, which is the same for every row and stays in registers, and
`rel_h`, a number for each query and row, joins the exponents. So positions cost no product. Text is
rows of `WORDS` tokens, which start from what hides them.
"""

import functools
import types

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from dit_jax.ops.attention.mosaic import launch
from dit_jax.ops.attention.mosaic.launch import (
    GROUPS,
    LOG2_E,
    NOTHING,
    QUERIES,
    STAGES,
    WORDS,
    Row,
    Sizes,
    left,
    spread,
)

KEYS = 128  # of a block, whole rows of the grid


def forward(qkv, text, rel_h, rel_w, hidden) -> tuple[jax.Array, jax.Array]:
    """Arguments and results of `packed`'s own forward pass."""
    from jax.experimental.pallas import mosaic_gpu as plgpu

    b, n, _, heads, c = qkv.shape
    s, packed = launch.sizes(qkv, text, rel_w, KEYS), launch.flat(qkv, text)
    memory = _memory(plgpu, s)
    out_type = [
        jax.ShapeDtypeStruct((b, n, heads, c), qkv.dtype),
        jax.ShapeDtypeStruct((b, heads, n), jnp.float32),
    ]
    grid = b, heads, n // (GROUPS * QUERIES)
    body = functools.partial(launch.program, plgpu, s, launch.fetch, _compute)
    return tuple(
        launch.run("forward", s, body, grid, memory, out_type)(*packed, rel_h, rel_w, hidden)
    )


def _memory(plgpu, s: Sizes) -> dict:
    """What the warpgroups of a program share."""
    tiles = functools.partial(launch.tiled, plgpu, s)
    return dict(
        q=tiles(GROUPS, QUERIES, s.channels),
        k=tiles(STAGES, s.keys, s.channels),
        # Of no more columns than a product adds up.
        v=tiles(STAGES, s.keys, s.channels, columns=min(s.w, WORDS)),
        hidden=plgpu.SMEM((GROUPS, s.text), jnp.float32),
        rel_h=plgpu.SMEM((GROUPS, s.h, QUERIES), s.dtype),
        rel_w=plgpu.SMEM((GROUPS, QUERIES, s.w), s.dtype),
        sums=plgpu.SMEM((GROUPS, QUERIES), jnp.float32),
        own=plgpu.Barrier(num_arrivals=4, num_barriers=GROUPS),
        k_here=plgpu.Barrier(num_barriers=STAGES),
        v_here=plgpu.Barrier(num_barriers=STAGES),
        k_read=plgpu.Barrier(num_arrivals=GROUPS, num_barriers=STAGES),
        v_read=plgpu.Barrier(num_arrivals=GROUPS, num_barriers=STAGES),
        **launch.room(plgpu, s, max(s.w, WORDS)),
    )


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
    mine.q[...] = (result / spread(total, result)).astype(s.dtype)
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
            weights = jnp.exp2(x * s.factor + spread((row.more - new) * s.factor, x))
            of_places += weights
            weights = left(s, memory, group, weights.astype(s.dtype))
            plgpu.wgmma(more, weights, memory.v.at[slot, row.place])
        return of_places.sum(axis=1), more[...]

    sums, more = pl.run_scoped(weigh, plgpu.ACC(out.shape, jnp.float32))
    plgpu.barrier_arrive(memory.v_read.at[slot])
    return new, total * decay + sums, out * spread(decay, out) + more

"""Gradients of queries and of their relative terms.

What a row of keys gives `rel_h` is one sum, and what a column gives `rel_w` is a sum over rows: no
products, as in `forward`, whose rows and stages these are.
"""

import functools
import types

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from dit_jax.ops.attention.mosaic import launch
from dit_jax.ops.attention.mosaic.launch import (
    GROUPS,
    QUERIES,
    STAGES,
    WORDS,
    Row,
    Sizes,
    left,
    spread,
)

KEYS = 64  # of a block


def by_queries(qkv, text, rel_h, rel_w, hidden, g, log_sum, out):
    from jax.experimental.pallas import mosaic_gpu as plgpu

    b, n, _, heads, c = qkv.shape
    s = launch.sizes(qkv, text, rel_w, KEYS)
    tiles = functools.partial(launch.tiled, plgpu, s)
    own = tiles(GROUPS, QUERIES, c)
    of_stage = tiles(STAGES, KEYS, c, columns=min(s.w, WORDS))  # a product adds up so many keys
    numbers = plgpu.SMEM((GROUPS, QUERIES), jnp.float32)
    memory = dict(
        q=own,
        g=own,
        out=own,
        k=of_stage,
        v=of_stage,
        hidden=plgpu.SMEM((GROUPS, s.text), jnp.float32),
        rel_h=plgpu.SMEM((GROUPS, s.h, QUERIES), s.dtype),
        rel_w=plgpu.SMEM((GROUPS, QUERIES, s.w), s.dtype),
        dh=plgpu.SMEM((GROUPS, s.h, QUERIES), s.dtype),
        log_sum=numbers,
        delta=numbers,
        own=plgpu.Barrier(num_arrivals=7, num_barriers=GROUPS),
        k_here=plgpu.Barrier(num_barriers=STAGES),
        v_here=plgpu.Barrier(num_barriers=STAGES),
        k_read=plgpu.Barrier(num_arrivals=GROUPS, num_barriers=STAGES),
        v_read=plgpu.Barrier(num_arrivals=GROUPS, num_barriers=STAGES),
        **launch.room(plgpu, s, max(s.w, WORDS)),
    )
    out_type = [
        jax.ShapeDtypeStruct((b, n, heads, c), s.dtype),
        jax.ShapeDtypeStruct((b, heads, s.h, n), s.dtype),
        jax.ShapeDtypeStruct(rel_w.shape, s.dtype),
        jax.ShapeDtypeStruct(log_sum.shape, jnp.float32),
    ]
    grid = b, heads, n // (GROUPS * QUERIES)
    body = functools.partial(launch.program, plgpu, s, launch.fetch, _compute)
    run = launch.run("by_queries", s, body, grid, memory, out_type)
    return run(*launch.flat(qkv, text), rel_h, rel_w, hidden, g, log_sum, out)


def _compute(plgpu, s: Sizes, group, arrays, memory):
    """Of a warpgroup's queries and their relative terms; and Σ out·g of each query."""
    qkv, _, rel_h, rel_w, hidden, g, log_sum, out, dq_out, dh_out, dw_out, delta_out = arrays
    picture, head = jax.lax.axis_index("picture"), jax.lax.axis_index("head")
    first = (jax.lax.axis_index("block") * GROUPS + group) * QUERIES
    some, layout = pl.ds(first, QUERIES), plgpu.Layout.WGMMA
    mine = {name: x.at[group] for name, x in vars(memory).items() if name[1:2] != "_"}
    mine = types.SimpleNamespace(**mine)
    for source, target in (
        (qkv.at[picture, some, head], mine.q),
        (g.at[picture, some, head], mine.g),
        (out.at[picture, some, head], mine.out),
        (hidden.at[picture], mine.hidden),
        (rel_h.at[picture, head, pl.ds(0, s.h), some], mine.rel_h),
        (rel_w.at[picture, head, some], mine.rel_w),
        (log_sum.at[picture, head, some], mine.log_sum),
    ):
        plgpu.copy_gmem_to_smem(source, target, mine.own)
    plgpu.barrier_wait(mine.own)

    def registers(ref, layout=layout):
        return plgpu.layout_cast(ref[...], layout)

    def zeros(width):
        return plgpu.layout_cast(jnp.zeros((QUERIES, width), jnp.float32), layout)

    columns = registers(mine.rel_w).astype(jnp.float32)
    largest = registers(mine.log_sum, layout.reduce(1))
    product = registers(mine.out).astype(jnp.float32) * registers(mine.g).astype(jnp.float32)
    delta = product.sum(axis=1)
    mine.delta[...] = delta
    if s.compiled:
        q, upstream = registers(mine.q), registers(mine.g)
    else:
        q, upstream = mine.q, mine.g

    def slopes(slot, rows):
        """Of the scores of a block's rows."""

        def products(*sums):
            plgpu.barrier_wait(memory.k_here.at[slot])
            plgpu.barrier_wait(memory.v_here.at[slot])
            for row, scores, weights in zip(rows, sums[::2], sums[1::2], strict=True):
                if s.compiled:
                    scores[...] = row.start
                plgpu.wgmma(scores, q, memory.k.at[slot, row.place].T)
                plgpu.wgmma(weights, upstream, memory.v.at[slot, row.place].T)
            return [x[...] for x in sums]

        shapes = (plgpu.ACC(row.start.shape, jnp.float32) for row in rows for _ in range(2))
        found = pl.run_scoped(products, *shapes)
        plgpu.barrier_arrive(memory.v_read.at[slot])
        result = []
        for row, scores, weights in zip(rows, found[::2], found[1::2], strict=True):
            scores = scores if s.compiled else scores + row.start
            offset = row.more * s.factor - largest
            p = jnp.exp2(scores * s.factor + spread(offset, scores))
            result.append(p * (weights - spread(delta, weights)))
        return result

    def onto_queries(slot, rows, found):
        def products(dq):
            for row, slope in zip(rows, found, strict=True):
                slope = left(s, memory, group, slope.astype(s.dtype))
                plgpu.wgmma(dq, slope, memory.k.at[slot, row.place])
            return dq[...]

        dq = pl.run_scoped(products, plgpu.ACC((QUERIES, s.channels), jnp.float32))
        plgpu.barrier_arrive(memory.k_read.at[slot])
        return dq

    def words(start):
        place = pl.ds(start, WORDS)
        bias = registers(mine.hidden.at[place], layout.reduce(0))
        return Row(spread(bias, zeros(WORDS), 1), place)

    def image(block, state):
        slot, rows = jax.lax.rem(block, jnp.int32(STAGES)), []
        for i in range(s.rows):
            of_row = registers(mine.rel_h.at[(block - 1) * s.rows + i], layout.reduce(1))
            rows.append(Row(columns, pl.ds(i * s.w, s.w), of_row.astype(jnp.float32)))
        dq, dw = state
        found = slopes(slot, rows)
        for i, slope in enumerate(found):
            dw += slope
            mine.dh.at[(block - 1) * s.rows + i][...] = slope.sum(axis=1).astype(s.dtype)
        return dq + onto_queries(slot, rows, found), dw

    rows = [words(start) for start in range(0, s.text, WORDS)]
    dq = onto_queries(0, rows, slopes(0, rows))
    dq, dw = jax.lax.fori_loop(1, s.blocks, image, (dq, zeros(s.w)))
    mine.q[...] = (dq * s.channels**-0.5).astype(s.dtype)
    mine.rel_w[...] = dw.astype(s.dtype)
    plgpu.commit_smem()
    plgpu.copy_smem_to_gmem(mine.q, dq_out.at[picture, some, head])
    plgpu.copy_smem_to_gmem(mine.dh, dh_out.at[picture, head, :, some])
    plgpu.copy_smem_to_gmem(mine.rel_w, dw_out.at[picture, head, some])
    plgpu.copy_smem_to_gmem(mine.delta, delta_out.at[picture, head, some])
    plgpu.wait_smem_to_gmem(0)

"""Gradients of keys and values, of the image and of text.

Scores are turned over, [keys, queries]; blocks of queries are what is fetched, with their numbers.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from dit_jax.ops.attention.mosaic import launch
from dit_jax.ops.attention.mosaic.launch import GROUPS, QUERIES, STAGES, Sizes, left, spread

KEYS = 64  # of a block


def by_keys(qkv, text, rel_h, rel_w, g, log_sum, delta):
    """[b, n, 2, k, c]."""
    s = launch.sizes(qkv, text, rel_w, KEYS)
    bias = rel_h, rel_w.swapaxes(2, 3)
    return _run("by_keys", s, GROUPS, qkv, qkv, bias, g, log_sum, delta)


def by_words(qkv, text, rel_w, hidden, g, log_sum, delta):
    """[b, l, 2, k, c]."""
    s, more = launch.sizes(qkv, text, rel_w, KEYS), KEYS - text.shape[1]
    words = jnp.pad(text, ((0, 0), (0, more), (0, 0), (0, 0), (0, 0)))
    hidden = jnp.pad(hidden, ((0, 0), (0, more)), constant_values=launch.NOTHING)
    return _run("by_text", s, 1, words, qkv, (hidden,), g, log_sum, delta)[:, : s.text]


def _run(name: str, s: Sizes, groups: int, keys, qkv, bias, g, log_sum, delta):
    """Gradients of keys and values, [b, n, 2, k, c], which `keys` has last.

    Args:
      bias: `rel_h` and `rel_w`, queries last, of the image's keys; what hides text, of text.
    """
    from jax.experimental.pallas import mosaic_gpu as plgpu

    (b, n, _, heads, c), image = keys.shape, len(bias) == 2
    tiles = functools.partial(launch.tiled, plgpu, s)
    numbers = plgpu.SMEM((STAGES, QUERIES), jnp.float32)
    memory = dict(
        k=tiles(groups, KEYS, c),
        v=tiles(groups, KEYS, c),
        q=tiles(STAGES, QUERIES, c),
        g=tiles(STAGES, QUERIES, c),
        log_sum=numbers,
        delta=numbers,
        own=plgpu.Barrier(num_arrivals=2 if image else 3, num_barriers=groups),
        here=plgpu.Barrier(num_arrivals=5 + s.rows if image else 4, num_barriers=STAGES),
        read=plgpu.Barrier(num_arrivals=groups, num_barriers=STAGES),
        **launch.room(plgpu, s, QUERIES, groups),
    )
    if image:
        memory["rel_h"] = plgpu.SMEM((STAGES, groups * s.rows, QUERIES), s.dtype)
        memory["rel_w"] = tiles(STAGES, KEYS, QUERIES)
    else:
        memory["hidden"] = plgpu.SMEM((groups, KEYS), jnp.float32)
    body = functools.partial(
        launch.program,
        plgpu,
        s,
        functools.partial(_fetch, groups=groups, image=image),
        functools.partial(_compute, groups=groups, image=image),
        groups=groups,
    )
    grid, out = (
        (b, heads, n // (groups * KEYS)),
        jax.ShapeDtypeStruct((b, n, 2 * heads, c), s.dtype),
    )
    run = launch.run(name, s, body, grid, memory, [out], groups)
    (found,) = run(*launch.flat(keys, qkv), *bias, g, log_sum, delta)
    return found.reshape(b, n, 2, heads, c)


def _fetch(plgpu, s: Sizes, arrays, memory, *, groups, image):
    """Queries and what they bring, block after block."""
    _, qkv, *bias, g, log_sum, delta, _ = arrays
    picture, head = jax.lax.axis_index("picture"), jax.lax.axis_index("head")
    first = jax.lax.axis_index("block") * groups * s.rows

    def stage(block, slot, wait):
        if wait:
            plgpu.barrier_wait(memory.read.at[slot])
        some = pl.ds(block * QUERIES, QUERIES)
        pairs = [
            (qkv.at[picture, some, head], memory.q.at[slot]),
            (g.at[picture, some, head], memory.g.at[slot]),
            (log_sum.at[picture, head, some], memory.log_sum.at[slot]),
            (delta.at[picture, head, some], memory.delta.at[slot]),
        ]
        if image:
            rows = bias[0].at[picture, head, pl.ds(first, groups * s.rows), some]
            pairs.append((rows, memory.rel_h.at[slot]))
            columns = bias[1].at[picture, head, :, some]
            for i in range(s.rows):
                pairs.append((columns, memory.rel_w.at[slot, pl.ds(i * s.w, s.w)]))
        for source, target in pairs:
            plgpu.copy_gmem_to_smem(source, target, memory.here.at[slot])

    blocks = s.h * s.w // QUERIES
    for block in range(min(STAGES, blocks)):
        stage(block, block, wait=False)

    @pl.loop(STAGES, blocks)
    def _(block):
        stage(block, jax.lax.rem(block, jnp.int32(STAGES)), wait=True)


def _compute(plgpu, s: Sizes, group, arrays, memory, *, groups, image):
    """Of a warpgroup's keys and values; scores are [keys, queries]."""
    keys, _, *bias, _, _, _, out = arrays
    picture, head = jax.lax.axis_index("picture"), jax.lax.axis_index("head")
    some = pl.ds((jax.lax.axis_index("block") * groups + group) * KEYS, KEYS)
    layout, own, before = plgpu.Layout.WGMMA, memory.own.at[group], s.heads * image
    k, v = memory.k.at[group], memory.v.at[group]
    plgpu.copy_gmem_to_smem(keys.at[picture, some, before + head], k, own)
    plgpu.copy_gmem_to_smem(keys.at[picture, some, before + s.heads + head], v, own)
    if not image:
        plgpu.copy_gmem_to_smem(bias[0].at[picture, some], memory.hidden.at[group], own)
    plgpu.barrier_wait(own)

    def registers(ref, layout=layout):
        return plgpu.layout_cast(ref[...], layout)

    def zeros(width):
        return plgpu.layout_cast(jnp.zeros((KEYS, width), jnp.float32), layout)

    a, b = (registers(k), registers(v)) if s.compiled else (k, v)
    shape = zeros(QUERIES)
    if image:
        place = plgpu.layout_cast(jax.lax.broadcasted_iota(jnp.int32, shape.shape, 0), layout)
    else:
        unseen = spread(registers(memory.hidden.at[group], layout.reduce(1)), shape)

    def start(slot):
        if not image:
            return unseen
        of_rows = None
        for i in range(s.rows):
            line = memory.rel_h.at[slot, group * s.rows + i]
            line = spread(registers(line, layout.reduce(0)).astype(jnp.float32), shape, 1)
            of_rows = line if of_rows is None else jnp.where(place < i * s.w, of_rows, line)
        return of_rows + registers(memory.rel_w.at[slot]).astype(jnp.float32)

    def add(block, state):
        dk, dv = state
        slot = jax.lax.rem(block, jnp.int32(STAGES))
        plgpu.barrier_wait(memory.here.at[slot])
        bias = start(slot)

        def products(scores, weights):
            if s.compiled:
                scores[...] = bias
            plgpu.wgmma(scores, a, memory.q.at[slot].T)
            plgpu.wgmma(weights, b, memory.g.at[slot].T)
            return scores[...], weights[...]

        acc = plgpu.ACC(shape.shape, jnp.float32)
        scores, weights = pl.run_scoped(products, acc, acc)
        scores = scores if s.compiled else scores + bias
        log_sum = registers(memory.log_sum.at[slot], layout.reduce(0))
        delta = registers(memory.delta.at[slot], layout.reduce(0))
        p = jnp.exp2(scores * s.factor - spread(log_sum, shape, 1))
        slope = p * (weights - spread(delta, shape, 1))

        def onto(x, ref):
            def product(sum_):
                plgpu.wgmma(sum_, left(s, memory, group, x.astype(s.dtype)), ref)
                return sum_[...]

            return pl.run_scoped(product, plgpu.ACC((KEYS, s.channels), jnp.float32))

        dv += onto(p, memory.g.at[slot])
        dk += onto(slope, memory.q.at[slot])
        plgpu.commit_smem()  # numbers have been read before copies write others
        plgpu.barrier_arrive(memory.read.at[slot])
        return dk, dv

    state = zeros(s.channels), zeros(s.channels)
    dk, dv = jax.lax.fori_loop(0, s.h * s.w // QUERIES, add, state)
    k[...], v[...] = (dk * s.channels**-0.5).astype(s.dtype), dv.astype(s.dtype)
    plgpu.commit_smem()
    plgpu.copy_smem_to_gmem(k, out.at[picture, some, head])
    plgpu.copy_smem_to_gmem(v, out.at[picture, some, s.heads + head])
    plgpu.wait_smem_to_gmem(0)

"""Attention for a CPU: one head after another, with a derivative written out.

A head's scores are small enough for a cache; all heads' are fresh pages, which cost more than the
arithmetic. Nothing of the scores is kept: the backward pass makes the probabilities again from the
log-sum-exp. Going back, scores are held transposed, [n, m]: four of the five products then read
their arguments as they lie in memory, and both sums over the grid run along whole rows (measured on
one core, ViT-B's head at 512 px: 9.2 ms instead of 13.5). A product whose transpose would be
wanted returns as it is and is turned outside the loop, where it is small.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from dit_jax.ops.attention.plain import K, Mask, Q, Rel
from dit_jax.ops.rematerialise import ATTENDED

SCORES_OF_A_BLOCK = 1 << 21  # 8 MiB: queries beyond that come in several blocks
MASK_VALUE = -1e30  # score of a key that is hidden


def attend_by_head(q: Q, k: K, v: K, rel: Rel | None, key_mask: Mask | None) -> Q:
    """As `attention.attend`; computes in float32."""
    kind, m = q.dtype, q.shape[2]
    q, k, v, rel = jax.tree.map(lambda x: x.astype(jnp.float32), (q, k, v, rel))
    if rel is not None:  # text asks without positions
        rest = ((0, 0), (0, 0), (0, m - rel[0].shape[2]), (0, 0))
        rel = tuple(jnp.pad(x, rest) for x in rel)
    hidden = None
    if key_mask is not None:
        hidden = jnp.where(key_mask, 0.0, MASK_VALUE)[:, None]
        hidden = jnp.broadcast_to(hidden, (*k.shape[:2], k.shape[2]))
    return _attend(q, k, v, rel, hidden).astype(kind)


@jax.custom_vjp
def _attend(q, k, v, rel, hidden):
    return _forward(q, k, v, rel, hidden)[0]


def _forward(q, k, v, rel, hidden):
    out, log_sum = _over_heads(_forward_head, q, k, v, rel, hidden)
    out, log_sum = checkpoint_name(out, ATTENDED), checkpoint_name(log_sum, ATTENDED)
    return out, (q, k, v, rel, hidden, out, log_sum)


def _backward(residuals, upstream):
    q, k, v, rel, hidden, out, log_sum = residuals
    delta = jnp.einsum("bkmc,bkmc->bkm", out, upstream)  # a sum along rows takes ten times as long
    # Turned here, not by every head: its exponents would read them column by column.
    arrays = q, k, v, _turned(rel), hidden, log_sum, delta, upstream
    dq, dk, dv, drel = _over_heads(_backward_head, *arrays)
    return _turned(dq), dk, dv, _turned(drel), None


_attend.defvjp(_forward, _backward)


def _turned(arrays):
    return jax.tree.map(lambda x: x.swapaxes(-2, -1), arrays)


def _over_heads(f: Callable, *arrays):
    """`f` on every head of arrays [b, k, …], one at a time."""
    shape = arrays[0].shape[:2]
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), arrays)
    result = jax.lax.map(lambda head: f(*head), flat)
    return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), result)


def _forward_head(q, k, v, rel, hidden):
    """Out [m, c] and log-sum-exp [m] of one head."""
    rows = functools.partial(_forward_rows, k, v, hidden)
    blocks, whole = _blocks(q.shape[0], k.shape[0], (q, rel))
    if blocks is None:
        return rows((q, rel))
    return jax.tree.map(whole, jax.lax.map(rows, blocks))


def _forward_rows(k, v, hidden, queries):
    """Image and text apart: their scores differ in the bias, and padding it costs a third."""
    q, rel = queries
    q = q * q.shape[-1] ** -0.5
    parts = _image_and_text(k.shape[0], rel, 1)
    scores = [q @ k[part].T for part in parts]
    if rel is not None:
        bias = rel[0][:, :, None] + rel[1][:, None, :]
        scores[0] = scores[0] + bias.reshape(scores[0].shape)
    if hidden is not None:
        scores = [s + hidden[part][None] for s, part in zip(scores, parts, strict=True)]
    largest = functools.reduce(jnp.maximum, (s.max(axis=1) for s in scores))
    weights = [jnp.exp(s - largest[:, None]) for s in scores]
    total = sum(p @ jnp.ones(p.shape[1], p.dtype) for p in weights)  # faster than a sum along rows
    out = sum(p @ v[part] for p, part in zip(weights, parts, strict=True))
    return out / total[:, None], largest + jnp.log(total)


def _backward_head(q, k, v, rel, hidden, log_sum, delta, upstream):
    """Gradients of one head: q's and rel's as [c, m], [h, m], [w, m], as rel itself is; k's and v's
    as [n, c]."""
    columns = functools.partial(_backward_columns, k, v, hidden)
    rest = log_sum, delta, upstream
    blocks, whole = _blocks(q.shape[0], k.shape[0], (q, _turned(rel), *rest))
    if blocks is None:
        return columns((q, rel, *rest))

    def add(total, block):
        dq, dk, dv, drel = columns(block)
        return (total[0] + dk, total[1] + dv), (dq, drel)

    zero = jnp.zeros_like(k), jnp.zeros_like(v)
    q, rel, *rest = blocks
    (dk, dv), (dq, drel) = jax.lax.scan(add, zero, (q, _turned(rel), *rest))
    dq, drel = jax.tree.map(lambda x: whole(x).T, _turned((dq, drel)))
    return dq, dk, dv, drel


def _backward_columns(k, v, hidden, queries):
    """As `_forward_rows`: where scores lie apart nothing is cut out of them either."""
    q, rel, log_sum, delta, upstream = queries
    scale = q.shape[-1] ** -0.5
    q, turned = q * scale, k.T  # a copy: with rows of k the product for dq takes half as long again
    parts = _image_and_text(k.shape[0], rel, 0)
    scores = [k[part] @ q.T for part in parts]  # [n, m]
    if rel is not None:
        rel_h, rel_w = rel
        bias = rel_h[:, None] + rel_w[None]
        scores[0] = scores[0] + bias.reshape(scores[0].shape)
    if hidden is not None:
        scores = [s + hidden[part][:, None] for s, part in zip(scores, parts, strict=True)]
    weights = [jnp.exp(s - log_sum[None]) for s in scores]
    slope = [
        w * (v[part] @ upstream.T - delta[None]) for w, part in zip(weights, parts, strict=True)
    ]
    dq = sum(turned[:, part] @ s for s, part in zip(slope, parts, strict=True)) * scale
    dk = jnp.concatenate([s @ q for s in slope])
    dv = jnp.concatenate([w @ upstream for w in weights])
    if rel is None:
        return dq, dk, dv, None
    on_grid = slope[0].reshape(rel_h.shape[0], -1)  # [h, w·m]
    by_row = on_grid.reshape(*rel_h.shape[:1], *rel_w.shape).sum(axis=1)
    by_column = (
        jnp.ones(rel_h.shape[0], on_grid.dtype) @ on_grid
    )  # XLA's sum along columns takes 10 times as long
    return dq, dk, dv, (by_row, by_column.reshape(rel_w.shape))


def _image_and_text(n: int, rel, axis: int) -> list[slice]:
    """Keys with positions, which lie along this axis of rel, and those behind them, as far as there
    are any."""
    image = n if rel is None else rel[0].shape[axis] * rel[1].shape[axis]
    return [slice(0, image)] + [slice(image, None)] * (image < n)


def _blocks(m: int, n: int, arrays):
    """Arrays [m, …] as equal blocks of rows, zeros behind the last, and the way back.

    (None, None) where one block holds them all.
    """
    count = math.ceil(m * n / SCORES_OF_A_BLOCK)
    if count == 1:
        return None, None
    size = math.ceil(m / count)

    def split(x):
        x = jnp.pad(x, ((0, count * size - m), *((0, 0),) * (x.ndim - 1)))
        return x.reshape(count, size, *x.shape[1:])

    return jax.tree.map(split, arrays), lambda x: x.reshape(count * size, *x.shape[2:])[:m]

"""Pallas kernels of attention with decomposed relative positions and text keys, both directions.

Keys come in blocks of whole rows of the grid, so a block's bias is two small products with constant
0/1 matrices: `rel_w` spread over the block's columns, the same for every block and made once, and
`rel_h` spread over its rows. Nothing of size n×n leaves fast memory, and going back the sums over
rows and columns are products with the same matrices transposed. Text is one more block of keys,
with a bias of its own for tokens that are hidden. After FlashAttention (Dao et al. 2022, 2023); the
relative part is ours.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl


@dataclasses.dataclass(frozen=True)
class Tiles:
    """What a kernel is compiled for."""

    queries: int  # of a block
    rows: int  # of the grid in a block of keys
    columns: int  # of the grid
    scale: float

    @property
    def keys(self) -> int:
        return self.rows * self.columns


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """a·b in float32; float32 arguments keep all their bits."""
    exact = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jnp.dot(a, b, precision=exact, preferred_element_type=jnp.float32)


def spread_rows(tiles: Tiles, block, h: int, dtype) -> jax.Array:
    """[h, keys]: 1 where a key of block number `block` lies in a row of the grid."""
    row = jax.lax.broadcasted_iota(jnp.int32, (h, tiles.keys), 0)
    key = jax.lax.broadcasted_iota(jnp.int32, (h, tiles.keys), 1)
    return (row == block * tiles.rows + jax.lax.div(key, jnp.int32(tiles.columns))).astype(dtype)


def spread_columns(tiles: Tiles, dtype) -> jax.Array:
    """[w, keys]: 1 where a key lies in a column of the grid."""
    column = jax.lax.broadcasted_iota(jnp.int32, (tiles.columns, tiles.keys), 0)
    key = jax.lax.broadcasted_iota(jnp.int32, (tiles.columns, tiles.keys), 1)
    return (column == jax.lax.rem(key, jnp.int32(tiles.columns))).astype(dtype)


def forward(
    tiles: Tiles, q_ref, k_ref, v_ref, tk_ref, tv_ref, rh_ref, rw_ref, hidden_ref, o_ref, sum_ref
):
    """A block of queries: out [m, c] and log-sum-exp [m, 1]."""
    q, rel_h = q_ref[...], rh_ref[...]
    by_column = dot(rw_ref[...], spread_columns(tiles, q.dtype))

    def fold(carry, scores, values):
        largest, total, out = carry
        new = jnp.maximum(largest, jnp.max(scores, axis=1, keepdims=True))
        weights, decay = jnp.exp(scores - new), jnp.exp(largest - new)
        total = decay * total + jnp.sum(weights, axis=1, keepdims=True)
        return new, total, decay * out + dot(weights.astype(values.dtype), values)

    def image(block, carry):
        here = pl.ds(block * tiles.keys, tiles.keys)
        scores = dot(q, k_ref[here, :].T) * tiles.scale + by_column
        scores += dot(rel_h, spread_rows(tiles, block, rel_h.shape[1], q.dtype))
        return fold(carry, scores, v_ref[here, :])

    start = (
        jnp.full((tiles.queries, 1), -jnp.inf, jnp.float32),
        jnp.zeros((tiles.queries, 1), jnp.float32),
        jnp.zeros(q.shape, jnp.float32),
    )
    carry = jax.lax.fori_loop(0, k_ref.shape[0] // tiles.keys, image, start)
    scores = dot(q, tk_ref[...].T) * tiles.scale + hidden_ref[...]
    largest, total, out = fold(carry, scores, tv_ref[...])
    o_ref[...] = (out / total).astype(o_ref.dtype)
    sum_ref[...] = largest + jnp.log(total)


def by_queries(
    tiles: Tiles,
    q_ref, k_ref, v_ref, tk_ref, tv_ref, rh_ref, rw_ref, hidden_ref, g_ref, sum_ref, delta_ref,
    dq_ref, dh_ref, dw_ref,
):  # fmt: skip
    """Gradients of a block of queries and of its relative terms."""
    q, rel_h, g = q_ref[...], rh_ref[...], g_ref[...]
    log_sum, delta = sum_ref[...], delta_ref[...]
    columns = spread_columns(tiles, q.dtype)
    by_column = dot(rw_ref[...], columns)

    def slope_of(scores, values):
        weights = jnp.exp(scores - log_sum)
        return (weights * (dot(g, values.T) - delta)).astype(q.dtype)

    def image(block, carry):
        dq, dh, dw = carry
        here = pl.ds(block * tiles.keys, tiles.keys)
        k, rows = k_ref[here, :], spread_rows(tiles, block, rel_h.shape[1], q.dtype)
        slope = slope_of(dot(q, k.T) * tiles.scale + by_column + dot(rel_h, rows), v_ref[here, :])
        return dq + dot(slope, k), dh + dot(slope, rows.T), dw + dot(slope, columns.T)

    start = tuple(jnp.zeros(x.shape, jnp.float32) for x in (q, rel_h, rw_ref))
    dq, dh, dw = jax.lax.fori_loop(0, k_ref.shape[0] // tiles.keys, image, start)
    text = tk_ref[...]
    slope = slope_of(dot(q, text.T) * tiles.scale + hidden_ref[...], tv_ref[...])
    dq_ref[...] = ((dq + dot(slope, text)) * tiles.scale).astype(dq_ref.dtype)
    dh_ref[...] = dh.astype(dh_ref.dtype)
    dw_ref[...] = dw.astype(dw_ref.dtype)


def by_keys(
    tiles: Tiles,
    q_ref, k_ref, v_ref, rh_ref, rw_ref, g_ref, sum_ref, delta_ref, dk_ref, dv_ref,
):  # fmt: skip
    """Gradients of a block of the image's keys and values."""
    k = k_ref[...]
    rows = spread_rows(tiles, pl.program_id(2), rh_ref.shape[1], k.dtype)
    columns = spread_columns(tiles, k.dtype)

    def bias(here):
        return dot(rh_ref[here, :], rows) + dot(rw_ref[here, :], columns)

    _sum_over_queries(tiles, bias, q_ref, k, v_ref, g_ref, sum_ref, delta_ref, dk_ref, dv_ref)


def by_text(
    tiles: Tiles, q_ref, tk_ref, tv_ref, hidden_ref, g_ref, sum_ref, delta_ref, dk_ref, dv_ref
):
    """Gradients of the text's keys and values."""
    hidden, k = hidden_ref[...], tk_ref[...]

    def bias(here):
        return hidden

    _sum_over_queries(tiles, bias, q_ref, k, tv_ref, g_ref, sum_ref, delta_ref, dk_ref, dv_ref)


def _sum_over_queries(tiles, bias, q_ref, k, v_ref, g_ref, sum_ref, delta_ref, dk_ref, dv_ref):
    v = v_ref[...]

    def add(block, carry):
        dk, dv = carry
        here = pl.ds(block * tiles.queries, tiles.queries)
        q, g = q_ref[here, :], g_ref[here, :]
        scores = dot(q, k.T) * tiles.scale + bias(here)
        weights = jnp.exp(scores - sum_ref[here, :])
        slope = weights * (dot(g, v.T) - delta_ref[here, :])
        dv = dv + dot(weights.astype(g.dtype).T, g)
        return dk + dot(slope.astype(q.dtype).T, q), dv

    start = jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
    dk, dv = jax.lax.fori_loop(0, q_ref.shape[0] // tiles.queries, add, start)
    dk_ref[...] = (dk * tiles.scale).astype(dk_ref.dtype)
    dv_ref[...] = dv.astype(dv_ref.dtype)

"""Triton kernels of attention over packed queries, keys and values, both directions.

Keys come in blocks of whole rows of the grid. A block's bias is the sum of two products with
constant 0/1 matrices: `rel_w` spread over the columns, the same for every block, and the few rows
of `rel_h` that the block needs spread over its rows. Scores start from it, so
relative terms are divided by the scale that scores are multiplied with. Going back, the sums over
rows and columns are products with the same matrices. Text is the first block of keys, with a bias
of its own for tokens that are hidden. Exponentials are powers of two.

After FlashAttention (Dao et al. 2022, 2023); the relative part is ours. A head's channels are
taken apart into powers of two (80 = 64 + 16), which is all that Triton knows.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from dit_jax.ops.triton import powers_of_two

LOG2_E = math.log2(math.e)
ROWS = 16  # of `rel_h` are read at once: the least that a product may have
Parts = list[jax.Array]  # a head's channels


@dataclasses.dataclass(frozen=True)
class Tiles:
    """What a kernel is compiled for."""

    h: int  # the grid's rows
    w: int  # and columns
    channels: int  # of a head
    queries: int  # of a block
    keys: int  # of a block: whole rows of the grid
    compiled: bool  # for a GPU, not interpreted

    @property
    def rows(self) -> int:
        """Of the grid in a block of keys."""
        return self.keys // self.w

    @property
    def blocks(self) -> int:
        """Of keys."""
        return self.h * self.w // self.keys

    @property
    def scale(self) -> float:
        return self.channels**-0.5

    @property
    def slices(self) -> list[pl.Slice]:
        """A head's channels in pieces of powers of two, the widest first."""
        return powers_of_two(self.channels)


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """a·b in float32; float32 arguments keep all their bits."""
    exact = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jnp.dot(a, b, precision=exact, preferred_element_type=jnp.float32)


def onto(start: jax.Array, a: Parts, b: Parts) -> jax.Array:
    """start + a·bᵀ over all channels: [m, n] from [m, c] and [n, c]."""
    for x, y in zip(a, b, strict=True):
        start = dot(x, y.T) + start
    return start


def each_onto(starts: Parts, a: jax.Array, b: Parts) -> Parts:
    """start + a·b for each piece of the channels: [m, c] from [m, n] and [n, c]."""
    return [dot(a, x) + start for x, start in zip(b, starts, strict=True)]


def read(tiles: Tiles, ref, *before) -> Parts:
    """`ref[*before, channels]`."""
    return [ref[*before, part] for part in tiles.slices]


def write(tiles: Tiles, ref, before: tuple, values: Parts, scale: float = 1.0) -> None:
    """`ref[*before, channels] = values * scale`."""
    for part, value in zip(tiles.slices, values, strict=True):
        ref[*before, part] = (value * scale).astype(ref.dtype)


def zeros(tiles: Tiles, rows: int) -> Parts:
    return [jnp.zeros((rows, part.size), jnp.float32) for part in tiles.slices]


def power(tiles: Tiles, x: jax.Array, factor: float, offset: jax.Array) -> jax.Array:
    """2^(x·factor + offset), in two instructions; compilers make seven of it."""
    if not tiles.compiled:
        return jnp.exp2(x * factor + offset)
    from jax.experimental.pallas import triton

    [result] = triton.elementwise_inline_asm(
        "fma.rn.f32 $0, $1, $2, $3; ex2.approx.ftz.f32 $0, $0;",
        args=[x, jnp.full_like(x, factor), jnp.broadcast_to(offset, x.shape)],
        constraints="=f,f,f,f",
        pack=1,
        result_shape_dtypes=[jax.ShapeDtypeStruct(x.shape, x.dtype)],
    )
    return result


def spread_columns(tiles: Tiles, dtype) -> jax.Array:
    """[keys, w]: 1 where a key lies in a column."""
    key = jax.lax.broadcasted_iota(jnp.int32, (tiles.keys, tiles.w), 0)
    column = jax.lax.broadcasted_iota(jnp.int32, (tiles.keys, tiles.w), 1)
    return (jax.lax.rem(key, jnp.int32(tiles.w)) == column).astype(dtype)


def spread_rows(tiles: Tiles, dtype) -> jax.Array:
    """[keys, ROWS]: 1 where a key lies in a row of its block."""
    key = jax.lax.broadcasted_iota(jnp.int32, (tiles.keys, ROWS), 0)
    row = jax.lax.broadcasted_iota(jnp.int32, (tiles.keys, ROWS), 1)
    return (jax.lax.div(key, jnp.int32(tiles.w)) == row).astype(dtype)


def relate_rows(tiles: Tiles, q_ref, band_ref, rel_ref):
    """`rel_h`, [h, w], of the queries of one row of the grid; and zeros below it, which blocks of
    keys read with the last rows."""
    q, band = read(tiles, q_ref, slice(None)), read(tiles, band_ref, slice(None))
    rel = onto(jnp.zeros((tiles.h, tiles.w), jnp.float32), band, q) * (1 / tiles.scale)
    rel_ref[pl.ds(0, tiles.h), :] = rel.astype(rel_ref.dtype)
    rel_ref[pl.ds(tiles.h, ROWS), :] = jnp.zeros((ROWS, tiles.w), rel_ref.dtype)


def relate_columns(tiles: Tiles, q_ref, band_ref, rel_ref):
    """`rel_w`, [h, w], of the queries of one column of the grid."""
    q, band = read(tiles, q_ref, slice(None)), read(tiles, band_ref, slice(None))
    rel = onto(jnp.zeros((tiles.h, tiles.w), jnp.float32), q, band) * (1 / tiles.scale)
    rel_ref[...] = rel.astype(rel_ref.dtype)


class Bias:
    """What the scores of a block of queries start from, a block of keys after the other."""

    def __init__(self, tiles: Tiles, rh_ref, rw_ref, dtype):
        self.tiles, self.rh_ref, self.rows = tiles, rh_ref, spread_rows(tiles, dtype)
        self.columns = dot(rw_ref[...], spread_columns(tiles, dtype).T)

    def __getitem__(self, block) -> jax.Array:
        rel_h = self.rh_ref[pl.ds(block * self.tiles.rows, ROWS), :]
        return dot(rel_h.T, self.rows.T) + self.columns


def forward(
    tiles: Tiles, q_ref, k_ref, v_ref, tk_ref, tv_ref, rh_ref, rw_ref, hidden_ref, o_ref, sum_ref
):
    """A block of queries: out [m, c], and the logarithm to base 2 of the sum of exponentials."""
    everything, factor = slice(None), tiles.scale * LOG2_E
    q, bias = read(tiles, q_ref, everything), Bias(tiles, rh_ref, rw_ref, q_ref.dtype)

    def weigh(scores, largest):
        return power(tiles, scores, factor, -(largest * factor)[:, None])

    scores = onto(_same_for_all(tiles, hidden_ref), q, read(tiles, tk_ref, everything))
    largest = jnp.max(scores, axis=1)
    weights = weigh(scores, largest)
    total, weights = jnp.sum(weights, axis=1), weights.astype(tv_ref.dtype)
    out = each_onto(zeros(tiles, tiles.queries), weights, read(tiles, tv_ref, everything))

    def image(block, carry):
        largest, total, out = carry
        here = pl.ds(block * tiles.keys, tiles.keys)
        scores = onto(bias[block], q, read(tiles, k_ref, here))
        new = jnp.maximum(largest, jnp.max(scores, axis=1))
        weights, decay = weigh(scores, new), jnp.exp2((largest - new) * factor)
        total = decay * total + jnp.sum(weights, axis=1)
        out = [y * decay[:, None] for y in out]
        return new, total, each_onto(out, weights.astype(v_ref.dtype), read(tiles, v_ref, here))

    largest, total, out = jax.lax.fori_loop(0, tiles.blocks, image, (largest, total, out))
    write(tiles, o_ref, (everything,), [y / total[:, None] for y in out])
    sum_ref[...] = largest * factor + jnp.log2(total)


def by_queries(
    tiles: Tiles,
    q_ref, k_ref, v_ref, tk_ref, tv_ref, rh_ref, rw_ref, hidden_ref, g_ref, o_ref, sum_ref,
    dq_ref, dh_ref, dw_ref, delta_ref,
):  # fmt: skip
    """Gradients of a block of queries and of its relative terms; and Σ out·g of each query."""
    everything, factor, dtype = slice(None), tiles.scale * LOG2_E, q_ref.dtype
    q, g = read(tiles, q_ref, everything), read(tiles, g_ref, everything)
    both = zip(read(tiles, o_ref, everything), g, strict=True)
    delta = sum(jnp.sum(x.astype(jnp.float32) * y.astype(jnp.float32), axis=1) for x, y in both)
    delta_ref[...], log_sum = delta, sum_ref[...]
    bias, columns = Bias(tiles, rh_ref, rw_ref, dtype), spread_columns(tiles, dtype)

    def slopes(start, k, v):
        weights = power(tiles, onto(start, q, k), factor, -log_sum[:, None])
        return (weights * (onto(jnp.zeros_like(start), g, v) - delta[:, None])).astype(dtype)

    tk, tv = read(tiles, tk_ref, everything), read(tiles, tv_ref, everything)
    slope = slopes(_same_for_all(tiles, hidden_ref), tk, tv)
    dq = each_onto(zeros(tiles, tiles.queries), slope, tk)

    def image(block, carry):
        dq, dw = carry
        here = pl.ds(block * tiles.keys, tiles.keys)
        k = read(tiles, k_ref, here)
        slope = slopes(bias[block], k, read(tiles, v_ref, here))
        _write_rows(tiles, dh_ref, block, dot(slope, bias.rows))
        return each_onto(dq, slope, k), dot(slope, columns) + dw

    start = dq, jnp.zeros((tiles.queries, tiles.w), jnp.float32)
    dq, dw = jax.lax.fori_loop(0, tiles.blocks, image, start)
    write(tiles, dq_ref, (everything,), dq, tiles.scale)
    dw_ref[...] = dw.astype(dw_ref.dtype)


def _same_for_all(tiles: Tiles, hidden_ref) -> jax.Array:
    """The bias of the text's keys, [queries, keys]."""
    return jnp.broadcast_to(hidden_ref[...][None, :], (tiles.queries, hidden_ref.shape[0]))


def _write_rows(tiles: Tiles, ref, block, values: jax.Array) -> None:
    """The first columns of `values`, [queries, ROWS], to the rows of a block of keys."""
    rows, values = pl.ds(block * tiles.rows, ROWS), values.T.astype(ref.dtype)
    wanted = jax.lax.broadcasted_iota(jnp.int32, values.shape, 0) < tiles.rows
    from jax.experimental.pallas import triton

    triton.store(ref.at[rows, :], values, mask=wanted)


def by_keys(
    tiles: Tiles,
    q_ref, k_ref, v_ref, rh_ref, rw_ref, g_ref, sum_ref, delta_ref, _, dqkv_ref,
):  # fmt: skip
    """Gradients of a block of the image's keys and values."""
    columns, rows = spread_columns(tiles, k_ref.dtype), spread_rows(tiles, k_ref.dtype)
    of_block = pl.ds(pl.program_id(0) * tiles.rows, ROWS)

    def bias(here):
        of_column = rw_ref[here, :].T
        if tiles.rows > 1:
            of_column = dot(columns, of_column)
        return dot(rows, rh_ref[of_block, here]) + of_column

    dk, dv = _sum_over_queries(tiles, bias, q_ref, k_ref, v_ref, g_ref, sum_ref, delta_ref)
    write(tiles, dqkv_ref, (slice(None), 1), dk, tiles.scale)
    write(tiles, dqkv_ref, (slice(None), 2), dv)


def by_text(tiles: Tiles, q_ref, tk_ref, tv_ref, hidden_ref, g_ref, sum_ref, delta_ref, dtext_ref):
    """Gradients of the text's keys and values."""

    def bias(here):
        return jnp.broadcast_to(hidden_ref[...][:, None], (hidden_ref.shape[0], tiles.queries))

    dk, dv = _sum_over_queries(tiles, bias, q_ref, tk_ref, tv_ref, g_ref, sum_ref, delta_ref)
    write(tiles, dtext_ref, (slice(None), 0), dk, tiles.scale)
    write(tiles, dtext_ref, (slice(None), 1), dv)


def _sum_over_queries(tiles, bias, q_ref, k_ref, v_ref, g_ref, sum_ref, delta_ref):
    """Gradients of a block of keys and values, whose scores lie with the queries last."""
    everything, factor = slice(None), tiles.scale * LOG2_E
    k, v = read(tiles, k_ref, everything), read(tiles, v_ref, everything)

    def add(block, carry):
        dk, dv = carry
        here = pl.ds(block * tiles.queries, tiles.queries)
        q, g = read(tiles, q_ref, here), read(tiles, g_ref, here)
        start = bias(here).astype(jnp.float32)
        weights = power(tiles, onto(start, k, q), factor, -sum_ref[here][None, :])
        slope = weights * (onto(jnp.zeros_like(start), v, g) - delta_ref[here][None, :])
        dv = each_onto(dv, weights.astype(v_ref.dtype), g)
        return each_onto(dk, slope.astype(k_ref.dtype), q), dv

    start = zeros(tiles, k[0].shape[0]), zeros(tiles, k[0].shape[0])
    return jax.lax.fori_loop(0, q_ref.shape[0] // tiles.queries, add, start)


def unrelate_rows(tiles: Tiles, q_ref, band_ref, rel_ref, dq_in_ref, dq_ref, dband_ref):
    """What `relate_rows` gives back: `dq_ref` more than `dq_in_ref`, and the band's gradient."""
    _unrelate(tiles, lambda i: rel_ref[i, ...], q_ref, band_ref, dq_in_ref, dq_ref, dband_ref)


def unrelate_columns(tiles: Tiles, q_ref, band_ref, rel_ref, dq_in_ref, dq_ref, dband_ref):
    """As `unrelate_rows`, of `relate_columns`."""
    _unrelate(tiles, lambda i: rel_ref[i, ...].T, q_ref, band_ref, dq_in_ref, dq_ref, dband_ref)


def _unrelate(tiles, slope_of, q_ref, band_ref, dq_in_ref, dq_ref, dband_ref):
    """Over all heads; their gradients of a line's relative terms are [keys, queries]."""
    band = read(tiles, band_ref, slice(None))

    def head(i, dband):
        slope = slope_of(i)
        before = read(tiles, dq_in_ref, slice(None), i)
        dq = each_onto([x.astype(jnp.float32) for x in before], slope.T, band)
        write(tiles, dq_ref, (slice(None), i), dq)
        return each_onto(dband, slope, read(tiles, q_ref, slice(None), i))

    start, heads = zeros(tiles, band[0].shape[0]), q_ref.shape[1]
    write(tiles, dband_ref, (slice(None),), jax.lax.fori_loop(0, heads, head, start))

"""Relative positions of packed attention: their terms for every query, and back.

Each query meets the row of its band that belongs to its own row (column) of the grid, so a program
takes a line of the grid; `packed_kernels` has the products.
"""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from dit_jax.ops.attention import packed_launch as launch
from dit_jax.ops.attention.packed_kernels import ROWS


def relate_rows(qkv, band):
    """[b, k, h + ROWS, n], divided by the scale; the last rows are zero."""
    (b, n, _, heads, c), h = qkv.shape, band.shape[0]
    w = n // h
    rel = launch.run(
        "relate_rows",
        launch.tiles("relate_rows", (h, w), c),
        (h, heads, b),
        in_specs=[
            pl.BlockSpec((None, w, None, None, c), lambda i, k, b: (b, i, 0, k, 0)),
            pl.BlockSpec((None, h, c), lambda i, k, b: (i, 0, 0)),
        ],
        out_specs=pl.BlockSpec((None, None, h + ROWS, w), lambda i, k, b: (b, k, 0, i)),
        out_shape=jax.ShapeDtypeStruct((b, heads, h + ROWS, n), qkv.dtype),
    )
    return rel(qkv, band)


def relate_columns(qkv, band):
    """[b, k, n, w], divided by the scale."""
    (b, n, _, heads, c), w = qkv.shape, band.shape[0]
    h = n // w
    rel = launch.run(
        "relate_columns",
        launch.tiles("relate_columns", (h, w), c),
        (w, heads, b),
        in_specs=[
            pl.BlockSpec((None, h, None, None, None, c), lambda i, k, b: (b, 0, i, 0, k, 0)),
            pl.BlockSpec((None, w, c), lambda i, k, b: (i, 0, 0)),
        ],
        out_specs=pl.BlockSpec((None, None, h, None, w), lambda i, k, b: (b, k, 0, i, 0)),
        out_shape=jax.ShapeDtypeStruct((b, heads, h, w, w), qkv.dtype),
    )(qkv.reshape(b, h, w, 3, heads, c), band)
    return rel.reshape(b, heads, n, w)


def unrelate_rows(qkv, band, slope, dqkv):
    """`dqkv` with what the queries' `rel_h` add, and the gradient of `band`."""
    (_, n, _, heads, c), h = qkv.shape, band.shape[0]
    w = n // h
    line = pl.BlockSpec((None, w, None, heads, c), lambda i, b: (b, i, 0, 0, 0))
    slopes = pl.BlockSpec((None, heads, h, w), lambda i, b: (b, 0, 0, i))
    return _unrelate("unrelate_rows", (h, w), line, slopes, qkv, band, slope, dqkv)


def unrelate_columns(qkv, band, slope, dqkv):
    """As `unrelate_rows`, of the queries' `rel_w`."""
    (b, n, _, heads, c), w = qkv.shape, band.shape[0]
    h = n // w
    line = pl.BlockSpec((None, h, None, None, heads, c), lambda i, b: (b, 0, i, 0, 0, 0))
    slopes = pl.BlockSpec((None, heads, h, None, w), lambda i, b: (b, 0, 0, i, 0))
    split = qkv.reshape(b, h, w, 3, heads, c), band, slope.reshape(b, heads, h, w, w)
    dsplit = dqkv.reshape(b, h, w, 3, heads, c)
    dsplit, dband = _unrelate("unrelate_columns", (h, w), line, slopes, *split, dsplit)
    return dsplit.reshape(qkv.shape), dband


def _unrelate(name, grid, line, slopes, qkv, band, slope, dqkv):
    """One program a line of the grid and picture; the band's gradient is summed over pictures."""
    (side, _, c), b = band.shape, qkv.shape[0]
    dqkv, dband = launch.run(
        name,
        launch.tiles(name, grid, c),
        (side, b),
        in_specs=[line, pl.BlockSpec((None, side, c), lambda i, b: (i, 0, 0)), slopes, line],
        out_specs=[line, pl.BlockSpec((None, None, side, c), lambda i, b: (b, i, 0, 0))],
        out_shape=[
            jax.ShapeDtypeStruct(dqkv.shape, dqkv.dtype),
            jax.ShapeDtypeStruct((b, side, side, c), jnp.float32),
        ],
        input_output_aliases={3: 0},
    )(qkv, band, slope, dqkv)
    return dqkv, dband.sum(axis=0)

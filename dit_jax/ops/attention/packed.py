"""Attention of an image over itself and text, from packed queries, keys and values: NVIDIA GPUs.

`x·W + b` of a block gives queries, keys and values in one array. Taking them apart, turning heads
outwards and putting relative positions and text beside them took 8 ms of a forward pass's 42 on an
H200 (ViT-B, batch 64), matrix products 14. These kernels read the packed array and write its
gradient. `packed_kernels.py` has the arithmetic; here is what calls it and ties its
two directions together.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jaxtyping import Bool, Float

from dit_jax.ops.arrays import Array
from dit_jax.ops.attention import packed_launch as launch
from dit_jax.ops.attention import packed_relative as relative
from dit_jax.ops.attention.packed_kernels import ROWS
from dit_jax.ops.rematerialise import ATTENDED

MASK_VALUE = -3e4
TEXT = 32  # text is filled up to it, or to a larger power of two

Bands = tuple[Float[Array, "h h c"], Float[Array, "w w c"]]


def attend_packed(
    qkv: Float[Array, "b n 3 k c"],
    text: Float[Array, "b l 2 k c"] | None,
    bands: Bands,
    text_mask: Bool[Array, "b l"] | None = None,
    *,
    kernels: tuple[Callable, Callable, Callable] | None = None,
) -> Float[Array, "b n k c"]:
    """softmax(q·k / √c + relative positions)·v over `[image; text]`, for the image's n queries.

    Args:
      qkv: queries, keys and values of an h·w grid.
      text: keys and values of the text.
      bands: `band[i, i']` belongs to queries in row (column) i and keys in row (column) i'.
      text_mask: False hides a token.
      kernels: what computes relative terms and both directions in the place of Triton's
        (`mosaic`).
    """
    b, _, _, heads, c = qkv.shape
    if text is None:
        text, text_mask = jnp.zeros((b, TEXT, 2, heads, c), qkv.dtype), jnp.zeros((b, TEXT), bool)
    length = text.shape[1]
    full = max(TEXT, pl.next_power_of_2(length)) - length
    text = jnp.pad(text, ((0, 0), (0, full), (0, 0), (0, 0), (0, 0)))
    seen = jnp.ones((b, length), bool) if text_mask is None else text_mask
    hidden = jnp.where(jnp.pad(seen, ((0, 0), (0, full))), 0.0, MASK_VALUE * c**0.5)
    bands = tuple(band.astype(qkv.dtype) for band in bands)
    return _attend(
        kernels or (_relate, _run_forward, _run_backward),
        qkv,
        text,
        *bands,
        hidden.astype(jnp.float32),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(kernels, qkv, text, band_h, band_w, hidden):
    return _forward(kernels, qkv, text, band_h, band_w, hidden)[0]


def _forward(kernels, qkv, text, band_h, band_w, hidden):
    relate, forward, _ = kernels
    rel = relate(qkv, band_h, band_w)
    out, log_sum = forward(qkv, text, *rel, hidden)
    out, log_sum = checkpoint_name(out, ATTENDED), checkpoint_name(log_sum, ATTENDED)
    return out, (qkv, text, band_h, band_w, *rel, hidden, out, log_sum)


def _backward(kernels, residuals, g):
    *inputs, out, log_sum = residuals
    _, _, band_h, band_w, *_ = inputs
    dqkv, dtext, dband_h, dband_w = kernels[2](*inputs, g.astype(out.dtype), log_sum, out)
    return dqkv, dtext, dband_h.astype(band_h.dtype), dband_w.astype(band_w.dtype), None


_attend.defvjp(_forward, _backward)


def _relate(qkv, band_h, band_w):
    return relative.relate_rows(qkv, band_h), relative.relate_columns(qkv, band_w)


def _run_forward(qkv, text, rel_h, rel_w, hidden):
    b, n, _, heads, c = qkv.shape
    tiles = launch.tiles("forward", (rel_h.shape[2] - ROWS, rel_w.shape[3]), c)
    queries = tiles.queries
    return launch.run(
        "forward",
        tiles,
        (n // queries, heads, b),
        in_specs=_for_queries(queries, qkv, text, rel_h, rel_w, hidden),
        out_specs=[
            pl.BlockSpec((None, queries, None, c), lambda i, k, b: (b, i, k, 0)),
            _numbers(queries),
        ],
        out_shape=[
            jax.ShapeDtypeStruct((b, n, heads, c), qkv.dtype),
            jax.ShapeDtypeStruct((b, heads, n), jnp.float32),
        ],
    )(qkv, qkv, qkv, text, text, rel_h, rel_w, hidden)


def _run_backward(qkv, text, band_h, band_w, rel_h, rel_w, hidden, g, log_sum, out):
    both = qkv, text, rel_h, rel_w, hidden, g, log_sum
    dqkv, dh, dw, delta = _by_queries(*both, out)
    dqkv = _by_keys(*both, delta, dqkv)
    dtext = _by_text(qkv, text, hidden, g, log_sum, delta)
    dqkv, dband_h = relative.unrelate_rows(qkv, band_h, dh, dqkv)
    dqkv, dband_w = relative.unrelate_columns(qkv, band_w, dw, dqkv)
    return dqkv, dtext, dband_h, dband_w


def _by_queries(qkv, text, rel_h, rel_w, hidden, g, log_sum, out):
    b, n, _, heads, c = qkv.shape
    tiles = launch.tiles("by_queries", (rel_h.shape[2] - ROWS, rel_w.shape[3]), c)
    queries = tiles.queries
    rows = pl.BlockSpec((None, queries, None, c), lambda i, k, b: (b, i, k, 0))
    terms = [_last(rel_h.shape[2], queries), _rows(queries, rel_w.shape[3])]
    return launch.run(
        "by_queries",
        tiles,
        (n // queries, heads, b),
        in_specs=[
            *_for_queries(queries, qkv, text, rel_h, rel_w, hidden),
            rows,
            rows,
            _numbers(queries),
        ],
        out_specs=[_some(queries, c, 0), *terms, _numbers(queries)],
        out_shape=[
            jax.ShapeDtypeStruct(qkv.shape, qkv.dtype),
            *(jax.ShapeDtypeStruct(rel.shape, rel.dtype) for rel in (rel_h, rel_w)),
            jax.ShapeDtypeStruct(log_sum.shape, jnp.float32),
        ],
    )(qkv, qkv, qkv, text, text, rel_h, rel_w, hidden, g, out, log_sum)


def _by_keys(qkv, text, rel_h, rel_w, hidden, g, log_sum, delta, dqkv):
    """Fills in the keys' and values' part of `dqkv`."""
    b, n, _, heads, c = qkv.shape
    tiles = launch.tiles("by_keys", (rel_h.shape[2] - ROWS, rel_w.shape[3]), c)
    keys = tiles.keys

    everyone = pl.BlockSpec((None, n, None, c), lambda i, k, b: (b, 0, k, 0))
    packed = pl.BlockSpec((None, keys, 3, None, c), lambda i, k, b: (b, i, 0, k, 0))
    numbers = pl.BlockSpec((None, None, n), lambda i, k, b: (b, k, 0))
    return launch.run(
        "by_keys",
        tiles,
        (n // keys, heads, b),
        in_specs=[
            _all(n, c, 0),
            *(_some(keys, c, which) for which in (1, 2)),
            *(
                pl.BlockSpec((None, None, *rel.shape[2:]), lambda i, k, b: (b, k, 0, 0))
                for rel in (rel_h, rel_w)
            ),
            everyone,
            numbers,
            numbers,
            packed,
        ],
        out_specs=packed,
        out_shape=jax.ShapeDtypeStruct(qkv.shape, qkv.dtype),
        input_output_aliases={8: 0},
    )(qkv, qkv, qkv, rel_h, rel_w, g, log_sum, delta, dqkv)


def _by_text(qkv, text, hidden, g, log_sum, delta):
    (b, n, _, heads, c), length = qkv.shape, text.shape[1]
    tiles = launch.tiles("by_text", (n, 1), c)

    everyone = pl.BlockSpec((None, n, None, c), lambda k, b: (b, 0, k, 0))
    numbers = pl.BlockSpec((None, None, n), lambda k, b: (b, k, 0))

    def words(which):
        return pl.BlockSpec((None, length, None, None, c), lambda k, b: (b, 0, which, k, 0))

    return launch.run(
        "by_text",
        tiles,
        (heads, b),
        in_specs=[
            pl.BlockSpec((None, n, None, None, c), lambda k, b: (b, 0, 0, k, 0)),
            words(0),
            words(1),
            pl.BlockSpec((None, length), lambda k, b: (b, 0)),
            everyone,
            numbers,
            numbers,
        ],
        out_specs=pl.BlockSpec((None, length, 2, None, c), lambda k, b: (b, 0, 0, k, 0)),
        out_shape=jax.ShapeDtypeStruct(text.shape, text.dtype),
    )(qkv, text, text, hidden, g, log_sum, delta)


def _for_queries(queries: int, qkv, text, rel_h, rel_w, hidden) -> list[pl.BlockSpec]:
    """What a block of queries reads, in both directions."""
    _, n, _, _, c = qkv.shape
    return [
        _some(queries, c, 0),
        *(_all(n, c, which) for which in (1, 2)),
        *(_all(text.shape[1], c, which) for which in (0, 1)),
        _last(rel_h.shape[2], queries),
        _rows(queries, rel_w.shape[3]),
        _shared(hidden),
    ]


def _some(rows: int, c: int, which: int) -> pl.BlockSpec:
    """The rows whose turn it is, of one of the three in [b, n, 3, k, c]."""
    return pl.BlockSpec((None, rows, None, None, c), lambda i, k, b: (b, i, which, k, 0))


def _all(rows: int, c: int, which: int) -> pl.BlockSpec:
    """All rows of a head, of one of the three (image) or two (text)."""
    return pl.BlockSpec((None, rows, None, None, c), lambda i, k, b: (b, 0, which, k, 0))


def _last(side: int, queries: int) -> pl.BlockSpec:
    """The queries whose turn it is, of [b, k, side, n]."""
    return pl.BlockSpec((None, None, side, queries), lambda i, k, b: (b, k, 0, i))


def _rows(queries: int, side: int) -> pl.BlockSpec:
    """The queries whose turn it is, of [b, k, n, side]."""
    return pl.BlockSpec((None, None, queries, side), lambda i, k, b: (b, k, i, 0))


def _numbers(queries: int) -> pl.BlockSpec:
    """The queries whose turn it is, of [b, k, n]."""
    return pl.BlockSpec((None, None, queries), lambda i, k, b: (b, k, i))


def _shared(hidden: jax.Array) -> pl.BlockSpec:
    """What all heads and queries share."""
    return pl.BlockSpec((None, hidden.shape[1]), lambda i, k, b: (b, 0))

"""Attention by our own Pallas kernels: TPU (Mosaic) and GPU (Triton), any float type.

This file pads a problem to the kernels' blocks, calls them and ties their two directions together;
the arithmetic is in `pallas_kernels.py`. Rows and columns that only fill up the grid carry a
bias that hides them, so the kernels know nothing of padding. On a CPU the kernels are interpreted,
for tests.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl

from dit_jax.ops import platform as devices
from dit_jax.ops.attention import pallas_kernels as kernels
from dit_jax.ops.attention.pallas_kernels import Tiles
from dit_jax.ops.attention.plain import K, Mask, Q, Rel
from dit_jax.ops.rematerialise import ATTENDED

MASK_VALUE = -3e4  # fits float16; e to it is 0


@dataclasses.dataclass(frozen=True)
class Device:
    """Blocks that suit a kind of device."""

    queries: int
    keys: int  # about as many, in whole rows of the grid
    text: int  # text is filled up to a multiple of it
    round_channels: bool  # to a power of two: Triton knows no other blocks


DEVICES = {
    "cpu": Device(queries=128, keys=128, text=16, round_channels=False),
    "gpu": Device(queries=64, keys=64, text=16, round_channels=True),
    "tpu": Device(queries=256, keys=128, text=128, round_channels=False),
}
VMEM = 100 * 2**20  # bytes a TPU kernel may use: a head's keys and values stay there


def attend_pallas(
    q: Q, k: K, v: K, rel: Rel, key_mask: Mask | None, *, platform: str | None = None
) -> Q:
    """As `attention.attend`; relative positions are not optional, the image is never masked.

    Args:
      platform: whose blocks to use, "cpu", "gpu" or "tpu"; by default those of `ops.platform`.
    """
    platform = platform or devices.platform()
    device, (m, c), n = DEVICES[platform], q.shape[2:], k.shape[2]
    h, w = rel[0].shape[-1], rel[1].shape[-1]
    columns = pl.next_power_of_2(max(w, 16 if platform == "gpu" else 8))
    rows = max(1, min(device.keys // columns, pl.next_power_of_2(h)))
    full_h = -(-h // rows) * rows
    full_h = max(pl.next_power_of_2(full_h), 16) if platform == "gpu" else full_h
    tiles = Tiles(device.queries, rows, columns, scale=c**-0.5)
    channels = max(pl.next_power_of_2(c), 16) - c if device.round_channels else 0
    full_m, full_text = -m % tiles.queries, -(n - h * w) % device.text or device.text * (n == h * w)

    q, k, v = (_pad(x, 3, channels) for x in (q, k, v))
    on_grid = [_fill_grid(x[:, :, : h * w], (h, w), (full_h, columns)) for x in (k, v)]
    text = [_pad(x[:, :, h * w :], 2, full_text) for x in (k, v)]
    # Text asks without positions, but may not see what only fills up the grid either.
    rel_h, rel_w = (_pad(x.astype(q.dtype), 2, m - h * w) for x in rel)
    rel_h, rel_w = _pad(rel_h, 3, full_h - h, MASK_VALUE), _pad(rel_w, 3, columns - w, MASK_VALUE)
    hidden = jnp.zeros((q.shape[0], n - h * w), jnp.float32)
    if key_mask is not None:
        hidden = jnp.where(key_mask[:, h * w :], 0.0, MASK_VALUE)
    hidden = _pad(hidden, 1, full_text, MASK_VALUE)[:, None, None]
    q, rel_h, rel_w = (_pad(x, 2, full_m) for x in (q, rel_h, rel_w))
    return _attend((tiles, platform), q, *on_grid, *text, rel_h, rel_w, hidden)[:, :, :m, :c]


def _pad(x: jax.Array, axis: int, count: int, value: float = 0.0) -> jax.Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, count)
    return jnp.pad(x, widths, constant_values=value)


def _fill_grid(x: jax.Array, grid: tuple[int, int], full: tuple[int, int]) -> jax.Array:
    """[b, k, h·w, c] to [b, k, H·W, c]."""
    if grid == full:
        return x
    x = x.reshape(*x.shape[:2], *grid, x.shape[-1])
    x = _pad(_pad(x, 2, full[0] - grid[0]), 3, full[1] - grid[1])
    return x.reshape(*x.shape[:2], math.prod(full), x.shape[-1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(how, q, k, v, tk, tv, rel_h, rel_w, hidden):
    return _forward(how, q, k, v, tk, tv, rel_h, rel_w, hidden)[0]


def _forward(how, *arrays):
    out, log_sum = _run_forward(how, *arrays)
    log_sum = log_sum[..., 0]  # a last axis of 1 is 128 wide in a TPU's memory
    out, log_sum = checkpoint_name(out, ATTENDED), checkpoint_name(log_sum, ATTENDED)
    return out, (*arrays, out, log_sum)


def _backward(how, residuals, g):
    *arrays, out, log_sum = residuals
    delta = jnp.sum(out.astype(jnp.float32) * g.astype(jnp.float32), axis=-1, keepdims=True)
    return *_run_backward(how, *arrays, g.astype(out.dtype), log_sum[..., None], delta), None


_attend.defvjp(_forward, _backward)


def _run_forward(how, q, k, v, tk, tv, rel_h, rel_w, hidden):
    tiles, _ = how
    grid = (*q.shape[:2], q.shape[2] // tiles.queries)
    some = functools.partial(_some, tiles.queries)
    return _call(
        functools.partial(kernels.forward, tiles),
        how,
        grid,
        in_specs=[some(q), *map(_all, (k, v, tk, tv)), some(rel_h), some(rel_w), _shared(hidden)],
        out_specs=[some(q), _rows(tiles.queries)],
        out_shape=[_like(q), jax.ShapeDtypeStruct((*q.shape[:3], 1), jnp.float32)],
    )(q, k, v, tk, tv, rel_h, rel_w, hidden)


def _run_backward(how, q, k, v, tk, tv, rel_h, rel_w, hidden, g, log_sum, delta):
    """Three calls: one for queries, one for the image's keys, one for the text's."""
    tiles, _ = how
    some, each = functools.partial(_some, tiles.queries), functools.partial(_some, tiles.keys)
    rows = _rows(tiles.queries)
    dq, dh, dw = _call(
        functools.partial(kernels.by_queries, tiles),
        how,
        (*q.shape[:2], q.shape[2] // tiles.queries),
        in_specs=[some(q), *map(_all, (k, v, tk, tv)), some(rel_h), some(rel_w), _shared(hidden)]
        + [some(g), rows, rows],
        out_specs=[some(q), some(rel_h), some(rel_w)],
        out_shape=[_like(q), _like(rel_h), _like(rel_w)],
    )(q, k, v, tk, tv, rel_h, rel_w, hidden, g, log_sum, delta)
    dk, dv = _call(
        functools.partial(kernels.by_keys, tiles),
        how,
        (*k.shape[:2], k.shape[2] // tiles.keys),
        in_specs=[_all(q), each(k), each(v), *map(_all, (rel_h, rel_w, g, log_sum, delta))],
        out_specs=[each(k), each(v)],
        out_shape=[_like(k), _like(v)],
    )(q, k, v, rel_h, rel_w, g, log_sum, delta)
    dtk, dtv = _call(
        functools.partial(kernels.by_text, tiles),
        how,
        (*tk.shape[:2], 1),
        in_specs=[*map(_all, (q, tk, tv)), _shared(hidden), *map(_all, (g, log_sum, delta))],
        out_specs=[_all(tk), _all(tv)],
        out_shape=[_like(tk), _like(tv)],
    )(q, tk, tv, hidden, g, log_sum, delta)
    return dq, dk, dv, dtk, dtv, dh, dw


def _call(kernel, how, grid, **specs):
    parameters = {}
    if how[1] == "tpu":
        from jax.experimental.pallas import tpu

        parameters = dict(compiler_params=tpu.CompilerParams(vmem_limit_bytes=VMEM))
    elif how[1] == "gpu":
        from jax.experimental.pallas import triton

        parameters = dict(compiler_params=triton.CompilerParams(num_warps=4, num_stages=2))
    return pl.pallas_call(kernel, grid=grid, interpret=interpreted(), **parameters, **specs)


def interpreted() -> bool:
    """Whether the kernels run as ordinary JAX: there is no device for them."""
    return devices.platform() == "cpu"


def _some(rows: int, x: jax.Array) -> pl.BlockSpec:
    """The block of rows whose turn it is, of [b, k, rows, …]."""
    return pl.BlockSpec((None, None, rows, x.shape[3]), lambda b, k, i: (b, k, i, 0))


def _rows(rows: int) -> pl.BlockSpec:
    """As `_some`, one number a row."""
    return pl.BlockSpec((None, None, rows, 1), lambda b, k, i: (b, k, i, 0))


def _all(x: jax.Array) -> pl.BlockSpec:
    """All rows of one head."""
    return pl.BlockSpec((None, None, *x.shape[2:]), lambda b, k, i: (b, k, 0, 0))


def _shared(x: jax.Array) -> pl.BlockSpec:
    """What all heads share."""
    return pl.BlockSpec((None, None, *x.shape[2:]), lambda b, k, i: (b, 0, 0, 0))


def _like(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)

"""The letterbox and its inverse on the device, for pictures of any size in one compiled program.

A picture lies in the top left corner of an array that may be larger; its own height and width are
values, not shapes. Positions are whole numbers over twice the output's side, so they are exact at
every size. The arithmetic is OpenCV's INTER_LINEAR, which the input pipeline uses: on bytes its
fixed point (11 bits a weight), on logits float32 (see tests/ops/test_letterbox.py).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, UInt8

from dit_jax.ops.arrays import Array

WEIGHT_BITS = 11  # OpenCV's INTER_RESIZE_COEF_BITS
Index = Int[Array, " n"]


class Taps(NamedTuple):
    """The two input samples of every output sample, and the second one's weight."""

    low: Index
    high: Index
    weight: Float[Array, " n"]
    inside: Bool[Array, " n"]  # the output has this sample

    def shifted(self, start: Int[Array, ""]) -> "Taps":
        """The same samples of an input that begins at `start`."""
        return self._replace(low=self.low + start, high=self.high + start)


def taps(position: Index, n: Int[Array, ""], out: Int[Array, ""]) -> Taps:
    """Linear resizing of `n` samples to `out`: half-pixel centres, no antialiasing."""
    twice = (2 * position + 1) * n - out  # the source position, times 2·out
    low = twice // (2 * out)
    weight = (twice - low * 2 * out).astype(jnp.float32) / (2 * out).astype(jnp.float32)
    inside = (position >= 0) & (position < out)
    return Taps(jnp.clip(low, 0, n - 1), jnp.clip(low + 1, 0, n - 1), weight, inside)


def content_box(size: Int[Array, "b 2"], canvas: int) -> Int[Array, "b 4"]:
    """Top, left, height and width of pictures of `size` (height, width) in a square canvas.

    Rounds halves to even, as Python does. Sides up to 2³⁰ / `canvas` pixels.
    """
    long = jnp.max(size, axis=1, keepdims=True)
    scaled = size * canvas
    whole, rest = scaled // long, scaled % long
    up = (2 * rest > long) | ((2 * rest == long) & (whole % 2 == 1))
    extent = jnp.maximum(whole + up, 1)
    return jnp.concatenate([(canvas - extent) // 2, extent], axis=1)


def letterbox(
    images: UInt8[Array, "b H W 3"],
    size: Int[Array, "b 2"],
    content: Int[Array, "b 4"],
    canvas: int,
) -> UInt8[Array, "b S S 3"]:
    """Each picture resized into its content box; the rest of the canvas is 0."""

    def one(image, size, content):
        place = jnp.arange(canvas)
        rows = taps(place - content[0], size[0], content[2])
        columns = taps(place - content[1], size[1], content[3])
        picture = _blend_bytes(image, rows, columns)
        within = rows.inside[:, None] & columns.inside[None, :]
        return jnp.where(within[..., None], picture, 0).astype(jnp.uint8)

    return jax.vmap(one)(images, size, content)


def restore(
    logits: Float[Array, "b S S"],
    size: Int[Array, "b 2"],
    content: Int[Array, "b 4"],
    shape: tuple,
) -> tuple[Float[Array, "b H W"], Bool[Array, "b H W"]]:
    """The inverse for logits: crop, then resize to each picture's own size.

    Args:
      shape: (H, W) of the arrays that the pictures lie in.

    Returns the logits, and which of them belong to the picture.
    """

    def one(logits, size, content):
        rows = taps(jnp.arange(shape[0]), content[2], size[0])
        columns = taps(jnp.arange(shape[1]), content[3], size[1])
        picture = _blend(logits, rows.shifted(content[0]), columns.shifted(content[1]))
        return picture, rows.inside[:, None] & columns.inside[None, :]

    return jax.vmap(one)(logits, size, content)


def _blend(x: Float[Array, "h w"], rows: Taps, columns: Taps) -> Float[Array, "H W"]:
    right, down = columns.weight[None, :], rows.weight[:, None]
    top, bottom = (
        _at(x, row, columns.low) * (1 - right) + _at(x, row, columns.high) * right
        for row in (rows.low, rows.high)
    )
    return top * (1 - down) + bottom * down


def _blend_bytes(x: UInt8[Array, "h w c"], rows: Taps, columns: Taps) -> Int[Array, "H W c"]:
    """As OpenCV does: products of whole numbers, cut to 16 bits on the way, rounded at the end."""
    one = 1 << WEIGHT_BITS
    right = jnp.round(columns.weight * one).astype(jnp.int32)[None, :, None]
    down = jnp.round(rows.weight * one).astype(jnp.int32)[:, None, None]
    top, bottom = (
        _at(x, row, columns.low).astype(jnp.int32) * (one - right)
        + _at(x, row, columns.high).astype(jnp.int32) * right
        for row in (rows.low, rows.high)
    )
    upper, lower = (top >> 4) * (one - down) >> 16, (bottom >> 4) * down >> 16
    return (upper + lower + 2) >> 2


def _at(x, row, column):
    return x.at[row[:, None], column[None, :]].get(mode="clip")

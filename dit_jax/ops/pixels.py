"""Pixels to the encoder's input, on the device: uint8 travels, float32 is made where it is used."""

import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, UInt8

from dit_jax.ops.arrays import Array

MEAN = (123.675, 116.28, 103.53)  # ImageNet, RGB, times 255
STD = (58.395, 57.12, 57.375)


def normalize(
    image: UInt8[Array, "b S S 3"], content: Int[Array, "b 4"]
) -> Float[Array, "b S S 3"]:
    """(x − mean) / std inside the picture, zero around it (padding comes after normalisation).

    Args:
      content: top, left, height and width of the picture inside its canvas.
    """
    mean, std = (jnp.asarray(x, jnp.float32)[None, None, None] for x in (MEAN, STD))
    normal = (image.astype(jnp.float32) - mean) / std
    return jnp.where(inside(content, image.shape[1])[..., None], normal, 0.0)


def inside(content: Int[Array, "b 4"], size: int) -> Bool[Array, "b S S"]:
    """Which pixels of a square canvas belong to the picture."""
    start, extent = content[:, :2, None], content[:, 2:, None]
    position = jnp.arange(size)[None, None]
    within = (position >= start) & (position < start + extent)  # [b, 2, S]
    return within[:, 0, :, None] & within[:, 1, None, :]

"""Points and boxes as people would give them, drawn from masks inside a jitted step.

After Kirillov et al. 2023, Sec. 4 and App. A. Coordinates are (x, y) in pixels of the canvas; rows
whose mask is empty get numbers that mean nothing.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from dit_jax.ops.arrays import Array

NOISE, MOST_NOISE = 0.1, 20 / 1024  # of the box's side, and of the canvas's

Masks = Bool[Array, "b S S"]
Points = Float[Array, "b 2"]


def boxes(key: Array, masks: Masks) -> Float[Array, "b 4"]:
    """x0, y0, x1, y1 around each mask, every side moved by a tenth of the box's, at random."""
    size = masks.shape[-1]
    tight = bounds(masks)
    sides = jnp.tile(tight[:, 2:] - tight[:, :2], 2)
    noise = NOISE * sides * jax.random.normal(key, tight.shape)
    most = MOST_NOISE * size
    return jnp.clip(tight + jnp.clip(noise, -most, most), 0, size)


def bounds(masks: Masks) -> Float[Array, "b 4"]:
    """x0, y0, x1, y1 around each mask, the ends exclusive."""
    size = masks.shape[-1]
    columns, rows = masks.any(axis=1), masks.any(axis=2)
    first = [jnp.argmax(axis, axis=1) for axis in (columns, rows)]
    last = [size - jnp.argmax(axis[:, ::-1], axis=1) for axis in (columns, rows)]
    return jnp.stack([*first, *last], axis=1).astype(jnp.float32)


def points(key: Array, regions: Masks) -> Points:
    """A pixel of each region, all of them equally likely."""
    flat = regions.reshape(len(regions), -1)
    drawn = jax.random.categorical(key, jnp.where(flat, 0.0, -jnp.inf))
    return jnp.stack([drawn % regions.shape[-1], drawn // regions.shape[-1]], axis=1).astype(
        jnp.float32
    )


def corrections(key: Array, truth: Masks, answer: Masks) -> tuple[Points, Int[Array, " b"]]:
    """A pixel that is wrong in each answer, and its label: 1 where it is missing, 0 where it is too
    much. Where nothing is wrong, a pixel of the object."""
    wrong = truth ^ answer
    regions = jnp.where(wrong.any(axis=(1, 2), keepdims=True), wrong, truth)
    found = points(key, regions)
    x, y = found.astype(jnp.int32).T
    missing = jax.vmap(lambda mask, y, x: mask[y, x])(truth, y, x)  # each row from its own mask
    return found, missing.astype(jnp.int32)

"""Attention as its definition says, scores and all: what every back end is held to."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from dit_jax.ops.arrays import Array

Q = Float[Array, "b k m c"]
K = Float[Array, "b k n c"]  # and values
Rel = tuple[Float[Array, "b k hw h"], Float[Array, "b k hw w"]]
Mask = Bool[Array, "b n"]


def attend_plain(q: Q, k: K, v: K, rel: Rel | None, key_mask: Mask | None) -> Q:
    """As `attention.attend`; a [b, k, m, n] array of scores is made."""
    weights = jax.nn.softmax(scores(q, k, rel, key_mask), axis=-1).astype(v.dtype)
    return jnp.einsum("bkmn,bknc->bkmc", weights, v)


def scores(q: Q, k: K, rel: Rel | None, key_mask: Mask | None) -> Float[Array, "b k m n"]:
    """What softmax takes: q·k / √c + bias, in float32."""
    found = jnp.einsum("bkmc,bknc->bkmn", q, k, preferred_element_type=jnp.float32)
    found = found * q.shape[-1] ** -0.5
    if rel is not None:
        rows, columns = (x.astype(jnp.float32) for x in rel)
        bias = rows[..., :, None] + columns[..., None, :]
        bias = bias.reshape(*bias.shape[:3], -1)
        text = [(0, whole - image) for whole, image in zip(found.shape, bias.shape, strict=True)]
        found = found + jnp.pad(bias, text)
    if key_mask is not None:
        found = jnp.where(key_mask[:, None, None, :], found, jnp.finfo(jnp.float32).min)
    return found

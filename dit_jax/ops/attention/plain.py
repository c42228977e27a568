"""Attention as its definition says, scores and all: what every back end is held to."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from dit_jax.ops.arrays import Array

Rel = tuple[Float[Array, "b k hw h"], Float[Array, "b k hw w"]]


def attend_plain(
    q: Float[Array, "b k m c"],
    k: Float[Array, "b k n c"],
    v: Float[Array, "b k n c"],
    rel: Rel | None,
    key_mask: Bool[Array, "b n"] | None,
) -> Float[Array, "b k m c"]:
    """As `attention.attend`; a [b, k, m, n] array of scores is made."""
    scores = jnp.einsum("bkmc,bknc->bkmn", q, k, preferred_element_type=jnp.float32)
    scores = scores * q.shape[-1] ** -0.5
    if rel is not None:
        scores = _add_relative(scores, *rel)
    if key_mask is not None:
        scores = jnp.where(key_mask[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("bkmn,bknc->bkmc", weights, v)


def _add_relative(scores, rel_h, rel_w):
    b, heads, image, h = rel_h.shape
    w = rel_w.shape[-1]
    bias = rel_h[..., :, None].astype(jnp.float32) + rel_w[..., None, :].astype(jnp.float32)
    bias = bias.reshape(b, heads, image, h * w)
    text_rows, text_columns = scores.shape[2] - image, scores.shape[3] - h * w
    return scores + jnp.pad(bias, ((0, 0), (0, 0), (0, text_rows), (0, text_columns)))

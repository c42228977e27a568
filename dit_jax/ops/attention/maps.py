"""The probabilities that `attention.attend` uses and throws away, averaged over heads.

Only columns that are asked for are kept, and one head is computed after the other: what is stored
is [b, m, l], not [b, k, m, n].
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from dit_jax.ops.arrays import Array


def attended(
    q: Float[Array, "b k m c"],
    k: Float[Array, "b k n c"],
    *,
    keys: slice,
    rel: tuple[Float[Array, "b k hw h"], Float[Array, "b k hw w"]] | None = None,
    key_mask: Bool[Array, "b n"] | None = None,
) -> Float[Array, "b m l"]:
    """How much of its attention each query gives to each of the l keys `keys`, in float32.

    Over all n keys the rows sum to 1. `rel` and `key_mask` are those of `attend`.
    """

    def one_head(head):
        q, k, rel = head
        scores = jnp.einsum("bmc,bnc->bmn", q, k, preferred_element_type=jnp.float32)
        scores = scores * q.shape[-1] ** -0.5
        if rel is not None:
            scores = _add_relative(scores, *rel)
        if key_mask is not None:
            scores = jnp.where(key_mask[:, None, :], scores, jnp.finfo(jnp.float32).min)
        return jax.nn.softmax(scores, axis=-1)[..., keys]

    by_head = jax.tree.map(lambda x: x.swapaxes(0, 1), (q, k, rel))
    return jax.lax.map(one_head, by_head).mean(axis=0)


def _add_relative(scores, rel_h, rel_w):
    """To the first h·w queries and keys, which are the image's."""
    b, image, h = rel_h.shape
    bias = (rel_h[..., :, None] + rel_w[..., None, :]).reshape(b, image, h * rel_w.shape[-1])
    return scores.at[:, :image, : bias.shape[-1]].add(bias.astype(jnp.float32))

"""The probabilities that `attention.attend` uses and throws away, averaged over heads.

Only columns that are asked for are kept, and one head is computed after the other: what is stored
is [b, m, l], not [b, k, m, n].
"""

import jax
from jaxtyping import Float

from dit_jax.ops.arrays import Array
from dit_jax.ops.attention.plain import K, Mask, Q, Rel, scores


def attended(
    q: Q, k: K, *, keys: slice, rel: Rel | None = None, key_mask: Mask | None = None
) -> Float[Array, "b m l"]:
    """How much of its attention each query gives to each of the l keys `keys`, in float32.

    Over all n keys the rows sum to 1. `rel` and `key_mask` are those of `attend`.
    """

    def one_head(head):
        q, k, rel = jax.tree.map(lambda x: x[:, None], head)
        return jax.nn.softmax(scores(q, k, rel, key_mask), axis=-1)[:, 0, :, keys]

    by_head = jax.tree.map(lambda x: x.swapaxes(0, 1), (q, k, rel))
    return jax.lax.map(one_head, by_head).mean(axis=0)

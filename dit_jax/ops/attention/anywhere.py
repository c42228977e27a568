"""Attention in a program for several kinds of devices, whose number of rows need not be known."""

import jax

from dit_jax.ops.attention.plain import K, Mask, Q, Rel, attend_plain

LONG = 1 << 19  # scores of one head above which a CPU takes one head after another


def attend_anywhere(q: Q, k: K, v: K, rel: Rel | None, key_mask: Mask | None) -> Q:
    """As `attention.attend`; on a CPU head by head, on others all at once."""
    if q.shape[2] * k.shape[2] <= LONG:
        return attend_plain(q, k, v, rel, key_mask)
    operands, static = jax.tree.flatten((q, k, v, rel, key_mask))

    def of(implementation):
        return lambda *leaves: implementation(*jax.tree.unflatten(static, leaves))

    return jax.lax.platform_dependent(*operands, cpu=of(_by_head), default=of(attend_plain))


def _by_head(q, k, v, rel, key_mask):
    """All rows together, because their number may be a symbol."""

    def one_head(head):
        q, k, v, rel = jax.tree.map(lambda x: x[:, None], head)
        return attend_plain(q, k, v, rel, key_mask)[:, 0]

    heads_first = jax.tree.map(lambda x: x.swapaxes(0, 1), (q, k, v, rel))
    return jax.lax.map(one_head, heads_first).swapaxes(0, 1)

"""Packed attention by Pallas' Mosaic GPU, for Hopper: nothing of it needs Triton, which JAX leaves.

In: what `packed` prepares. Out: both directions of it, `relate` to `backward`. Read `launch`, what
a program is, then `forward`; `by_queries` and `by_keys` go back. `relative` is plain JAX.
"""

import jax.numpy as jnp

from dit_jax.ops.attention.mosaic.by_keys import by_keys, by_words
from dit_jax.ops.attention.mosaic.by_queries import by_queries
from dit_jax.ops.attention.mosaic.forward import forward
from dit_jax.ops.attention.mosaic.launch import refusal
from dit_jax.ops.attention.mosaic.relative import relate, unrelate

__all__ = ["backward", "forward", "refusal", "relate"]


def backward(qkv, text, band_h, band_w, rel_h, rel_w, hidden, g, log_sum, out):
    """Gradients of packed arrays, text and bands; arguments are `forward`'s and its results."""
    dq, dh, dw, delta = by_queries(qkv, text, rel_h, rel_w, hidden, g, log_sum, out)
    dkv = by_keys(qkv, text, rel_h, rel_w, g, log_sum, delta)
    dtext = by_words(qkv, text, rel_w, hidden, g, log_sum, delta)
    more, dband_h, dband_w = unrelate(qkv, band_h, band_w, dh, dw)
    dq = (dq.astype(jnp.float32) + more).astype(dq.dtype)
    return jnp.concatenate([dq[:, :, None], dkv], axis=2), dtext, dband_h, dband_w

"""Relative positions of packed attention in JAX itself: their terms for every query, and back."""

import jax
import jax.numpy as jnp


def relate(qkv, band_h, band_w) -> tuple[jax.Array, jax.Array]:
    """[b, k, h, n] and [b, k, n, w], divided by the scale."""
    q, scale = _queries(qkv, band_h, band_w), qkv.shape[4] ** -0.5
    b, h, w, heads, _ = q.shape
    wide = dict(preferred_element_type=jnp.float32)
    rel_h = jnp.einsum("bhwkc,hic->bkihw", q, band_h, **wide) / scale
    rel_w = jnp.einsum("bhwkc,wjc->bkhwj", q, band_w, **wide) / scale
    rel_h, rel_w = rel_h.reshape(b, heads, h, h * w), rel_w.reshape(b, heads, h * w, w)
    return rel_h.astype(qkv.dtype), rel_w.astype(qkv.dtype)


def unrelate(qkv, band_h, band_w, dh, dw):
    """What `relate` gives back: [b, n, k, c] of the queries, and the gradients of both bands."""
    q, wide = _queries(qkv, band_h, band_w), dict(preferred_element_type=jnp.float32)
    b, h, w, heads, c = q.shape
    dh, dw = dh.reshape(b, heads, h, h, w), dw.reshape(b, heads, h, w, w)
    dq = jnp.einsum("bkihw,hic->bhwkc", dh, band_h, **wide)
    dq += jnp.einsum("bkhwj,wjc->bhwkc", dw, band_w, **wide)
    dband_h = jnp.einsum("bkihw,bhwkc->hic", dh, q, **wide)
    dband_w = jnp.einsum("bkhwj,bhwkc->wjc", dw, q, **wide)
    return dq.reshape(b, h * w, heads, c), dband_h, dband_w


def _queries(qkv, band_h, band_w):
    b, _, _, heads, c = qkv.shape
    return qkv[:, :, 0].reshape(b, len(band_h), len(band_w), heads, c)

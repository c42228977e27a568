"""Relative positions folded into the heads' channels, for fused attentions that know no bias.

q' = [q/√c, rel_h, rel_w], k' = [k, one-hot row, one-hot column]: q'·k' is q·k/√c plus the bias.
Text has zeros there. A hidden key needs one channel more: 1 in q', a large negative number in k'.
At 512 px a head of ViT-B or ViT-L is then 128 wide, of ViT-H 144.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dit_jax.ops.arrays import Array
from dit_jax.ops.attention.plain import K, Mask, Q, Rel

STEP = 8  # cuDNN wants widths in multiples of it
MASK_VALUE = -3e4  # fits float16
LANES = 128  # of a TPU's registers


def width(c: int, grid: tuple[int, int] | None, *, masked: bool) -> int:
    """Channels of a folded query or key."""
    return -(-(c + sum(grid or ()) + masked) // STEP) * STEP


def fold(
    q: Q, k: K, rel: Rel, key_mask: Mask | None
) -> tuple[Float[Array, "b k m e"], Float[Array, "b k n e"]]:
    """Queries and keys whose product is the whole score; computed at scale 1."""
    (b, heads, m, c), n = q.shape, k.shape[2]
    h, w = rel[0].shape[-1], rel[1].shape[-1]
    text = ((0, 0), (0, 0), (0, m - h * w), (0, 0))
    asked = [q * jnp.asarray(c**-0.5, q.dtype), *(jnp.pad(x.astype(q.dtype), text) for x in rel)]
    place = jnp.asarray(one_hot(h, w, n), k.dtype)[None, None]
    offered = [k, jnp.broadcast_to(place, (b, heads, n, h + w))]
    if key_mask is not None:
        asked.append(jnp.ones((b, heads, m, 1), q.dtype))
        hidden = jnp.where(key_mask, 0.0, MASK_VALUE).astype(k.dtype)
        offered.append(jnp.broadcast_to(hidden[:, None, :, None], (b, heads, n, 1)))
    e = width(c, (h, w), masked=key_mask is not None)
    return tuple(_widen(jnp.concatenate(parts, axis=-1), e) for parts in (asked, offered))


@functools.lru_cache(maxsize=32)
def one_hot(h: int, w: int, n: int) -> Float[np.ndarray, "n hpw"]:
    """Row and column of every key, the image's first."""
    place, key = np.zeros((n, h + w), np.float32), np.arange(h * w)
    place[key, key // w] = 1
    place[key, h + key % w] = 1
    return place


def _widen(x: jax.Array, channels: int) -> jax.Array:
    return jnp.pad(x, ((0, 0),) * (x.ndim - 1) + ((0, channels - x.shape[-1]),))


def attend_cudnn(q: Q, k: K, v: K, rel: Rel, key_mask: Mask | None) -> Q:
    """As `attention.attend`, by cuDNN's fused attention: NVIDIA, float16 or bfloat16."""
    return attend_folded(q, k, v, rel, key_mask, implementation="cudnn")


def attend_folded(q: Q, k: K, v: K, rel: Rel, key_mask: Mask | None, *, implementation: str) -> Q:
    """`jax.nn.dot_product_attention`, which wants values as wide as keys."""
    c = v.shape[-1]
    q, k = fold(q, k, rel, key_mask)
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, _widen(v, k.shape[-1])))
    y = jax.nn.dot_product_attention(q, k, v, scale=1.0, implementation=implementation)
    return y[..., :c].swapaxes(1, 2)


def attend_splash(
    q: Q, k: K, v: K, rel: Rel, key_mask: Mask | None, *, interpret: bool = False
) -> Q:
    """As `attention.attend`, by JAX's splash attention: TPU."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    m, n, c = q.shape[2], k.shape[2], v.shape[-1]
    q, k = fold(q, k, rel, key_mask)
    channels = -(-q.shape[-1] // LANES) * LANES
    q, k, v = _widen(q, channels), _widen(k, channels), _widen(v, -(-c // LANES) * LANES)
    q, k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % LANES), (0, 0))) for x in (q, k, v))
    block = dict(q=_block(q.shape[2]), kv=_block(k.shape[2]))
    sizes = splash.BlockSizes(
        block_q=block["q"],
        block_kv=block["kv"],
        block_q_dkv=block["q"],
        block_kv_dkv=block["kv"],
        block_q_dq=block["q"],
        block_kv_dq=block["kv"],
    )
    mask = splash.MultiHeadMask([splash.FullMask((q.shape[2], k.shape[2]))] * q.shape[1])
    kernel = splash.make_splash_mha(
        mask, block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=interpret
    )
    # Queries are all of segment 0; keys that only fill up are of segment 1.
    ids = splash.SegmentIds(
        jnp.zeros(q.shape[2], jnp.int32), (jnp.arange(k.shape[2]) >= n).astype(jnp.int32)
    )
    y = jax.vmap(lambda q, k, v: kernel(q, k, v, segment_ids=ids))(q, k, v)
    return y[:, :, :m, :c].astype(v.dtype)


def _block(rows: int) -> int:
    """The largest block up to 512 that divides a multiple of 128."""
    return next(size for size in (512, 384, 256, 128) if rows % size == 0)

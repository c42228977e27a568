"""The few layers that more than one component uses.

Every layer keeps float32 parameters and computes in `dtype`; norms reduce in float32.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Bool, Float, Int

from dit_jax.ops import linear as ops
from dit_jax.ops import norm
from dit_jax.ops.arrays import Array
from dit_jax.ops.attention import attend
from dit_jax.ops.mesh import gather_columns, shard_rows
from dit_jax.ops.rematerialise import HIDDEN

Dtype = str


class OneKey:
    """Stands for `nnx.Rngs` where no values are wanted. Counting keys while shapes are traced takes
    seconds: flax 0.12.8 asks for each count's sharding, which searches the whole trace."""

    def params(self) -> jax.Array:
        return jax.random.key(0)


Rng = nnx.Rngs | OneKey


class Linear(nnx.Linear):
    """Flax's parameters, our arithmetic (`ops.linear`); output in `dtype`.

    Here activations meet the weights that a mesh keeps in pieces. What goes in and what comes out
    lies by rows of the batch, so it is the weights that travel, whatever the model around this is.
    """

    def __call__(self, x: Float[Array, "b *n d"]) -> Float[Array, "b *n out"]:
        x = shard_rows(x.astype(self.dtype))
        return shard_rows(ops.linear(x, self.kernel[...], self.bias[...], self.precision))


def linear(
    n: int, out: int, *, dtype: Dtype, rngs: Rng, precision: ops.Precision | None = None
) -> Linear:
    """`nn.Linear`: float32 weights `[n, out]`, output in `dtype`."""
    return Linear(n, out, dtype=dtype, precision=precision, rngs=rngs)


class Embed(nnx.Embed):
    """Flax's parameters; output in `dtype`. The table travels, for the reason that `Linear` gives:
    split by columns, it would be asked by each device for every device's ids."""

    def __call__(self, ids: Int[Array, "b l"]) -> Float[Array, "b l d"]:
        table = gather_columns(self.embedding[...].astype(self.dtype))
        return jnp.take(table, ids, axis=0)


class LayerNorm(nnx.LayerNorm):
    """Flax's parameters, our arithmetic (`ops.norm`); output in `dtype`."""

    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        x = x.astype(self.dtype)
        return norm.layer_norm(x, self.scale[...], self.bias[...], self.epsilon)

    def with_skip(
        self, x: Float[Array, "*b d"]
    ) -> tuple[Float[Array, "*b d"], Float[Array, "*b d"]]:
        """x, for a residual, and the norm of it: cheaper backward than asking for them apart."""
        x = x.astype(self.dtype)
        return norm.with_skip(x, self.scale[...], self.bias[...], self.epsilon)


def layer_norm(width: int, *, epsilon: float, dtype: Dtype, rngs: Rng) -> LayerNorm:
    """LayerNorm over the last axis; over channels it is also SAM's `LayerNorm2d`."""
    return LayerNorm(width, epsilon=epsilon, dtype=dtype, rngs=rngs)


def split_heads(x: Float[Array, "b n d"], heads: int) -> Float[Array, "b k n c"]:
    b, n, d = x.shape
    return x.reshape(b, n, heads, d // heads).swapaxes(1, 2)


def merge_heads(x: Float[Array, "b k n c"]) -> Float[Array, "b n d"]:
    b, k, n, c = x.shape
    return x.swapaxes(1, 2).reshape(b, n, k * c)


def dropout(x: Float[Array, "*shape"], *, rate: float, rngs: Rng | None) -> Float[Array, "*shape"]:
    """Inverted dropout; the identity where `rngs` is None (evaluation)."""
    if rngs is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(rngs.dropout(), 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))


class Mlp(nnx.Module):
    """lin1 → exact GELU or ReLU → lin2: SAM's `MLPBlock`."""

    def __init__(self, width: int, hidden: int, *, activation, dtype: Dtype, rngs: Rng):
        self.lin1 = linear(width, hidden, dtype=dtype, rngs=rngs)
        self.lin2 = linear(hidden, width, dtype=dtype, rngs=rngs)
        self.activation = activation

    @jax.named_scope("mlp")
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self.lin2(self.activation(checkpoint_name(self.lin1(x), HIDDEN)))


class CrossAttention(nnx.Module):
    """q, k, v and output projections around `attend`, at an inner width of its own."""

    def __init__(self, width: int, inner: int, *, heads: int, dtype: Dtype, rngs: Rng):
        self.q_proj = linear(width, inner, dtype=dtype, rngs=rngs)
        self.k_proj = linear(width, inner, dtype=dtype, rngs=rngs)
        self.v_proj = linear(width, inner, dtype=dtype, rngs=rngs)
        self.out_proj = linear(inner, width, dtype=dtype, rngs=rngs)
        self.heads = heads

    def __call__(
        self,
        q: Float[Array, "b m d"],
        k: Float[Array, "b n d"],
        v: Float[Array, "b n d"],
        *,
        key_mask: Bool[Array, "b n"] | None = None,
    ) -> Float[Array, "b m d"]:
        q, k, v = self.q_proj(q), self.k_proj(k), self.v_proj(v)
        q, k, v = (split_heads(x, self.heads) for x in (q, k, v))
        return self.out_proj(merge_heads(attend(q, k, v, key_mask=key_mask)))

"""BERT (Devlin et al. 2019), read at a selectable layer; layers above it are never computed.

The paper uses the last layer's output, the released DIT code the first's. There is no pooler.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Int

from dit_jax.models.architecture import Bert
from dit_jax.models.layers import (
    Embed,
    Rng,
    dropout,
    layer_norm,
    linear,
    merge_heads,
    split_heads,
)
from dit_jax.ops.arrays import Array
from dit_jax.ops.gelu import gelu

DROPOUT = 0.1
PAD = 0
ACTIVATIONS = {
    "gelu": gelu,
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}


class TextEncoder(nnx.Module):
    """Token ids `[b, l]` to the features `[b, l, t]` of layer `output_layer`."""

    def __init__(self, bert: Bert, *, output_layer: int, dtype: str, rngs: Rng):
        self.embeddings = Embeddings(bert, dtype=dtype, rngs=rngs)
        self.layer = nnx.List(Layer(bert, dtype=dtype, rngs=rngs) for _ in range(bert.depth))
        self.output_layer = output_layer

    @jax.named_scope("text_encoder")
    def __call__(
        self,
        input_ids: Int[Array, "b l"],
        attention_mask: Int[Array, "b l"],
        *,
        rngs: Rng | None = None,
    ) -> Float[Array, "b l t"]:
        x = self.embeddings(input_ids, rngs=rngs)
        mask = attention_mask.astype(bool)
        for i, layer in enumerate(list(self.layer)[: self.output_layer]):
            with jax.named_scope(f"layer.{i}"):
                x = layer(x, mask, rngs=rngs)
        return x


class Embeddings(nnx.Module):
    """Word + position + token type 0, normalised."""

    def __init__(self, bert: Bert, *, dtype: str, rngs: Rng):
        make = dict(dtype=dtype, rngs=rngs)
        self.word_embeddings = Embed(bert.vocab, bert.width, **make)
        self.position_embeddings = nnx.Embed(bert.positions, bert.width, **make)
        self.token_type_embeddings = nnx.Embed(bert.types, bert.width, **make)
        self.norm = layer_norm(bert.width, epsilon=bert.epsilon, dtype=dtype, rngs=rngs)

    def __call__(self, input_ids: Int[Array, "b l"], *, rngs: Rng | None) -> Float[Array, "b l t"]:
        length, limit = input_ids.shape[1], self.position_embeddings.num_embeddings
        if length > limit:
            raise ValueError(f"text has {length} tokens; this BERT has {limit} positions.")
        x = self.word_embeddings(input_ids)
        # PyTorch's `padding_idx=0`: the vector of [PAD] is read like any other and never trained.
        x = jnp.where((input_ids == PAD)[..., None], jax.lax.stop_gradient(x), x)
        x = x + self.position_embeddings(jnp.arange(length))[None]
        x = x + self.token_type_embeddings(jnp.zeros((1, 1), int))
        return dropout(self.norm(x), rate=DROPOUT, rngs=rngs)


class Layer(nnx.Module):
    """Self-attention and feed-forward, each followed by dropout, residual and norm."""

    def __init__(self, bert: Bert, *, dtype: str, rngs: Rng):
        self.attention = SelfAttention(bert, dtype=dtype, rngs=rngs)
        make = dict(dtype=dtype, rngs=rngs)
        self.intermediate = linear(bert.width, bert.mlp_width, **make)
        self.output = linear(bert.mlp_width, bert.width, **make)
        self.norm = layer_norm(bert.width, epsilon=bert.epsilon, dtype=dtype, rngs=rngs)
        self.activation = ACTIVATIONS[bert.activation]

    def __call__(
        self, x: Float[Array, "b l t"], mask: Bool[Array, "b l"], *, rngs: Rng | None
    ) -> Float[Array, "b l t"]:
        x = self.attention(x, mask, rngs=rngs)
        y = self.output(self.activation(self.intermediate(x)))
        return self.norm(x + dropout(y, rate=DROPOUT, rngs=rngs))


class SelfAttention(nnx.Module):
    """Masked multi-head self-attention with dropout on its map."""

    def __init__(self, bert: Bert, *, dtype: str, rngs: Rng):
        make = dict(dtype=dtype, rngs=rngs)
        self.query = linear(bert.width, bert.width, **make)
        self.key = linear(bert.width, bert.width, **make)
        self.value = linear(bert.width, bert.width, **make)
        self.output = linear(bert.width, bert.width, **make)
        self.norm = layer_norm(bert.width, epsilon=bert.epsilon, dtype=dtype, rngs=rngs)
        self.heads = bert.heads

    def __call__(
        self, x: Float[Array, "b l t"], mask: Bool[Array, "b l"], *, rngs: Rng | None
    ) -> Float[Array, "b l t"]:
        q, k, v = (split_heads(f(x), self.heads) for f in (self.query, self.key, self.value))
        scores = jnp.einsum("bkic,bkjc->bkij", q, k, preferred_element_type=jnp.float32)
        scores = scores * q.shape[-1] ** -0.5
        scores = jnp.where(mask[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
        weights = dropout(weights, rate=DROPOUT, rngs=rngs)
        y = self.output(merge_heads(jnp.einsum("bkij,bkjc->bkic", weights, v)))
        return self.norm(x + dropout(y, rate=DROPOUT, rngs=rngs))

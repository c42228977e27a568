"""Deep instruction tuning (Sec. 3): which tokens stand in front of the image when block i runs.

An injector is one method, `(layer, text, carried, image) -> tokens`. `text` is the text at the
encoder's width, `carried` what the slot held after the block before (None at the first), `image`
the visual tokens before the block; `mask` is False at text that is hidden. Plain SAM and the
paper's shallow fusion have none. Projections start at zero (`initial.py`): training starts from
SAM with zero text tokens.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float

from dit_jax.models.architecture import Injection
from dit_jax.models.layers import Rng, dropout, linear, merge_heads, split_heads
from dit_jax.ops.arrays import Array

DROPOUT = 0.1
MHA_WIDTH, MHA_HEADS, FFN_WIDTH = 512, 8, 2048

Text = Float[Array, "b l d"]
Image = Float[Array, "b n d"]


def projections(count: int, width: int, *, dtype: str, rngs: Rng) -> list[nnx.Linear]:
    """The paper's projection layers P_i: width to width, one a block."""
    return [linear(width, width, dtype=dtype, rngs=rngs) for _ in range(count)]


class EndToEnd(nnx.Module):
    """E-DIT: `P_0(text)`, then `P_i(carried)` (released code)."""

    carries = True

    def __init__(self, depth: int, width: int, *, dtype: str, rngs: Rng):
        self.probs = nnx.List(projections(depth, width, dtype=dtype, rngs=rngs))

    def __call__(
        self, layer: int, text: Text, carried: Text | None, image: Image, *, mask=None, rngs=None
    ):
        tokens = self.probs[layer](text if layer == 0 else carried)
        return dropout(tokens, rate=DROPOUT, rngs=rngs)


class EndToEndCarried(nnx.Module):
    """E-DIT of Eq. 4, for a tuned backbone: `P_0(text)`, then whatever the blocks made of it."""

    carries = True

    def __init__(self, depth: int, width: int, *, dtype: str, rngs: Rng):
        self.probs = nnx.List(projections(1, width, dtype=dtype, rngs=rngs))

    def __call__(
        self, layer: int, text: Text, carried: Text | None, image: Image, *, mask=None, rngs=None
    ):
        if layer > 0:
            return carried
        return dropout(self.probs[0](text), rate=DROPOUT, rngs=rngs)


class EndToEndStatic(nnx.Module):
    """E-DIT + static prompts: `P(text)`, then `carried + T_{i−1}`."""

    carries = True

    def __init__(self, depth: int, width: int, *, text_tokens: int, dtype: str, rngs: Rng):
        self.probs = linear(width, width, dtype=dtype, rngs=rngs)
        self.tokens = nnx.Param(jnp.zeros((depth - 1, text_tokens, width), jnp.float32))

    def __call__(
        self, layer: int, text: Text, carried: Text | None, image: Image, *, mask=None, rngs=None
    ):
        if layer == 0:
            return dropout(self.probs(text), rate=DROPOUT, rngs=rngs)
        return carried + static_tokens(self.tokens[layer - 1], like=carried)


class LayerWise(nnx.Module):
    """L-DIT: `P_i(text)` at every block."""

    carries = False

    def __init__(self, depth: int, width: int, *, dtype: str, rngs: Rng):
        self.probs = nnx.List(projections(depth, width, dtype=dtype, rngs=rngs))

    def __call__(
        self, layer: int, text: Text, carried: None, image: Image, *, mask=None, rngs=None
    ):
        return dropout(self.probs[layer](text), rate=DROPOUT, rngs=rngs)


class LayerWiseStatic(nnx.Module):
    """L-DIT + static prompts: `text + T_i`, without projections (released code)."""

    carries = False

    def __init__(self, depth: int, width: int, *, text_tokens: int, dtype: str, rngs: Rng):
        self.tokens = nnx.Param(jnp.zeros((depth, text_tokens, width), jnp.float32))

    def __call__(
        self, layer: int, text: Text, carried: None, image: Image, *, mask=None, rngs=None
    ):
        return text + static_tokens(self.tokens[layer], like=text)


class CrossAtt(nnx.Module):
    """`P_0(text)`, then `LN_{i−1}(P_i(text) + drop(MHA_{i−1}(q=text, kv=carried)))`."""

    carries = True

    def __init__(self, depth: int, width: int, *, dtype: str, rngs: Rng):
        self.probs = nnx.List(projections(depth, width, dtype=dtype, rngs=rngs))
        self.cross = nnx.List(MultiHead(width, dtype=dtype, rngs=rngs) for _ in range(depth - 1))
        self.ln = nnx.List(UnbiasedNorm(width, rngs=rngs) for _ in range(depth - 1))

    def __call__(
        self, layer: int, text: Text, carried: Text | None, image: Image, *, mask=None, rngs=None
    ):
        tokens = self.probs[layer](text)
        if layer == 0:
            return tokens
        attended = self.cross[layer - 1](text, carried, mask=mask, rngs=rngs)
        return self.ln[layer - 1](tokens + dropout(attended, rate=DROPOUT, rngs=rngs))


class CrossAttFfn(nnx.Module):
    """`LN_i(text + drop(F_i(q=text, kv=image)))`, F a cross-attention and a feed-forward layer."""

    carries = False

    def __init__(self, depth: int, width: int, *, dtype: str, rngs: Rng):
        self.cross = nnx.List(CrossLayer(width, dtype=dtype, rngs=rngs) for _ in range(depth))
        self.ln = nnx.List(UnbiasedNorm(width, rngs=rngs) for _ in range(depth))

    def __call__(
        self, layer: int, text: Text, carried: None, image: Image, *, mask=None, rngs=None
    ):
        guided = self.cross[layer](text, image, rngs=rngs)
        return self.ln[layer](text + dropout(guided, rate=DROPOUT, rngs=rngs))


class MultiHead(nnx.Module):
    """Multi-head attention of 512 channels in 8 heads, with dropout on its map."""

    def __init__(self, width: int, *, dtype: str, rngs: Rng):
        make = dict(dtype=dtype, rngs=rngs)
        self.linear_q = linear(width, MHA_WIDTH, **make)
        self.linear_k = linear(width, MHA_WIDTH, **make)
        self.linear_v = linear(width, MHA_WIDTH, **make)
        self.linear_merge = linear(MHA_WIDTH, width, **make)

    def __call__(
        self,
        q: Text,
        kv: Float[Array, "b m d"],
        *,
        mask: Bool[Array, "b m"] | None = None,
        rngs: Rng | None,
    ) -> Text:
        q, k, v = self.linear_q(q), self.linear_k(kv), self.linear_v(kv)
        q, k, v = (split_heads(x, MHA_HEADS) for x in (q, k, v))
        scores = jnp.einsum("bklc,bknc->bkln", q, k, preferred_element_type=jnp.float32)
        scores = scores * q.shape[-1] ** -0.5
        if mask is not None:
            scores = jnp.where(mask[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
        weights = dropout(weights, rate=DROPOUT, rngs=rngs)
        return self.linear_merge(merge_heads(jnp.einsum("bkln,bknc->bklc", weights, v)))


class CrossLayer(nnx.Module):
    """`q = N1(q + drop(MHA))`, `q = N2(q + drop(FFN))`, FFN 2048 wide with ReLU."""

    def __init__(self, width: int, *, dtype: str, rngs: Rng):
        self.mhatt = MultiHead(width, dtype=dtype, rngs=rngs)
        self.lin1 = linear(width, FFN_WIDTH, dtype=dtype, rngs=rngs)
        self.lin2 = linear(FFN_WIDTH, width, dtype=dtype, rngs=rngs)
        self.norm1 = UnbiasedNorm(width, rngs=rngs)
        self.norm2 = UnbiasedNorm(width, rngs=rngs)

    def __call__(self, q: Text, kv: Image, *, rngs: Rng | None) -> Text:
        q = self.norm1(q + dropout(self.mhatt(q, kv, rngs=rngs), rate=DROPOUT, rngs=rngs))
        hidden = dropout(jax.nn.relu(self.lin1(q)), rate=DROPOUT, rngs=rngs)
        return self.norm2(q + dropout(self.lin2(hidden), rate=DROPOUT, rngs=rngs))


class UnbiasedNorm(nnx.Module):
    """`w·(x − mean) / (std + 1e-6) + b` with the unbiased deviation: not the usual LayerNorm."""

    def __init__(self, width: int, *, rngs: Rng):
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width, jnp.float32))

    def __call__(self, x: Text) -> Text:
        wide = x.astype(jnp.float32)
        centred = wide - wide.mean(-1, keepdims=True)
        # √(Σx² + tiny): a row of equal values has deviation 0, whose gradient would be infinite.
        variance = jnp.sum(centred**2, -1, keepdims=True) / (x.shape[-1] - 1)
        std = jnp.sqrt(jnp.maximum(variance, 1e-30))
        scale, bias = self.scale[...][None, None], self.bias[...][None, None]
        return (scale * centred / (std + 1e-6) + bias).astype(x.dtype)


def static_tokens(tokens: Float[Array, "rows d"], *, like: Text) -> Float[Array, "1 rows d"]:
    """One row a token: raises ValueError where the text has another number of tokens."""
    if tokens.shape[0] != like.shape[1]:
        raise ValueError(
            f"static prompts exist for exactly {tokens.shape[0]} text tokens; got {like.shape[1]}."
        )
    return tokens[None].astype(like.dtype)


STATIC = {Injection.E2E_STATIC: EndToEndStatic, Injection.LAYER_WISE_STATIC: LayerWiseStatic}
INJECTORS = STATIC | {
    Injection.E2E: EndToEnd,
    Injection.E2E_CARRIED: EndToEndCarried,
    Injection.LAYER_WISE: LayerWise,
    Injection.CROSS_ATTENTION: CrossAtt,
    Injection.CROSS_ATTENTION_FFN: CrossAttFfn,
}


def build(
    injection: Injection, *, depth: int, width: int, text_tokens: int, dtype: str, rngs: Rng
) -> nnx.Module | None:
    """The injector of a row, or None where no tokens enter the encoder."""
    if injection == Injection.NONE:
        return None
    rows = {"text_tokens": text_tokens} if injection in STATIC else {}
    return INJECTORS[injection](depth, width, dtype=dtype, rngs=rngs, **rows)

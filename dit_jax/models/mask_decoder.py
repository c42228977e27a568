"""SAM's mask decoder: a two-way transformer between prompt tokens and image, and an upscaler."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float

from dit_jax.models.architecture import HEAD_WIDTH, Architecture
from dit_jax.models.layers import CrossAttention, Mlp, Rng, layer_norm, linear
from dit_jax.ops.arrays import Array
from dit_jax.ops.gelu import gelu
from dit_jax.ops.linear import EXACT, Precision

MASK_TOKENS = 4
SINGLE, SEVERAL, EVERY = slice(0, 1), slice(1, MASK_TOKENS), slice(MASK_TOKENS)  # clear, ambiguous
DOWNSAMPLE = 2  # `attention_downsample_rate` of the cross-attentions
TRANSFORMER_EPSILON, UPSCALER_EPSILON = 1e-5, 1e-6

Tokens = Float[Array, "b t c"]
Image = Float[Array, "b n c"]
Mask = Bool[Array, "b t"]


class MaskDecoder(nnx.Module):
    """Image embedding and prompts to mask logits at 1/4 of the input's side, and their IoU.

    With `arch.presence` also to one logit of "the prompt means something in this picture".
    """

    def __init__(self, arch: Architecture, *, rngs: Rng):
        width, make = arch.decoder_width, dict(dtype=arch.dtype, rngs=rngs)
        self.transformer = TwoWayTransformer(arch, rngs=rngs)
        self.iou_token = nnx.Param(jnp.zeros((1, width), jnp.float32))
        self.mask_tokens = nnx.Param(jnp.zeros((MASK_TOKENS, width), jnp.float32))
        self.output_upscaling = Upscaling(width, **make)
        self.output_hypernetworks_mlps = nnx.List(
            ThreeLayers(width, width // 8, **make) for _ in range(MASK_TOKENS)
        )
        self.iou_prediction_head = ThreeLayers(width, MASK_TOKENS, **make)
        # SAM's IoU head once more: it judges the answer from the same token, whose output is made
        # for a head with hidden layers. In float32: one number a picture decides about all of it.
        self.presence_head = (
            ThreeLayers(width, 1, dtype="float32", precision=EXACT, rngs=rngs)
            if arch.presence
            else None
        )

    @jax.named_scope("mask_decoder")
    def __call__(
        self,
        embedding: Float[Array, "b h w c"],
        positions: Float[Array, "1 h w c"],
        *,
        sparse: Float[Array, "b s c"],
        dense: Float[Array, "_ _ _ c"],
        sparse_mask: Bool[Array, "b s"] | None = None,
        wanted: slice = SINGLE,
    ) -> tuple[Float[Array, "b m H4 W4"], Float[Array, "b m"], Float[Array, " b"] | None]:
        """Logits and predicted IoU of the wanted masks; and presence."""
        b, h, w, c = embedding.shape
        tokens, mask = self.tokens(sparse, sparse_mask)
        x = jnp.broadcast_to(embedding + dense, (b, h, w, c)).reshape(b, h * w, c)
        queries, keys = self.transformer(x, positions.reshape(1, h * w, -1), tokens, mask=mask)
        upscaled = self.output_upscaling(keys.reshape(b, h, w, -1))
        networks = list(self.output_hypernetworks_mlps)[wanted]
        outputs = queries[:, 1 : 1 + MASK_TOKENS][:, wanted]
        weights = jnp.stack([f(outputs[:, i]) for i, f in enumerate(networks)], axis=1)
        wide = dict(preferred_element_type=jnp.float32, precision=EXACT)
        masks = jnp.einsum("bmc,bhwc->bmhw", weights, upscaled, **wide)
        iou = self.iou_prediction_head(queries[:, 0]).astype(jnp.float32)
        presence = None if self.presence_head is None else self.presence_head(queries[:, 0])[:, 0]
        return masks, iou[:, wanted], presence

    def tokens(
        self, sparse: Float[Array, "b s c"], mask: Bool[Array, "b s"] | None
    ) -> tuple[Tokens, Mask | None]:
        """`[iou; 4 mask; prompts]` and which of them may be attended to."""
        own = jnp.concatenate([self.iou_token[...], self.mask_tokens[...]]).astype(sparse.dtype)
        tokens = jnp.concatenate(
            [jnp.broadcast_to(own[None], (sparse.shape[0], *own.shape)), sparse], axis=1
        )
        if mask is None:
            return tokens, None
        return tokens, jnp.pad(mask, ((0, 0), (len(own), 0)), constant_values=True)


class TwoWayTransformer(nnx.Module):
    """Tokens and image attend to each other; both are returned."""

    def __init__(self, arch: Architecture, *, rngs: Rng):
        width, make = arch.decoder_width, dict(dtype=arch.dtype, rngs=rngs)
        self.layers = nnx.List(TwoWayBlock(arch, rngs=rngs) for _ in range(arch.decoder_depth))
        self.final_attn_token_to_image = CrossAttention(
            width, width // DOWNSAMPLE, heads=width // HEAD_WIDTH, **make
        )
        self.norm_final_attn = layer_norm(width, epsilon=TRANSFORMER_EPSILON, **make)

    def __call__(
        self,
        keys: Image,
        positions: Float[Array, "1 n c"],
        tokens: Tokens,
        *,
        mask: Mask | None = None,
    ) -> tuple[Tokens, Image]:
        queries = tokens
        for i, layer in enumerate(self.layers):
            queries, keys = layer(queries, keys, tokens, positions, mask=mask, first=i == 0)
        attended = self.final_attn_token_to_image(queries + tokens, keys + positions, keys)
        return self.norm_final_attn(queries + attended), keys


class TwoWayBlock(nnx.Module):
    """Self-attention of tokens, tokens to image, MLP, image to tokens."""

    def __init__(self, arch: Architecture, *, rngs: Rng):
        width, make = arch.decoder_width, dict(dtype=arch.dtype, rngs=rngs)
        norm = dict(epsilon=TRANSFORMER_EPSILON, **make)
        cross = dict(heads=width // HEAD_WIDTH, **make)
        self.self_attn = CrossAttention(width, width, **cross)
        self.norm1 = layer_norm(width, **norm)
        self.cross_attn_token_to_image = CrossAttention(width, width // DOWNSAMPLE, **cross)
        self.norm2 = layer_norm(width, **norm)
        self.mlp = Mlp(width, arch.decoder_mlp_width, activation=jax.nn.relu, **make)
        self.norm3 = layer_norm(width, **norm)
        self.cross_attn_image_to_token = CrossAttention(width, width // DOWNSAMPLE, **cross)
        self.norm4 = layer_norm(width, **norm)

    def __call__(
        self,
        queries: Tokens,
        keys: Image,
        token_pe: Tokens,
        image_pe: Float[Array, "1 n c"],
        *,
        mask: Mask | None,
        first: bool,
    ) -> tuple[Tokens, Image]:
        """In the first block the tokens are their own positions and get no residual."""
        q = queries if first else queries + token_pe
        attended = self.self_attn(q, q, queries, key_mask=mask)
        queries = self.norm1(attended if first else queries + attended)
        q, k = queries + token_pe, keys + image_pe
        queries = self.norm2(queries + self.cross_attn_token_to_image(q, k, keys))
        queries = self.norm3(queries + self.mlp(queries))
        q = queries + token_pe
        keys = self.norm4(keys + self.cross_attn_image_to_token(k, q, queries, key_mask=mask))
        return queries, keys


class Upscaling(nnx.Module):
    """Two transposed convolutions, ×4 in all."""

    def __init__(self, width: int, *, dtype: str, rngs: Rng):
        middle, out = width // 4, width // 8
        self.conv1 = Doubling(width, middle, dtype=dtype, rngs=rngs)
        self.norm = layer_norm(middle, epsilon=UPSCALER_EPSILON, dtype=dtype, rngs=rngs)
        self.conv2 = Doubling(middle, out, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b H4 W4 e"]:
        return gelu(self.conv2(gelu(self.norm(self.conv1(x)))))


class Doubling(nnx.ConvTranspose):
    """A 2×2 transposed convolution of stride 2: no window overlaps, so it is one matrix product.

    XLA's transposed convolution is 10× slower backward on a CPU.
    """

    def __init__(self, n: int, out: int, *, dtype: str, rngs: Rng):
        super().__init__(
            n,
            out,
            (2, 2),
            strides=(2, 2),
            padding="VALID",
            transpose_kernel=True,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, x: Float[Array, "b h w n"]) -> Float[Array, "b H W out"]:
        b, h, w, n = x.shape
        kernel = self.kernel[...].astype(x.dtype)  # (y, x, out, n)
        y = x.reshape(b * h * w, n) @ kernel.reshape(-1, n).T
        y = y.reshape(b, h, w, 2, 2, -1).transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, -1)
        return y + self.bias[...].astype(y.dtype)[None, None, None]


class ThreeLayers(nnx.Module):
    """width → width → width → out with ReLU between: SAM's hyper-networks and IoU head."""

    def __init__(
        self, width: int, out: int, *, dtype: str, rngs: Rng, precision: Precision | None = None
    ):
        make = dict(dtype=dtype, precision=precision, rngs=rngs)
        self.layers = nnx.List(linear(width, n, **make) for n in (width, width, out))

    def __call__(self, x: Float[Array, "b c"]) -> Float[Array, "b out"]:
        first, second, last = self.layers
        return last(jax.nn.relu(second(jax.nn.relu(first(x)))))

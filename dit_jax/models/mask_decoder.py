"""SAM's mask decoder: a two-way transformer between prompt tokens and image, and an upscaler."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from dit_jax.models.architecture import DECODER_WIDTH
from dit_jax.models.layers import CrossAttention, Mlp, Rng, layer_norm, linear
from dit_jax.ops.gelu import gelu

MASK_TOKENS = 4  # one for a single mask, three for ambiguous prompts
HEADS, MLP_WIDTH, CROSS_WIDTH = 8, 2048, DECODER_WIDTH // 2  # attention_downsample_rate 2
TRANSFORMER_EPSILON, UPSCALER_EPSILON = 1e-5, 1e-6

Tokens = Float[Array, "b t 256"]
Image = Float[Array, "b n 256"]
Mask = Bool[Array, "b t"]


class MaskDecoder(nnx.Module):
    """Image embedding and prompts to mask logits at 1/4 of the input's side, and their IoU."""

    def __init__(self, depth: int, *, dtype: str, rngs: Rng):
        make = dict(dtype=dtype, rngs=rngs)
        self.transformer = TwoWayTransformer(depth, **make)
        self.iou_token = nnx.Param(jnp.zeros((1, DECODER_WIDTH)))
        self.mask_tokens = nnx.Param(jnp.zeros((MASK_TOKENS, DECODER_WIDTH)))
        self.output_upscaling = Upscaling(**make)
        hyper = DECODER_WIDTH // 8
        self.output_hypernetworks_mlps = nnx.List(
            ThreeLayers(hyper, **make) for _ in range(MASK_TOKENS)
        )
        self.iou_prediction_head = ThreeLayers(MASK_TOKENS, **make)

    def __call__(
        self,
        embedding: Float[Array, "b h w 256"],
        positions: Float[Array, "1 h w 256"],
        *,
        sparse: Float[Array, "b s 256"],
        dense: Float[Array, "_ _ _ 256"],
        sparse_mask: Bool[Array, "b s"] | None = None,
        multimask: bool = False,
    ) -> tuple[Float[Array, "b m H4 W4"], Float[Array, "b m"]]:
        """Logits and predicted IoU: the first mask (m = 1), or the other three."""
        b, h, w, _ = embedding.shape
        tokens, mask = self.tokens(sparse, sparse_mask)
        x = jnp.broadcast_to(embedding + dense, (b, h, w, DECODER_WIDTH)).reshape(b, h * w, -1)
        queries, keys = self.transformer(x, positions.reshape(1, h * w, -1), tokens, mask=mask)
        upscaled = self.output_upscaling(keys.reshape(b, h, w, -1))
        wanted = slice(1, MASK_TOKENS) if multimask else slice(0, 1)
        networks = list(self.output_hypernetworks_mlps)[wanted]
        outputs = queries[:, 1 : 1 + MASK_TOKENS][:, wanted]
        weights = jnp.stack([f(outputs[:, i]) for i, f in enumerate(networks)], axis=1)
        masks = jnp.einsum("bmc,bhwc->bmhw", weights, upscaled, preferred_element_type=jnp.float32)
        iou = self.iou_prediction_head(queries[:, 0]).astype(jnp.float32)
        return masks, iou[:, wanted]

    def tokens(self, sparse: Tokens, mask: Mask | None) -> tuple[Tokens, Mask | None]:
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

    def __init__(self, depth: int, *, dtype: str, rngs: Rng):
        make = dict(dtype=dtype, rngs=rngs)
        self.layers = nnx.List(TwoWayBlock(**make) for _ in range(depth))
        self.final_attn_token_to_image = CrossAttention(
            DECODER_WIDTH, CROSS_WIDTH, heads=HEADS, **make
        )
        self.norm_final_attn = layer_norm(DECODER_WIDTH, epsilon=TRANSFORMER_EPSILON, **make)

    def __call__(
        self,
        keys: Image,
        positions: Float[Array, "1 n 256"],
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

    def __init__(self, *, dtype: str, rngs: Rng):
        make = dict(dtype=dtype, rngs=rngs)
        norm = dict(epsilon=TRANSFORMER_EPSILON, **make)
        cross = dict(heads=HEADS, **make)
        self.self_attn = CrossAttention(DECODER_WIDTH, DECODER_WIDTH, **cross)
        self.norm1 = layer_norm(DECODER_WIDTH, **norm)
        self.cross_attn_token_to_image = CrossAttention(DECODER_WIDTH, CROSS_WIDTH, **cross)
        self.norm2 = layer_norm(DECODER_WIDTH, **norm)
        self.mlp = Mlp(DECODER_WIDTH, MLP_WIDTH, activation=jax.nn.relu, **make)
        self.norm3 = layer_norm(DECODER_WIDTH, **norm)
        self.cross_attn_image_to_token = CrossAttention(DECODER_WIDTH, CROSS_WIDTH, **cross)
        self.norm4 = layer_norm(DECODER_WIDTH, **norm)

    def __call__(
        self,
        queries: Tokens,
        keys: Image,
        token_pe: Tokens,
        image_pe: Float[Array, "1 n 256"],
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

    def __init__(self, *, dtype: str, rngs: Rng):
        middle, out = DECODER_WIDTH // 4, DECODER_WIDTH // 8
        self.conv1 = Doubling(DECODER_WIDTH, middle, dtype=dtype, rngs=rngs)
        self.norm = layer_norm(middle, epsilon=UPSCALER_EPSILON, dtype=dtype, rngs=rngs)
        self.conv2 = Doubling(middle, out, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w 256"]) -> Float[Array, "b H4 W4 32"]:
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
    """256 → 256 → 256 → out with ReLU between: SAM's hyper-networks and IoU head."""

    def __init__(self, out: int, *, dtype: str, rngs: Rng):
        widths = (DECODER_WIDTH, DECODER_WIDTH, out)
        self.layers = nnx.List(
            linear(DECODER_WIDTH, width, dtype=dtype, rngs=rngs) for width in widths
        )

    def __call__(self, x: Float[Array, "b 256"]) -> Float[Array, "b out"]:
        first, second, last = self.layers
        return last(jax.nn.relu(second(jax.nn.relu(first(x)))))

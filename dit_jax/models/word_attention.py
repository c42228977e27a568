"""How strongly the image looks at each text token, layer by layer: what a word map shows.

The forward pass of `DitSam` once more, block by block; beside each block the attention of its image
queries is computed again, and only the columns of the text are kept. In the encoder these are the
tokens in front of block i, whatever the injector made of the text (in E-DIT they have mixed with
each other and the image by then); in the decoder, the text among the prompts. Default fusion has no
text in its encoder, so only the decoder's layers are there.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from dit_jax.models.dit_sam import DitSam
from dit_jax.models.image_encoder import Block, Grid, ImageEncoder, Text
from dit_jax.models.layers import CrossAttention, split_heads
from dit_jax.models.mask_decoder import MaskDecoder
from dit_jax.ops.arrays import Array
from dit_jax.ops.attention import attended, relative_terms

Map = Float[Array, "b l h w"]  # of one layer; over l, and all other keys, it sums to 1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WordAttention:
    """Mean over heads of the attention from each patch to each text token, float32."""

    encoder: Float[Array, "depth b l h w"] | None  # None where no text enters the encoder
    decoder: Float[Array, "layers b l h w"]


def word_attention(
    model: DitSam,
    images: Float[Array, "b H W 3"],
    features: Float[Array, "b l t"],
    attention_mask: Int[Array, "b l"],
) -> WordAttention:
    """Of normalised images and the text encoder's features of what is asked about them."""
    text_mask = model.text_mask(attention_mask)
    if model.image_encoder.injector is None:
        encoder, embedding = None, model.image_encoder(images)
    else:
        maps, embedding = encoder_maps(model.image_encoder, images, features, text_mask=text_mask)
        encoder = jnp.stack(maps)
    decoder = decoder_maps(model, embedding, model.text_proj(features), text_mask=text_mask)
    return WordAttention(encoder, jnp.stack(decoder))


def encoder_maps(
    encoder: ImageEncoder,
    images: Float[Array, "b H W 3"],
    text: Float[Array, "b l t"],
    *,
    text_mask: Bool[Array, "b l"] | None,
) -> tuple[list[Map], Float[Array, "b h w c"]]:
    """A map a block, zero where no text is there yet, and the embedding that `encoder` gives."""
    x = encoder.before_text(images)
    text = text if encoder.prob_text is None else encoder.prob_text(text)
    carried, nothing = None, jnp.zeros((len(text), text.shape[1], *x.shape[1:3]), jnp.float32)
    maps = [nothing] * encoder.inject_from
    for i, block in list(enumerate(encoder.blocks))[encoder.inject_from :]:
        tokens = encoder.inject(i, text, carried, x, mask=text_mask)
        maps.append(block_map(block, x, tokens, text_mask=text_mask))
        x, carried = block(x, tokens, text_mask=text_mask, carry=encoder.carries(i))
    return maps, encoder.neck(x)


def block_map(block: Block, x: Grid, text: Text, *, text_mask: Bool[Array, "b l"] | None) -> Map:
    """The attention of the patches before a block to the tokens in front of it."""
    b, h, w, d = x.shape
    attn, length = block.attn, text.shape[1]
    q, k, _ = (split_heads(y, attn.heads) for y in attn.project(block.norm1(x).reshape(b, -1, d)))
    _, text_keys, _ = attn.project_text(block.norm1(text), queries=False)
    tables = attn.tables((h, w), dtype=q.dtype)
    found = attended(
        q,
        jnp.concatenate([k, text_keys], axis=2),
        keys=slice(h * w, h * w + length),
        rel=relative_terms(q, *tables, grid=(h, w)),
        key_mask=attn.key_mask(text_mask, h * w),
    )
    return found.swapaxes(1, 2).reshape(b, length, h, w)


def decoder_maps(
    model: DitSam,
    embedding: Float[Array, "b h w c"],
    text: Float[Array, "b l c"],
    *,
    text_mask: Bool[Array, "b l"] | None,
) -> list[Map]:
    """A map a layer of the two-way transformer, from its image-to-token attention."""
    b, h, w, c = embedding.shape
    decoder: MaskDecoder = model.mask_decoder
    sparse, mask = model.sparse_prompts(embedding, None, None, None, text, text_mask)
    tokens, mask = decoder.tokens(sparse, mask)
    dense = jnp.broadcast_to(embedding + model.prompt_encoder.dense(None), embedding.shape)
    positions = model.prompt_encoder.image_positions((h, w)).reshape(1, h * w, c)
    queries, keys, maps = tokens, dense.reshape(b, h * w, c), []
    for i, layer in enumerate(decoder.transformer.layers):
        before = keys + positions
        queries, keys = layer(queries, keys, tokens, positions, mask=mask, first=i == 0)
        attention = layer.cross_attn_image_to_token
        found = _cross(attention, before, queries + tokens, count=text.shape[1], mask=mask)
        maps.append(found.swapaxes(1, 2).reshape(b, -1, h, w))
    return maps


def _cross(
    attention: CrossAttention,
    image: Float[Array, "b n c"],
    tokens: Float[Array, "b t c"],
    *,
    count: int,
    mask: Bool[Array, "b t"] | None,
) -> Float[Array, "b n l"]:
    """To the last `count` tokens, which are the text's."""
    q, k = attention.q_proj(image), attention.k_proj(tokens)
    q, k = (split_heads(x, attention.heads) for x in (q, k))
    start = tokens.shape[1] - count
    return attended(q, k, keys=slice(start, start + count), key_mask=mask)

"""Recorded activations and gradients of the PyTorch references, through the converter."""

import jax
import numpy as np
import pytest
from closeness import assert_close
from goldens import VARIANTS, Golden, channels_last

from dit_jax.models.image_encoder import partition, unpartition
from dit_jax.ops.attention import dispatch


@pytest.fixture(scope="module", params=VARIANTS)
def golden(request, shared, tmp_path_factory):
    return Golden(shared, request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def sam(shared, tmp_path_factory):
    return Golden(shared, "sam", tmp_path_factory.mktemp("sam"))


def test_text(golden):
    model = golden.model
    features = jax.jit(lambda *text: model.encode_text(*text))(*golden.text())
    assert_close(features, golden.arrays["text_feats"], "text_feats")
    assert_close(model.text_proj(features), golden.arrays["text_proj"], "text_proj")


def test_encoder_blocks(golden):
    """Each block on its own recorded input, the slot's tokens included."""
    encoder, ref = golden.model.image_encoder, golden.arrays

    @jax.jit
    def stages(images, text):
        x, carried, blocks = encoder.embed(images), None, []
        for i, block in enumerate(encoder.blocks):
            tokens, before = encoder.inject(i, text, carried, x), x
            carry = encoder.carries(i)
            attended = attend(block, block.norm1(x), tokens, carry=carry)
            x, carried = block(x, tokens, carry=carry)
            blocks.append((tokens, before, attended, (x, carried)))
        return encoder.patch_embed(images), blocks, encoder.neck(x)

    patches, blocks, neck = stages(golden.images(), ref["text_feats"])
    assert_close(patches, ref["patch_embed"], "patch_embed")
    for i, (tokens, before, attended, after) in enumerate(blocks):
        found = with_text(tokens, before, ref[f"block{i}_in"])
        assert_close(found, ref[f"block{i}_in"], f"block{i}_in")
        compare(attended, ref[f"block{i}_attn"], f"block{i}_attn")
        compare(after, ref[f"block{i}_out"], f"block{i}_out")
    assert_close(neck, channels_last(ref["neck"]), "neck")


def attend(block, y, tokens, *, carry):
    """What a block's attention adds to image and text, of which `y` is the image's norm."""
    if block.window is None:
        return block.attn(y, None if tokens is None else block.norm1(tokens), carry=carry)
    windows, padded = partition(y, block.window)
    windows, _ = block.attn(windows, None)
    return unpartition(windows, block.window, padded=padded, grid=y.shape[1:3]), None


def with_text(tokens, x, like):
    if tokens is None:
        return x
    rows = x.reshape(x.shape[0], -1, x.shape[-1])
    return np.concatenate([tokens, rows], axis=1).reshape(like.shape)


def compare(result, expected, what):
    """Text rows are compared where they live on; elsewhere they are never computed."""
    image, text = result
    n = image.shape[1] * image.shape[2]
    if expected.ndim == 3:
        assert_close(image.reshape(image.shape[0], n, -1), expected[:, -n:], what)
    else:
        assert_close(image, expected, what)
    if text is not None:
        assert_close(text, expected[:, : text.shape[1]], f"{what} text")


def test_decoder_stages(golden):
    model, ref = golden.model, golden.arrays

    @jax.jit
    def stages(embedding, sparse):
        positions = model.prompt_encoder.image_positions(embedding.shape[1:3])
        dense = model.prompt_encoder.dense(None)
        decoder = model.mask_decoder
        tokens, _ = decoder.tokens(sparse, None)
        x = (embedding + dense).reshape(*embedding.shape[:1], -1, embedding.shape[-1])
        queries, keys = decoder.transformer(x, positions.reshape(1, x.shape[1], -1), tokens)
        upscaled = decoder.output_upscaling(keys.reshape(embedding.shape))
        return positions, dense, queries, keys, upscaled

    found = stages(channels_last(ref["neck"]), ref["sparse_embeddings"])
    positions, dense, queries, keys, upscaled = found
    assert_close(positions, channels_last(ref["dec_image_pe"]), "dec_image_pe")
    expected = channels_last(ref["dense_embeddings"])
    assert_close(np.broadcast_to(dense, expected.shape), expected, "dense_embeddings")
    assert_close(queries, ref["dec_queries"], "dec_queries")
    assert_close(keys, ref["dec_keys"], "dec_keys")
    assert_close(upscaled, channels_last(ref["dec_upscaled"]), "dec_upscaled")


def test_prediction(golden):
    prediction = jax.jit(lambda *x: golden.model(*x))(golden.images(), *golden.text())
    ref = golden.arrays
    assert_close(prediction.low_res_logits, ref["low_res_masks"][:, 0], "low_res_masks")
    assert_close(prediction.iou, ref["iou_predictions"][:, 0], "iou_predictions")
    assert_close(prediction.logits, ref["logits"][:, 0], "logits")
    mask = jax.nn.sigmoid(prediction.logits) > 0.35
    np.testing.assert_array_equal(mask, ref["pred_mask"].astype(bool))


WAYS = [("by_head", "full"), ("by_head", "dots"), ("pallas", "none")]


def test_back_ends_and_remat_agree(golden, monkeypatch):
    """Neither recomputation nor how attention is computed changes a result: each on one model."""
    check_that_it_agrees(golden, monkeypatch, *dict(zip(VARIANTS, WAYS, strict=True))[golden.name])


@pytest.mark.proof
@pytest.mark.parametrize(("back_end", "remat"), WAYS)
def test_back_ends_and_remat_agree_on_every_model(golden, monkeypatch, back_end, remat):
    check_that_it_agrees(golden, monkeypatch, back_end, remat)


def check_that_it_agrees(golden, monkeypatch, back_end, remat):
    plain = golden.arrays["logits"][:, 0]
    monkeypatch.setenv(dispatch.FORCE, back_end)
    run = jax.jit(lambda *x: golden.model(*x, remat=remat).logits)
    other = run(golden.images(), *golden.text())
    assert_close(other, plain, "logits")


def test_sam_image(sam):
    embedding = jax.jit(lambda images: sam.model.encode_image(images))(sam.images())
    assert_close(embedding, channels_last(sam.arrays["image_embeddings"]), "image_embeddings")


PROMPTS = ("points", "boxes", "points_boxes", "points_mask", "boxes_mask")


# Every prompt once, and `make proof` the other way too.
@pytest.mark.parametrize(
    ("prompt", "multimask"),
    [
        pytest.param(prompt, multimask, marks=() if i % 2 == multimask else pytest.mark.proof)
        for i, prompt in enumerate(PROMPTS)
        for multimask in (False, True)
    ],
)
def test_sam_prompts(sam, prompt, multimask):
    ref, kind = sam.arrays, "multi" if multimask else "single"
    points = (ref["in_points"], ref["in_labels"]) if "points" in prompt else None
    boxes = ref["in_boxes"] if "boxes" in prompt else None
    masks = channels_last(ref["in_masks"]) if "mask" in prompt else None

    @jax.jit
    def decoded(embedding, **given):
        grid = embedding.shape[1:3]
        sparse = sam.model.prompt_encoder.sparse(given["points"], given["boxes"], grid=grid)
        return sparse, sam.model.decode(embedding, **given, multimask=multimask)

    embedding = channels_last(ref["image_embeddings"])
    sparse, result = decoded(embedding, points=points, boxes=boxes, masks=masks)
    assert_close(sparse, ref[f"{prompt}_sparse"], "sparse")
    assert_close(result.low_res_logits, ref[f"{prompt}_{kind}_low_res"], "low_res")
    assert_close(result.iou, ref[f"{prompt}_{kind}_iou"], "iou")

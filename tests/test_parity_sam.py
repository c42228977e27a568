"""Live parity with `transformers`' SAM: random weights, small sizes, every prompt."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from closeness import assert_close
from transformers import SamConfig, SamModel

import dit_jax
from convert.__main__ import main as convert
from dit_jax.models.architecture import Injection

# transformers' names for what Meta's checkpoint calls otherwise
RENAMES = [
    ("shared_image_embedding.positional_embedding", ""),
    ("vision_encoder.pos_embed", "image_encoder.pos_embed"),
    ("vision_encoder.patch_embed.projection", "image_encoder.patch_embed.proj"),
    ("vision_encoder.layers", "image_encoder.blocks"),
    ("vision_encoder.neck.conv1", "image_encoder.neck.0"),
    ("vision_encoder.neck.layer_norm1", "image_encoder.neck.1"),
    ("vision_encoder.neck.conv2", "image_encoder.neck.2"),
    ("vision_encoder.neck.layer_norm2", "image_encoder.neck.3"),
    ("prompt_encoder.shared_embedding.positional_embedding", "PE"),
    ("prompt_encoder.point_embed", "prompt_encoder.point_embeddings"),
    ("prompt_encoder.mask_embed.conv1", "prompt_encoder.mask_downscaling.0"),
    ("prompt_encoder.mask_embed.layer_norm1", "prompt_encoder.mask_downscaling.1"),
    ("prompt_encoder.mask_embed.conv2", "prompt_encoder.mask_downscaling.3"),
    ("prompt_encoder.mask_embed.layer_norm2", "prompt_encoder.mask_downscaling.4"),
    ("prompt_encoder.mask_embed.conv3", "prompt_encoder.mask_downscaling.6"),
    ("mask_decoder.upscale_conv1", "mask_decoder.output_upscaling.0"),
    ("mask_decoder.upscale_layer_norm", "mask_decoder.output_upscaling.1"),
    ("mask_decoder.upscale_conv2", "mask_decoder.output_upscaling.3"),
]
INNER = [
    ("layer_norm_final_attn", "norm_final_attn"),
    ("layer_norm", "norm"),
    ("proj_in", "layers.0"),
    ("layers.0.weight", "layers.0.weight"),
    ("proj_out", "layers.2"),
]
PE = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"


def meta_names(state):
    """transformers' state dict under the names of Meta's checkpoint."""
    renamed = {}
    for name, value in state.items():
        for old, new in RENAMES:
            if name.startswith(old):
                name = new + name[len(old) :] if new else ""
                break
        if not name:
            continue
        mlp = "hypernetworks_mlps" in name or "iou_prediction_head" in name
        name = name.replace(".layers.0.", ".layers.1.") if mlp else name
        for old, new in INNER:
            name = name.replace(old, new)
        renamed[PE if name == "PE" else name] = value
    return renamed


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The same random SAM in PyTorch and, through `convert sam`, in JAX; 128 px, window 3."""
    torch.manual_seed(0)
    vision = dict(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=3, image_size=128, window_size=3
    )
    config = SamConfig(vision_config=vision | dict(global_attn_indexes=[1], mlp_dim=192))
    config.prompt_encoder_config.image_size = 128
    config.prompt_encoder_config.image_embedding_size = 8
    theirs = SamModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
        shared = theirs.shared_image_embedding.positional_embedding
        shared.copy_(torch.randn_like(shared))
        theirs.prompt_encoder.shared_embedding.positional_embedding.copy_(shared)
    folder = tmp_path_factory.mktemp("sam")
    torch.save(meta_names(theirs.state_dict()), folder / "sam.pth")
    assert convert(["sam", str(folder / "sam.pth"), str(folder / "model")]) == 0
    return theirs, dit_jax.load(folder / "model")


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).standard_normal((2, 128, 128, 3), np.float32)


def test_inferred(pair):
    arch = pair[1].arch
    assert arch.vit.window == 3 and arch.vit.global_blocks == (1,) and arch.vit.heads == 3
    assert arch.windowed and arch.bert is None and arch.injection == Injection.NONE
    assert arch.image_size == 128


def test_windowed_encoder(pair, image):
    """An 8×8 grid in windows of 3 is padded to 9×9."""
    theirs, ours = pair
    with torch.no_grad():
        expected = theirs.get_image_embeddings(torch.from_numpy(image).permute(0, 3, 1, 2))
    assert_close(ours.encode_image(image), expected.permute(0, 2, 3, 1), "image embeddings")


PROMPTS = ["point", "points", "box", "points and box", "point and mask", "box and mask"]


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts(pair, image, prompt, multimask):
    theirs, ours = pair
    rng = np.random.default_rng(1)
    embedding = rng.standard_normal((2, 8, 8, 256), np.float32)
    count = 3 if "points" in prompt else 1
    coords = rng.uniform(0, 128, (2, count, 2)).astype(np.float32)
    labels = rng.integers(0, 2, (2, count))
    boxes = np.sort(rng.uniform(0, 128, (2, 2, 2)), axis=1).reshape(2, 4).astype(np.float32)
    masks = rng.standard_normal((2, 32, 32, 1), np.float32)
    given = {"coords": "point" in prompt, "boxes": "box" in prompt, "masks": "mask" in prompt}
    with torch.no_grad():
        expected = theirs(
            image_embeddings=torch.from_numpy(embedding).permute(0, 3, 1, 2),
            input_points=torch.from_numpy(coords)[:, None] if given["coords"] else None,
            input_labels=torch.from_numpy(labels)[:, None] if given["coords"] else None,
            input_boxes=torch.from_numpy(boxes)[:, None] if given["boxes"] else None,
            input_masks=torch.from_numpy(masks).permute(0, 3, 1, 2) if given["masks"] else None,
            multimask_output=multimask,
        )
    actual = ours.decode(
        jnp.asarray(embedding),
        points=(coords, labels) if given["coords"] else None,
        boxes=boxes if given["boxes"] else None,
        masks=masks if given["masks"] else None,
        multimask=multimask,
    )
    assert_close(actual.low_res_logits, expected.pred_masks[:, 0], "low-resolution masks")
    assert_close(actual.iou, expected.iou_scores[:, 0], "predicted IoU")
    assert actual.logits.shape == (2, 3 if multimask else 1, 128, 128)


def test_padding_labels_are_ignored(pair):
    """A point with label −1 is the padding that SAM itself adds."""
    ours = pair[1]
    embedding = jnp.ones((1, 8, 8, 256))
    coords, labels = np.array([[[40.0, 60.0], [9.0, 9.0]]], np.float32), np.array([[1, -1]])
    sparse = ours.prompt_encoder.sparse((coords, labels), None, grid=(8, 8))
    alone = ours.prompt_encoder.sparse((coords[:, :1], labels[:, :1]), None, grid=(8, 8))
    np.testing.assert_array_equal(sparse[:, 1], alone[:, 1])
    assert ours.decode(embedding, points=(coords, labels)).iou.shape == (1, 1)

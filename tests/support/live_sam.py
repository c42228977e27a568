"""A random SAM of `transformers`, and the same through `convert sam`: 128 px, window 3."""

from pathlib import Path

from peers import torch, transformers

from dit_jax.convert.__main__ import main as convert

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


def random_sam(*, image: int = 128, window: int = 3) -> transformers.SamModel:
    """Three blocks, the second of which is global; random values everywhere."""
    torch.manual_seed(0)
    vision = dict(hidden_size=48, num_hidden_layers=3, num_attention_heads=3, mlp_dim=192)
    vision |= dict(image_size=image, window_size=window, global_attn_indexes=[1])
    config = transformers.SamConfig(
        vision_config=vision, prompt_encoder_config=dict(image_size=image)
    )
    theirs = transformers.SamModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
        shared = theirs.shared_image_embedding.positional_embedding
        shared.copy_(torch.randn_like(shared))
        theirs.prompt_encoder.shared_embedding.positional_embedding.copy_(shared)
    return theirs


def live_sam(folder: Path) -> tuple[transformers.SamModel, Path]:
    """PyTorch's model, and the model directory that was converted from it."""
    theirs = random_sam()
    torch.save(meta_names(theirs.state_dict()), folder / "sam.pth")
    assert convert(["sam", str(folder / "sam.pth"), str(folder / "model")]) == 0
    return theirs, folder / "model"

"""A SAM as Hugging Face's `SamModel.from_pretrained` reads it: a folder with its config."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from dit_jax.convert import names
from dit_jax.models.architecture import HEAD_WIDTH, PATCH, Architecture
from dit_jax.weights import directory

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # ImageNet's, as SAM was trained


def write(
    out: Path, arch: Architecture, state: dict[str, np.ndarray], *, overwrite: bool = False
) -> None:
    """Writes `out`, whole or not at all.

    Args:
      arch: a plain SAM.
      state: its tensors under the released DIT code's names.

    Raises ValueError where SamModel has no place for what the SAM is.
    """
    vit, size = arch.vit, arch.vit.grid * PATCH
    odd = {
        f"its tables span {vit.table_grid} patches beside {vit.grid}×{vit.grid} positions": (
            vit.table_grid is not None
        ),
        f"it reads pictures of {arch.image_size} pixels beside positions for {size}": (
            arch.image_size != size
        ),
        "all of its blocks attend globally": (
            not arch.windowed and len(vit.global_blocks) < vit.depth
        ),
    }
    if found := [what for what, is_so in odd.items() if is_so]:
        raise ValueError(
            f"{' and '.join(found)}, for which SamModel has no place: use --format=sam."
        )
    tensors = {names.HF_SAM.write(name): value for name, value in state.items()}
    with directory.atomic_folder(out, overwrite=overwrite) as folder:
        directory.write_tensors(folder / directory.WEIGHTS, tensors, metadata={"format": "pt"})
        for name, values in (("config", config(arch)), ("preprocessor_config", pictures(arch))):
            text = json.dumps(values, indent=2) + "\n"
            (folder / f"{name}.json").write_text(text, encoding="utf-8")


def config(arch: Architecture) -> dict[str, Any]:
    """A `SamConfig`; the decoder has Meta's epsilon, which is not Hugging Face's default."""
    vit, size = arch.vit, arch.vit.grid * PATCH
    return {
        "architectures": ["SamModel"],
        "model_type": "sam",
        "dtype": "float32",
        "vision_config": {
            "model_type": "sam_vision_model",
            "hidden_size": vit.width,
            "num_hidden_layers": vit.depth,
            "num_attention_heads": vit.heads,
            "mlp_dim": 4 * vit.width,
            "global_attn_indexes": list(vit.global_blocks),
            "window_size": vit.window,
            "image_size": size,
            "patch_size": PATCH,
            "output_channels": arch.decoder_width,
            "num_pos_feats": arch.decoder_width // 2,
        },
        "mask_decoder_config": {
            "model_type": "sam_mask_decoder",
            "hidden_size": arch.decoder_width,
            "mlp_dim": arch.decoder_mlp_width,
            "num_hidden_layers": arch.decoder_depth,
            "num_attention_heads": arch.decoder_width // HEAD_WIDTH,
            "iou_head_hidden_dim": arch.decoder_width,
            "layer_norm_eps": 1e-5,
        },
        "prompt_encoder_config": {
            "model_type": "sam_prompt_encoder",
            "hidden_size": arch.decoder_width,
            "image_size": size,
            "patch_size": PATCH,
        },
    }


def pictures(arch: Architecture) -> dict[str, Any]:
    """`SamImageProcessor`: long side to the model's, padded below and to the right."""
    size = arch.vit.grid * PATCH
    return {
        "image_processor_type": "SamImageProcessor",
        "processor_class": "SamProcessor",
        "size": {"longest_edge": size},
        "pad_size": {"height": size, "width": size},
        "mask_size": {"longest_edge": size // 4},
        "mask_pad_size": {"height": size // 4, "width": size // 4},
        "image_mean": MEAN,
        "image_std": STD,
    }

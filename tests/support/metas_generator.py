"""Meta's automatic mask generator, with the parameters of one of our models.

Its package asks torchvision for four functions, which are stated here: torchvision's own files do
not load beside a PyTorch for CPUs.
"""

import functools
import sys
import types

import numpy as np
import pytest
from peers import torch
from PIL import Image

from convert import transfer
from dit_jax.models import params as parameters
from dit_jax.models.architecture import HEAD_WIDTH, Architecture


def batched_nms(boxes, scores, categories, iou_threshold):
    assert not categories.any()
    stay = []
    for i in scores.sort(descending=True, stable=True).indices.tolist():
        if all(overlap(boxes[i], boxes[j]) <= iou_threshold for j in stay):
            stay.append(i)
    return torch.tensor(stay, dtype=torch.long)


def overlap(a, b) -> float:
    wide, high = (max(0.0, float(min(a[k + 2], b[k + 2]) - max(a[k], b[k]))) for k in (0, 1))
    union = float(box_area(a[None]) + box_area(b[None])) - wide * high
    return wide * high / union if union else 0.0


def box_area(boxes):
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def resize(picture, size):
    return picture.resize(size[::-1], Image.Resampling.BILINEAR)


def _package():
    stated = {
        "torchvision": {},
        "torchvision.ops": {},
        "torchvision.ops.boxes": dict(batched_nms=batched_nms, box_area=box_area),
        "torchvision.transforms": {},
        "torchvision.transforms.functional": dict(resize=resize, to_pil_image=Image.fromarray),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, functions in stated.items():
            module = types.ModuleType(name)
            vars(module).update(functions)
            patch.setitem(sys.modules, name, module)
        return pytest.importorskip("segment_anything", reason="Meta's package is not installed")


def generator(arch: Architecture, params: parameters.Params, **settings):
    """`SamAutomaticMaskGenerator` of a plain SAM."""
    meta, vit, width = _package(), arch.vit, arch.decoder_width
    modeling, side = meta.modeling, arch.image_size // 16
    sam = modeling.Sam(
        image_encoder=modeling.ImageEncoderViT(
            img_size=arch.image_size,
            embed_dim=vit.width,
            depth=vit.depth,
            num_heads=vit.heads,
            out_chans=width,
            norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=vit.window,
            global_attn_indexes=vit.global_blocks,
        ),
        prompt_encoder=modeling.PromptEncoder(
            embed_dim=width,
            image_embedding_size=(side, side),
            input_image_size=(arch.image_size, arch.image_size),
            mask_in_chans=16,
        ),
        mask_decoder=modeling.MaskDecoder(
            transformer_dim=width,
            transformer=modeling.TwoWayTransformer(
                depth=arch.decoder_depth,
                embedding_dim=width,
                num_heads=width // HEAD_WIDTH,
                mlp_dim=arch.decoder_mlp_width,
            ),
            iou_head_hidden_dim=width,
        ),
    )
    state = transfer.to_state(parameters.flatten(params))  # DIT's names
    named = {name.replace("visual_encoder.", "image_encoder."): x for name, x in state.items()}
    sam.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in named.items()})
    return meta.SamAutomaticMaskGenerator(sam.eval(), **settings)

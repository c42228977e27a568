"""Bringing every source's names to the released DIT code's; what may be left out, and why."""

import re

import numpy as np

State = dict[str, np.ndarray]

IGNORED = {
    r"query_embeddings$": "declared by the reference, never used",
    r"self_attention\.": "declared by the reference, never used",
    r"lang_encoder\.bert\.pooler\.": "the pooler is never used",
    r"lang_encoder\.bert\.embeddings\.position_ids$": "0, 1, 2, …: a buffer of older transformers",
    r"lang_encoder\.cls\.": "heads of BERT's pre-training",
    r"pixel_(mean|std)$": "ImageNet's constants, part of the pipeline here",
}

# What the released code declares but never reads, so that it can load our tensors strictly; these
# sizes do not depend on the model's. The pooler's do.
DECLARED = {
    "query_embeddings": (1, 4, 768),
    "self_attention.in_proj_weight": (2304, 768),
    "self_attention.in_proj_bias": (2304,),
    "self_attention.out_proj.weight": (768, 768),
    "self_attention.out_proj.bias": (768,),
}

SAM_PARTS = ("visual_encoder.", "prompt_encoder.", "mask_decoder.")


def from_sam(state: State) -> State:
    """Meta's names, `image_encoder.…`."""
    return {_swap(name, "image_encoder.", "visual_encoder."): v for name, v in state.items()}


def to_sam(state: State) -> State:
    """Inverse of `from_sam`."""
    return {_swap(name, "visual_encoder.", "image_encoder."): v for name, v in state.items()}


def from_bert(state: State) -> State:
    """Hugging Face's names with or without `bert.`, new (`weight`) or old (`gamma`, `beta`)."""
    whole = any(name.startswith("bert.") for name in state)
    renamed = {}
    for name, value in state.items():
        inside = name if whole else f"bert.{name}"
        renamed[f"lang_encoder.{modern(inside)}"] = value
    return renamed


def from_dit(state: State) -> State:
    """The released code's own names; BERT's may be of the old style."""
    return {modern(name): value for name, value in state.items()}


def modern(name: str) -> str:
    """LayerNorm's `gamma` and `beta`, as converted from TensorFlow, are weight and bias."""
    return re.sub(r"gamma$", "weight", re.sub(r"beta$", "bias", name))


def reason_to_ignore(name: str) -> str | None:
    """Why a tensor is not needed, or None if it has to be used."""
    return next((why for pattern, why in IGNORED.items() if re.match(pattern, name)), None)


def _swap(name: str, old: str, new: str) -> str:
    return new + name.removeprefix(old) if name.startswith(old) else name

"""How each source calls its tensors, to and from the released DIT code's names; what is left out.

All other modules speak the released code's names; messages speak the file's.
"""

import dataclasses
import re
from collections.abc import Callable

IGNORED = {
    r"query_embeddings$": "declared by the reference, never used",
    r"self_attention\.": "declared by the reference, never used",
    r"lang_encoder\.bert\.pooler\.": "the pooler is never used",
    r"lang_encoder\.bert\.embeddings\.(position_ids|token_type_ids)$": (
        "0, 1, 2, … or zeros: a buffer of older transformers"
    ),
    r"lang_encoder\.cls\.": "heads of BERT's pre-training",
    r"lang_encoder\.(bert\.)?(classifier|qa_outputs|dropout|score|linear)\.": (
        "a head of the task that BERT was fine-tuned for"
    ),
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

Rename = Callable[[str], str]


@dataclasses.dataclass(frozen=True)
class Convention:
    """The names of one kind of source, known by a tensor that every one of them has."""

    what: str
    command: str  # that reads it
    anchor: str  # what stands before it in a file is a wrapping
    read: Rename  # the file's name → the released code's
    write: Rename  # and back


def reason_to_ignore(name: str) -> str | None:
    """Why a tensor is not needed, or None if it has to be used."""
    return next((why for pattern, why in IGNORED.items() if re.match(pattern, name)), None)


def modern(name: str) -> str:
    """LayerNorm's `gamma` and `beta`, as converted from TensorFlow, are weight and bias."""
    return re.sub(r"gamma$", "weight", re.sub(r"beta$", "bias", name))


def _swap(old: str, new: str) -> Rename:
    return lambda name: new + name.removeprefix(old) if name.startswith(old) else name


def _read_bert(name: str) -> str:
    """With or without `bert.`; heads stand beside the encoder."""
    bare = name.startswith(("embeddings.", "encoder.", "pooler."))
    return f"lang_encoder.{'bert.' if bare else ''}{modern(name)}"


def _bare(name: str) -> str:
    return name.removeprefix("lang_encoder.").removeprefix("bert.")


# Hugging Face's SamModel → the released code; # is a number, and the rest of a name follows.
HF_SAM_PARTS = (
    ("vision_encoder.patch_embed.projection", "visual_encoder.patch_embed.proj"),
    ("vision_encoder.layers.#.layer_norm#", "visual_encoder.blocks.#.norm#"),
    ("vision_encoder.layers.#", "visual_encoder.blocks.#"),
    ("vision_encoder.neck.conv1", "visual_encoder.neck.0"),
    ("vision_encoder.neck.layer_norm1", "visual_encoder.neck.1"),
    ("vision_encoder.neck.conv2", "visual_encoder.neck.2"),
    ("vision_encoder.neck.layer_norm2", "visual_encoder.neck.3"),
    ("vision_encoder", "visual_encoder"),
    (
        "shared_image_embedding.positional_embedding",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    ("prompt_encoder.point_embed.#", "prompt_encoder.point_embeddings.#"),
    ("prompt_encoder.mask_embed.conv1", "prompt_encoder.mask_downscaling.0"),
    ("prompt_encoder.mask_embed.layer_norm1", "prompt_encoder.mask_downscaling.1"),
    ("prompt_encoder.mask_embed.conv2", "prompt_encoder.mask_downscaling.3"),
    ("prompt_encoder.mask_embed.layer_norm2", "prompt_encoder.mask_downscaling.4"),
    ("prompt_encoder.mask_embed.conv3", "prompt_encoder.mask_downscaling.6"),
    ("mask_decoder.upscale_conv1", "mask_decoder.output_upscaling.0"),
    ("mask_decoder.upscale_layer_norm", "mask_decoder.output_upscaling.1"),
    ("mask_decoder.upscale_conv2", "mask_decoder.output_upscaling.3"),
    ("mask_decoder.transformer.layer_norm_final_attn", "mask_decoder.transformer.norm_final_attn"),
    (
        "mask_decoder.transformer.layers.#.layer_norm#",
        "mask_decoder.transformer.layers.#.norm#",
    ),
    *(
        (f"mask_decoder.{head}.{theirs}", f"mask_decoder.{head}.{ours}")
        for head in ("output_hypernetworks_mlps.#", "iou_prediction_head")
        for theirs, ours in (
            ("proj_in", "layers.0"),
            ("layers.0", "layers.1"),
            ("proj_out", "layers.2"),
        )
    ),
)
TIED = (  # one tensor, which older files of SamModel store twice: the second name, the first
    "prompt_encoder.shared_embedding.positional_embedding",
    "shared_image_embedding.positional_embedding",
)


def _by_table(rows: tuple[tuple[str, str], ...]) -> Rename:
    """The first row that matches the beginning of a name renames it; others keep theirs."""
    rules = [
        (re.escape(old).replace(r"\#", r"(\d+)") + r"(?=\.|$)", new.replace("#", "{}"))
        for old, new in rows
    ]

    def rename(name: str) -> str:
        for pattern, new in rules:
            if match := re.match(pattern, name):
                return new.format(*match.groups()) + name[match.end() :]
        return name

    return rename


META = Convention(
    "Meta's SAM",
    "sam",
    "image_encoder.pos_embed",
    _swap("image_encoder.", "visual_encoder."),
    _swap("visual_encoder.", "image_encoder."),
)
HF_SAM = Convention(
    "Hugging Face's SamModel",
    "sam",
    "vision_encoder.pos_embed",
    _by_table(HF_SAM_PARTS),
    _by_table(tuple((ours, theirs) for theirs, ours in HF_SAM_PARTS)),
)
DIT = Convention("a DIT model", "dit", "visual_encoder.pos_embed", modern, lambda name: name)
BERT = Convention(
    "a BERT",
    "bert",
    "bert.embeddings.word_embeddings.weight",
    _read_bert,
    _swap("lang_encoder.", ""),
)
BARE_BERT = Convention("a BERT", "bert", "embeddings.word_embeddings.weight", _read_bert, _bare)
CONVENTIONS = (META, HF_SAM, DIT, BERT, BARE_BERT)

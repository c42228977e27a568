"""How a parameter is called and laid out in PyTorch: one ordered table, read in both directions.

Ours is the dotted path of `dit_jax.models.params`; theirs is the released DIT code's name, or
Meta's SAM's, which differs by a prefix only. The first rule whose pattern matches a path renames
that part; then a suffix rule turns Flax's leaf names and axes into PyTorch's.
"""

import re

import numpy as np

PARTS = [  # our part of the path → theirs; \1, \2 are block numbers
    (r"image_encoder\.injector\.cross\.(\d+)\.lin1", r"visual_encoder.cross.\1.ffn.mlp.fc.linear"),
    (r"image_encoder\.injector\.cross\.(\d+)\.lin2", r"visual_encoder.cross.\1.ffn.mlp.linear"),
    (r"image_encoder\.injector", "visual_encoder"),
    (r"image_encoder\.neck\.conv1", "visual_encoder.neck.0"),
    (r"image_encoder\.neck\.norm1", "visual_encoder.neck.1"),
    (r"image_encoder\.neck\.conv2", "visual_encoder.neck.2"),
    (r"image_encoder\.neck\.norm2", "visual_encoder.neck.3"),
    (r"image_encoder", "visual_encoder"),
    (r"prompt_encoder\.mask_downscaling\.conv1", "prompt_encoder.mask_downscaling.0"),
    (r"prompt_encoder\.mask_downscaling\.norm1", "prompt_encoder.mask_downscaling.1"),
    (r"prompt_encoder\.mask_downscaling\.conv2", "prompt_encoder.mask_downscaling.3"),
    (r"prompt_encoder\.mask_downscaling\.norm2", "prompt_encoder.mask_downscaling.4"),
    (r"prompt_encoder\.mask_downscaling\.conv3", "prompt_encoder.mask_downscaling.6"),
    (
        r"prompt_encoder\.pe_layer\.gaussian_matrix",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    (r"prompt_encoder", "prompt_encoder"),
    (r"mask_decoder\.output_upscaling\.conv1", "mask_decoder.output_upscaling.0"),
    (r"mask_decoder\.output_upscaling\.norm", "mask_decoder.output_upscaling.1"),
    (r"mask_decoder\.output_upscaling\.conv2", "mask_decoder.output_upscaling.3"),
    (r"mask_decoder", "mask_decoder"),
    (r"text_encoder\.embeddings\.norm", "lang_encoder.bert.embeddings.LayerNorm"),
    (r"text_encoder\.embeddings", "lang_encoder.bert.embeddings"),
    (
        r"text_encoder\.layer\.(\d+)\.attention\.(query|key|value)",
        r"lang_encoder.bert.encoder.layer.\1.attention.self.\2",
    ),
    (
        r"text_encoder\.layer\.(\d+)\.attention\.output",
        r"lang_encoder.bert.encoder.layer.\1.attention.output.dense",
    ),
    (
        r"text_encoder\.layer\.(\d+)\.attention\.norm",
        r"lang_encoder.bert.encoder.layer.\1.attention.output.LayerNorm",
    ),
    (
        r"text_encoder\.layer\.(\d+)\.intermediate",
        r"lang_encoder.bert.encoder.layer.\1.intermediate.dense",
    ),
    (r"text_encoder\.layer\.(\d+)\.output", r"lang_encoder.bert.encoder.layer.\1.output.dense"),
    (r"text_encoder\.layer\.(\d+)\.norm", r"lang_encoder.bert.encoder.layer.\1.output.LayerNorm"),
    (r"text_proj", "text_proj"),
]

BARE = r"(iou_token|mask_tokens|not_a_point_embed|no_mask_embed|point_embeddings\.\d+)$"
LEAVES = [  # our leaf → theirs; a table of embeddings is a module in PyTorch, an array here
    (r"\.kernel$", ".weight"),
    (r"\.scale$", ".weight"),
    (r"\.embedding$", ".weight"),
    (BARE, r"\1.weight"),
]

AXES = {
    2: (1, 0),
    4: (2, 3, 1, 0),
}  # of a kernel: (out, in) → (in, out); (o, i, y, x) → (y, x, i, o)


def torch_name(path: str) -> str:
    """The released DIT code's name of our parameter `path`."""
    for pattern, theirs in PARTS:
        match = re.match(pattern + r"(?=\.|$)", path)
        if match:
            name = match.expand(theirs) + path[match.end() :]
            break
    else:
        raise KeyError(f"no rule names the parameter {path} in PyTorch.")
    for pattern, theirs in LEAVES:
        name, count = re.subn(pattern, theirs, name)
        if count:
            break
    return name


def from_torch(path: str, value: np.ndarray) -> np.ndarray:
    """PyTorch's array in our axes; a transposed convolution's become (y, x, out, in)."""
    if path.endswith(".kernel") and value.ndim in AXES:
        value = value.transpose(AXES[value.ndim])
    return np.ascontiguousarray(value)


def to_torch(path: str, value: np.ndarray) -> np.ndarray:
    """Inverse of `from_torch`."""
    if path.endswith(".kernel"):
        value = value.transpose(np.argsort(AXES[value.ndim]))
    return np.ascontiguousarray(value)

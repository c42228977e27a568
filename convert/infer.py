"""The architecture of a checkpoint, read off the names and shapes of its tensors.

Names are the released DIT code's (`visual_encoder.…`); `names.py` brings other files to them.
"""

import re

import numpy as np

from dit_jax.models.architecture import PATCH, Architecture, Bert, Injection, Vit

State = dict[str, np.ndarray]
RELEASED_TEXT_LAYER = 1  # what the released code reads, by a slip in an argument's position
DIT_IMAGE_SIZE = 512
HEAD_WIDTH = 64  # of every published BERT
TEXT_TOKENS = 20


def vit(state: State) -> Vit:
    """Depth, width, heads, grid, window and global blocks of an image encoder."""
    _, grid, _, width = _get(state, "visual_encoder.pos_embed", ndim=4).shape
    depth = count(state, r"visual_encoder\.blocks\.(\d+)\.")
    tables = [
        _get(state, f"visual_encoder.blocks.{i}.attn.rel_pos_h", ndim=2).shape for i in range(depth)
    ]
    spanning = tuple(i for i, (rows, _) in enumerate(tables) if rows == 2 * grid - 1)
    windows = {(rows + 1) // 2 for rows, _ in tables if rows != 2 * grid - 1}
    if len(windows) > 1:
        raise ValueError(
            f"windowed blocks have tables for windows {sorted(windows)}; expected one."
        )
    return Vit(
        depth=depth,
        width=width,
        heads=width // tables[0][1],
        global_blocks=spanning,
        grid=grid,
        **({"window": windows.pop()} if windows else {}),
    )


def bert(state: State, *, heads: int | None, head_width: int | None = None) -> Bert:
    """A text encoder. Heads leave no trace in the tensors: given, or 64 channels each.

    `head_width`, the ViT's, stands in for 64 where the width is no multiple of that.
    """
    prefix = "lang_encoder.bert."
    vocab, width = _get(state, f"{prefix}embeddings.word_embeddings.weight", ndim=2).shape
    return Bert(
        vocab=vocab,
        depth=count(state, rf"{re.escape(prefix)}encoder\.layer\.(\d+)\."),
        width=width,
        heads=bert_heads(width, head_width) if heads is None else heads,
        mlp_width=_get(state, f"{prefix}encoder.layer.0.intermediate.dense.weight").shape[0],
        positions=_get(state, f"{prefix}embeddings.position_embeddings.weight").shape[0],
        types=_get(state, f"{prefix}embeddings.token_type_embeddings.weight").shape[0],
    )


def bert_heads(width: int, head_width: int | None) -> int:
    """The usual number of heads for a width; raises ValueError where there is none."""
    for channels in (HEAD_WIDTH, head_width):
        if channels and width % channels == 0:
            return width // channels
    raise ValueError(f"BERT's width {width} is no multiple of {HEAD_WIDTH}: give --text-heads.")


def injection(state: State) -> tuple[Injection, ...]:
    """The methods whose parameters these are. E-DIT and L-DIT have the very same ones."""

    def has(name: str) -> bool:
        return any(key.startswith(f"visual_encoder.{name}") for key in state)

    if has("cross.0.mhatt"):
        return (Injection.CROSS_ATTENTION_FFN,)
    if has("cross."):
        return (Injection.CROSS_ATTENTION,)
    if has("tokens"):
        return (Injection.E2E_STATIC if has("probs.") else Injection.LAYER_WISE_STATIC,)
    if not has("probs."):
        return (Injection.NONE,)
    if count(state, r"visual_encoder\.probs\.(\d+)\.") == 1:
        return (Injection.E2E_CARRIED,)
    return Injection.LAYER_WISE, Injection.E2E


def dit(
    state: State,
    *,
    injection: Injection,
    text_layer: int | None,
    text_heads: int | None,
    image_size: int | None,
) -> Architecture:
    """A released DIT model; the arguments say what its tensors cannot."""
    image = vit(state)
    tokens = state.get("visual_encoder.tokens")
    return Architecture(
        vit=image,
        bert=bert(state, heads=text_heads, head_width=image.width // image.heads),
        injection=injection,
        **decoder(state),
        text_layer=RELEASED_TEXT_LAYER if text_layer is None else text_layer,
        text_projection="visual_encoder.prob_text.weight" in state,
        presence=any(name.startswith("mask_decoder.presence_head.") for name in state),
        text_tokens=TEXT_TOKENS if tokens is None else tokens.shape[1],
        image_size=DIT_IMAGE_SIZE if image_size is None else image_size,
    )


def sam(state: State, *, image_size: int | None) -> Architecture:
    """Meta's SAM: windowed blocks, no text."""
    image = vit(state)
    return Architecture(
        vit=image,
        bert=None,
        injection=Injection.NONE,
        **decoder(state),
        image_size=image.grid * PATCH if image_size is None else image_size,
        windowed=True,
    )


def placeholder_architecture(text: Bert) -> Architecture:
    """Some model with this text encoder, for the names and shapes of the encoder's parameters."""
    image = Vit(depth=1, width=16, heads=1, global_blocks=(0,), grid=1)
    return Architecture(image, text, Injection.NONE, text_layer=text.depth)


def decoder(state: State) -> dict[str, int]:
    """The mask decoder's fields of an `Architecture`."""
    lin1 = _get(state, "mask_decoder.transformer.layers.0.mlp.lin1.weight", ndim=2).shape
    return {
        "decoder_depth": count(state, r"mask_decoder\.transformer\.layers\.(\d+)\."),
        "decoder_width": lin1[1],
        "decoder_mlp_width": lin1[0],
    }


def count(state: State, pattern: str) -> int:
    """How many numbers 0, 1, … stand where the pattern's group is; raises if there are none."""
    numbers = {int(m.group(1)) for name in state if (m := re.match(pattern, name))}
    if not numbers:
        raise ValueError(f"it has no tensor named like {pattern.replace(chr(92), '')}")
    return max(numbers) + 1


def _get(state: State, name: str, *, ndim: int | None = None) -> np.ndarray:
    if name not in state:
        raise ValueError(f"it has no tensor {name}.")
    if ndim is not None and state[name].ndim != ndim:
        raise ValueError(f"its {name} has shape {list(state[name].shape)}; expected {ndim} axes.")
    return state[name]

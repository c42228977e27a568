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
    _, grid, _, width = _get(state, "visual_encoder.pos_embed").shape
    depth = count(state, r"visual_encoder\.blocks\.(\d+)\.")
    tables = [_get(state, f"visual_encoder.blocks.{i}.attn.rel_pos_h").shape for i in range(depth)]
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


def bert(state: State, *, heads: int | None, head_width: int = HEAD_WIDTH) -> Bert:
    """A text encoder. Heads leave no trace in the tensors: given, or 64 channels each.

    `head_width` stands in for 64 where the width is no multiple of it.
    """
    prefix = "lang_encoder.bert."
    vocab, width = _get(state, f"{prefix}embeddings.word_embeddings.weight").shape
    if heads is None:
        heads = width // (HEAD_WIDTH if width % HEAD_WIDTH == 0 else head_width)
    return Bert(
        vocab=vocab,
        depth=count(state, rf"{re.escape(prefix)}encoder\.layer\.(\d+)\."),
        width=width,
        heads=heads,
        mlp_width=_get(state, f"{prefix}encoder.layer.0.intermediate.dense.weight").shape[0],
        positions=_get(state, f"{prefix}embeddings.position_embeddings.weight").shape[0],
        types=_get(state, f"{prefix}embeddings.token_type_embeddings.weight").shape[0],
    )


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
        text_layer=text_layer or RELEASED_TEXT_LAYER,
        text_tokens=TEXT_TOKENS if tokens is None else tokens.shape[1],
        image_size=image_size or DIT_IMAGE_SIZE,
    )


def sam(state: State, *, image_size: int | None) -> Architecture:
    """Meta's SAM: windowed blocks, no text."""
    image = vit(state)
    return Architecture(
        vit=image,
        bert=None,
        injection=Injection.NONE,
        **decoder(state),
        image_size=image_size or image.grid * PATCH,
        windowed=True,
    )


def around(text: Bert) -> Architecture:
    """Some model with this text encoder, for the names and shapes of the encoder's parameters."""
    image = Vit(depth=1, width=16, heads=1, global_blocks=(0,), grid=1)
    return Architecture(image, text, Injection.NONE, text_layer=text.depth)


def decoder(state: State) -> dict[str, int]:
    """The mask decoder's fields of an `Architecture`."""
    lin1 = _get(state, "mask_decoder.transformer.layers.0.mlp.lin1.weight").shape
    return {
        "decoder_depth": count(state, r"mask_decoder\.transformer\.layers\.(\d+)\."),
        "decoder_width": lin1[1],
        "decoder_mlp_width": lin1[0],
    }


def count(state: State, pattern: str) -> int:
    """How many numbers 0, 1, … stand where the pattern's group is; raises if there are none."""
    numbers = {int(m.group(1)) for name in state if (m := re.match(pattern, name))}
    if not numbers:
        raise ValueError(f"the checkpoint has no tensor named like {pattern.replace(chr(92), '')}")
    return max(numbers) + 1


def _get(state: State, name: str) -> np.ndarray:
    if name not in state:
        raise ValueError(f"the checkpoint has no tensor {name}.")
    return state[name]

"""The architecture of a checkpoint, read off the names and shapes of its tensors.

Names are the released DIT code's (`visual_encoder.…`), which `checkpoint.read` brings others to;
messages speak the file's. What tensors cannot tell comes from `config.json` (`beside.py`), from
what `reverse` noted, or from the command line.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dit_jax.convert.checkpoint import Checkpoint
from dit_jax.models.architecture import Bert, Injection, Vit

SAM_TABLE = 2 * 14 - 1  # rows of a table for windows of 14, which every published SAM has
HEAD_WIDTH = 64  # of Google's BERTs, all sizes
EMBEDDINGS = "lang_encoder.bert.embeddings.{}_embeddings.weight"
HEADS = {384: 12, 312: 12}  # BERT widths of which every published model has these heads


def vit(found: Checkpoint, *, global_blocks: tuple[int, ...] | None = None) -> Vit:
    """Depth, width, heads, grid, window and global blocks of an image encoder."""
    name = "visual_encoder.pos_embed"
    _, grid, across, width = _get(found, name, axes=4).shape
    if grid != across:
        raise ValueError(f"its {found.theirs(name)} is {grid}×{across}; expected a square.")
    depth = count(found, "visual_encoder.blocks.")
    tables = [
        _get(found, f"visual_encoder.blocks.{i}.attn.rel_pos_h", axes=2).shape for i in range(depth)
    ]
    rows, channels = [rows for rows, _ in tables], tables[0][1]
    if not channels or width % channels:
        raise ValueError(f"it is {width} wide, no multiple of its tables' {channels} channels.")
    spanning = _global_blocks(rows, grid) if global_blocks is None else global_blocks
    outside = [i for i in spanning if not 0 <= i < depth]
    if outside:
        raise ValueError(f"blocks {outside} do not exist: it has 0 … {depth - 1}.")
    whole = _one_size(rows, spanning, "global")
    windowed = _one_size(rows, sorted(set(range(depth)) - set(spanning)), "windowed")
    return Vit(
        depth=depth,
        width=width,
        heads=width // channels,
        global_blocks=spanning,
        grid=grid,
        table_grid=whole,
        **({"window": windowed} if windowed else {}),
    )


def _global_blocks(rows: list[int], grid: int) -> tuple[int, ...]:
    """Which blocks attend globally, by the rows of all blocks' tables beside `grid`² positions.

    SAM resizes tables while it runs, so files that were fine-tuned at another size may keep those
    of 1024 px. Raises ValueError where two readings are possible.
    """
    small, large = min(rows), max(rows)
    if len(set(rows)) > 2:
        raise ValueError(f"its tables have {sorted(set(rows))} rows; expected two sizes at most.")
    chosen = _global_rows(small, large, 2 * grid - 1)
    if chosen is None:
        raise ValueError(
            f"its tables of {small} and {large} rows beside {grid}×{grid} positions leave open"
            " which blocks attend globally: give --global-blocks to `convert sam` or `convert dit`,"
            " e.g. 2,5,8,11 for ViT-B."
        )
    return tuple(i for i, size in enumerate(rows) if size == chosen)


def _global_rows(small: int, large: int, native: int) -> int | None:
    """Rows of global blocks' tables, of two sizes; 0: no block is global. None: cannot be told.

    `native` has a table that spans the grid.
    """
    if large == native:
        return large
    if small == large:
        return 0 if small < native else None if small == SAM_TABLE else large
    if small == SAM_TABLE:
        return large
    if small == native:
        return small if large == SAM_TABLE else None
    return None if large == SAM_TABLE else large


def _one_size(rows: list[int], blocks: Sequence[int], which: str) -> int | None:
    """Patches a side that the tables of some blocks span; None without blocks."""
    sizes = sorted({rows[i] for i in blocks})
    if len(sizes) > 1:
        raise ValueError(f"its {which} blocks have tables of {sizes} rows; expected one size.")
    return (sizes[0] + 1) // 2 if sizes else None


def bert(found: Checkpoint, **known: Any) -> Bert:
    """A text encoder; `known` are the fields that leave no trace in shapes: heads, activation …"""
    embeddings = bert_embeddings(found)
    vocab, width = embeddings["word"]
    first = "lang_encoder.bert.encoder.layer.0.intermediate.dense.weight"
    return Bert(
        vocab=vocab,
        depth=count(found, "lang_encoder.bert.encoder.layer."),
        width=width,
        mlp_width=_get(found, first, axes=2).shape[0],
        positions=embeddings["position"][0],
        types=embeddings["token_type"][0],
        **known,
    )


def bert_embeddings(found: Checkpoint) -> dict[str, tuple[int, int]]:
    """Rows and width of BERT's three tables."""
    tables = ("word", "position", "token_type")
    return {table: _get(found, EMBEDDINGS.format(table), axes=2).shape for table in tables}


def bert_heads(width: int, head_width: int | None) -> int:
    """The usual number of heads for a width; raises ValueError where there is none.

    `head_width`, a ViT's, stands in for 64 where the width is no multiple of that.
    """
    if width in HEADS:
        return HEADS[width]
    for channels in (HEAD_WIDTH, head_width):
        if channels and width % channels == 0:
            return width // channels
    raise ValueError(
        f"BERT's width {width} is no multiple of {HEAD_WIDTH}: give --text-heads to `convert bert`"
        " or `convert dit`, or put its config.json beside it."
    )


def injection(found: Checkpoint) -> tuple[Injection, ...]:
    """The methods whose parameters these are. E-DIT and L-DIT have the very same ones."""

    def has(name: str) -> bool:
        return any(key.startswith(f"visual_encoder.{name}") for key in found.tensors)

    if has("cross.0.mhatt"):
        return (Injection.CROSS_ATTENTION_FFN,)
    if has("cross."):
        return (Injection.CROSS_ATTENTION,)
    if has("tokens"):
        return (Injection.E2E_STATIC if has("probs.") else Injection.LAYER_WISE_STATIC,)
    if not has("probs."):
        return (Injection.NONE,)
    if count(found, "visual_encoder.probs.") == 1:
        return (Injection.E2E_CARRIED,)
    return Injection.LAYER_WISE, Injection.E2E


def static_tokens(found: Checkpoint) -> int | None:
    """How many tokens a model brings that reads none of the text; None for the others."""
    name = "visual_encoder.tokens"
    return _get(found, name, axes=3).shape[1] if name in found.tensors else None


def decoder(found: Checkpoint) -> dict[str, int]:
    """The mask decoder's fields of an `Architecture`."""
    first = "mask_decoder.transformer.layers.0.mlp.lin1.weight"
    hidden, width = _get(found, first, axes=2).shape
    return {
        "decoder_depth": count(found, "mask_decoder.transformer.layers."),
        "decoder_width": width,
        "decoder_mlp_width": hidden,
    }


def count(found: Checkpoint, prefix: str) -> int:
    """How many numbers 0, 1, … stand behind a prefix; raises ValueError if there are none."""
    rest = (name[len(prefix) :] for name in found.tensors if name.startswith(prefix))
    numbers = [int(word) for word in (name.split(".")[0] for name in rest) if word.isdecimal()]
    if not numbers:
        raise ValueError(f"it has no tensor {found.theirs(f'{prefix}0')}.*")
    return max(numbers) + 1


def _get(found: Checkpoint, name: str, *, axes: int) -> np.ndarray:
    if name not in found.tensors:
        raise ValueError(f"it has no tensor {found.theirs(name)}.")
    shape = found.tensors[name].shape
    if len(shape) != axes:
        raise ValueError(f"its {found.theirs(name)} has shape {list(shape)}; expected {axes} axes.")
    return found.tensors[name]

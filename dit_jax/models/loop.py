"""The encoder's blocks as one loop over their stacked parameters: `model.remat="scan"`.

Unrolled, each block is compiled anew, and a compiler may leave the gradients of all blocks' weights
to the end and keep what they need until then. A loop's body is compiled once, and nothing but its
carry outlives it. The first and the last block stay outside: text enters and leaves there.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from dit_jax.models.layers import Rng
from dit_jax.ops.arrays import Array
from dit_jax.ops.mesh import shard_rows
from dit_jax.ops.resize import resize_rows

Path = tuple[str | int, ...]
Leaves = dict[Path, Array]
ALIKE = 1  # the block, and its injection, whose structure stands for all in the loop


def middle_blocks(
    encoder, x: Array, carried: Array | None, *, layers: range, text, text_mask, rngs: Rng | None
):
    """The image and the carried text after `layers`, which are alike in what text they read.

    Args:
      encoder: an `ImageEncoder`; raises ValueError for windows, which not every block has.
      x, carried: what left the block before; `carried` is None where no text lives on.
      text: None before text enters.
    """
    if any(block.window is not None for block in encoder.blocks):
        raise ValueError("remat is 'scan'; expected another policy for an encoder with windows.")
    if not layers:
        return x, carried
    structure, _ = _split(encoder.blocks[ALIKE])
    injector = None if text is None else _split(encoder.injector)
    carry = encoder.carries(layers[0])
    keys = None if rngs is None else jax.random.split(rngs.dropout(), len(layers))
    each = [_leaves(encoder, i, x.shape[1:3], injects=text is not None) for i in layers]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)

    def body(before, of_layer):
        (x, carried), (leaves, own, key) = before, of_layer
        tokens = None
        if injector is not None:
            graph, every = injector
            filled = {path: jnp.broadcast_to(y, every[path].shape) for path, y in own.items()}
            module = _merge(graph, every | filled)
            image = x.reshape(x.shape[0], -1, x.shape[-1])
            about = dict(mask=text_mask, rngs=None if key is None else nnx.Rngs(dropout=key))
            tokens = module(ALIKE, text, carried, image, **about)
        block = _merge(structure, leaves)
        x, carried = block(x, tokens, text_mask=text_mask, carry=carry)
        return (shard_rows(x), carried), None

    with jax.named_scope("blocks"):
        recomputed = jax.checkpoint(body, prevent_cse=False)  # a loop's two bodies are apart anyway
        after, _ = jax.lax.scan(recomputed, (shard_rows(x), carried), (*stacked, keys))
    return after


def _leaves(encoder, layer: int, grid: tuple[int, int], *, injects: bool) -> tuple[Leaves, Leaves]:
    """Parameters of a block and of what is injected before it, in the places of block `ALIKE`'s."""
    _, block = _split(encoder.blocks[layer])
    for axis, side in zip("hw", grid, strict=True):  # checkpoints' tables differ in length
        path = ("attn", f"rel_pos_{axis}")
        block[path] = resize_rows(block[path], 2 * side - 1)
    own: Leaves = {}
    if not injects:
        return block, own
    _, every = _split(encoder.injector)
    depth, layer = len(encoder.blocks) - encoder.inject_from, layer - encoder.inject_from
    for path, value in every.items():
        name, *rest = path
        if name == "tokens":  # a row a block, from the first or from the second
            own[path] = value[layer - (depth - len(value))]
        elif rest and isinstance(rest[0], int):  # a module a block, in the same way
            first = depth - len(getattr(encoder.injector, name))
            if rest[0] == layer - first:
                own[(name, ALIKE - first, *rest[1:])] = value
    return block, own


def _split(module: nnx.Module) -> tuple[nnx.GraphDef, Leaves]:
    graph, state = nnx.split(module, nnx.Param)
    return graph, {path: value[...] for path, value in nnx.to_flat_state(state)}


def _merge(graph: nnx.GraphDef, leaves: Leaves) -> nnx.Module:
    flat = {path: nnx.Param(value) for path, value in leaves.items()}
    return nnx.merge(graph, nnx.from_flat_state(flat))

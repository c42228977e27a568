"""One file that JAX runs on a CPU, an NVIDIA GPU or a TPU without this package: `jax.export`.

    segment.stablehlo    the program (see `program.py`), with every parameter that it reads inside
    weights.safetensors  only of models above `INSIDE` bytes: the parameters, by their dotted paths
    vocab.txt            of the text encoder, and tokenizer_config.json
    run.py               runs it, with nothing but what it says at its top and from_pillow.py

Height, width and number of the pictures are symbols in the program: no size is compiled in.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from dit_jax.eval.protocols import PRESENCE_THRESHOLD
from dit_jax.export import program
from dit_jax.export.source import Source, write_beside
from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Architecture
from dit_jax.ops import attention
from dit_jax.ops.platform import ANYWHERE, planned_for
from dit_jax.weights import directory

PLATFORMS = ("cpu", "cuda", "tpu")
PROGRAM, WEIGHTS = "segment.stablehlo", "weights.safetensors"
INSIDE = 1_900_000_000  # bytes: `jax.export` keeps its file in a FlatBuffer, which ends at 2 GiB


def write(source: Source, folder: Path) -> None:
    """Writes the files above into a folder."""
    vocab, flat = source.vocabulary(), params_lib.flatten(source.params)
    inside = sum(leaf.nbytes for leaf in flat.values()) <= INSIDE
    about = dict(inside=inside, presence_threshold=source.presence_threshold)
    (folder / PROGRAM).write_bytes(make(source.portable, flat, **about).serialize())
    if not inside:
        directory.write_tensors(folder / WEIGHTS, flat)
    write_beside(vocab, folder)


def make(
    arch: Architecture,
    flat: dict[str, np.ndarray],
    *,
    inside: bool,
    presence_threshold: float = PRESENCE_THRESHOLD,
) -> export.Exported:
    """`(weights, images, size, input_ids, attention_mask)`, for every platform.

    Args:
      flat: parameters by path.
      inside: they become part of the program, and `weights` is {}; else `weights` is `flat`.
    """
    segment = program.make(arch, presence_threshold=presence_threshold)
    params = jax.tree.map(jnp.asarray, flat) if inside else {}

    def whole(weights, *inputs):
        return segment(params_lib.unflatten(params or weights), *inputs)

    weights = {} if inside else jax.tree.map(_shape, flat)
    with attention.use_back_end("anywhere"), planned_for(ANYWHERE), _without_file_names():
        return export.export(jax.jit(whole), platforms=PLATFORMS)(weights, *inputs(arch))


def inputs(arch: Architecture) -> tuple[jax.ShapeDtypeStruct, ...]:
    """The program's inputs; b, h and w are symbols."""
    scope = export.SymbolicScope()
    text = f"b, {arch.text_tokens}"
    rows = (("b, h, w, 3", jnp.uint8), ("b, 2", jnp.int32), (text, jnp.int32), (text, jnp.int32))
    return tuple(
        jax.ShapeDtypeStruct(export.symbolic_shape(shape, scope=scope), dtype)
        for shape, dtype in rows
    )


@contextlib.contextmanager
def _without_file_names() -> Iterator[None]:
    """Operations are named by the model's parts alone, not by files of whoever exports."""
    name = "jax_traceback_in_locations_limit"
    before = jax.config.values[name]
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _shape(leaf: np.ndarray) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)

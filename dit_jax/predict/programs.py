"""The model as compiled programs: words, picture, mask; and the picture before its words.

Each is compiled once for a number of rows, which `bucket` rounds up to a power of two, and never
again in a loop. They take the parameters as an argument and belong to an architecture, so that
other parameters, or another segmenter, run without compiling.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dit_jax.models import params as parameters
from dit_jax.models.architecture import Architecture, Injection
from dit_jax.models.dit_sam import Prediction
from dit_jax.models.params import Params
from dit_jax.models.word_attention import WordAttention, word_attention
from dit_jax.ops import platform
from dit_jax.ops.pixels import normalize

Rows = dict[str, Any]  # arrays with one row a question, or None where the question has no such part


@functools.lru_cache(maxsize=8)
def programs_of(arch: Architecture, device: jax.Device) -> "Programs":
    """The programs of an architecture on a device, the same ones each time."""
    return Programs(arch, device)


class Programs:
    """Compiled functions of parameters on `device` and of arrays that were put there too."""

    def __init__(self, arch: Architecture, device: jax.Device):
        self._graph = parameters.structure(arch)[0]
        self.injects = arch.injection != Injection.NONE
        self.late = arch.inject_from > 0  # a picture is computed up to there without its text
        compiled = functools.partial(_compiled, device=device)
        self.features = compiled(self._features)
        self.before_text = compiled(self._before_text)
        self.embed = compiled(self._embed)
        self.decode = compiled(self._decode, static_argnames="multimask")
        self.at_points = compiled(self._at_points)
        self.attention = compiled(self._attention)

    def _features(
        self, params: Params, input_ids: Int[Array, "b l"], attention_mask: Int[Array, "b l"]
    ) -> Float[Array, "b l t"]:
        """What the text encoder makes of token ids."""
        return parameters.merge(self._graph, params).encode_text(input_ids, attention_mask)

    def _before_text(self, params: Params, rows: Rows) -> Float[Array, "b h w d"]:
        """`image` and `content`, up to the block that text enters."""
        encoder = parameters.merge(self._graph, params).image_encoder
        return encoder.before_text(normalize(rows["image"], rows["content"]))

    def _embed(self, params: Params, rows: Rows) -> Float[Array, "b h w c"]:
        """`image` and `content`, or what `before_text` made of them as `before`; and where text is
        injected `features` and `attention_mask`."""
        model = parameters.merge(self._graph, params)
        encoder, text, text_mask = model.image_encoder, None, None
        before = rows["before"] if self.late else self._before_text(params, rows)
        if self.injects:
            text, text_mask = rows["features"], model.text_mask(rows["attention_mask"])
        return encoder.from_text(before, text, text_mask=text_mask)

    def _decode(
        self, params: Params, embedding: Float[Array, "b h w c"], rows: Rows, *, multimask: bool
    ) -> Prediction:
        """The keys of `rows` are the fields of `prompts.Placed`, `features`, `attention_mask`."""
        model = parameters.merge(self._graph, params)
        text, text_mask, points = None, None, None
        if rows["features"] is not None:
            text = model.text_proj(rows["features"])
            text_mask = model.text_mask(rows["attention_mask"])
        if rows["points"] is not None:
            points = rows["points"], rows["labels"]
        return model.decode(
            embedding,
            points=points,
            point_mask=rows["point_mask"],
            boxes=rows["boxes"],
            masks=rows["masks"],
            text=text,
            text_mask=text_mask,
            multimask=multimask,
        )

    def _at_points(
        self, params: Params, embedding: Float[Array, "1 h w c"], rows: Rows
    ) -> tuple[Float[Array, "b 3 h4 w4"], Float[Array, "b 3"]]:
        """`_decode` of many prompts about one picture: three small masks each, and their IoU."""
        many = jnp.broadcast_to(embedding, (len(rows["points"]), *embedding.shape[1:]))
        said = self._decode(params, many, rows, multimask=True)
        return said.low_res_logits, said.iou

    def _attention(self, params: Params, rows: Rows) -> WordAttention:
        """`image`, `content`, `features`, `attention_mask`: where each patch looks."""
        model = parameters.merge(self._graph, params)
        images = normalize(rows["image"], rows["content"])
        return word_attention(model, images, rows["features"], rows["attention_mask"])


def _compiled(function: Callable, *, device: jax.Device, **how: Any) -> Callable:
    """`jax.jit` of a function that is traced for a device, whatever else this host has."""
    with platform.default(device):
        program = jax.jit(function, compiler_options=platform.compiler_options(), **how)

    def call(*arguments: Any, **named: Any) -> Any:
        with platform.default(device):
            return program(*arguments, **named)

    return call


def bucket(count: int, *, most: int) -> int:
    """`count` rounded up to a power of two, but not beyond `most`."""
    return min(1 << (count - 1).bit_length(), max(most, count))


def pad_rows(rows: Any, count: int) -> Any:
    """Arrays, in any tree, with their last row again until they have `count` rows."""
    return jax.tree.map(functools.partial(_fill, count=count), rows)


def _fill(array: np.ndarray, *, count: int) -> np.ndarray:
    missing = count - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array

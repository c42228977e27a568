"""Everything between a picture's bytes and its mask as one function that other machines can run.

    resize → letterbox → normalise → text encoder, image encoder, decoder → un-letterbox → threshold

Pictures of any size lie in the top left corner of an array, which may be larger: one program, and
one compilation for all pictures in arrays of one size. What it computes is `original` of
`dit_jax.eval.protocols` around the model of a directory.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32

from dit_jax.eval.protocols import PRESENCE_THRESHOLD, THRESHOLD, logit
from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Architecture
from dit_jax.models.params import Params
from dit_jax.ops import letterbox
from dit_jax.ops.pixels import normalize

Program = Callable[..., dict[str, jax.Array]]
INPUTS = ("images", "size", "input_ids", "attention_mask")


def make(
    arch: Architecture,
    *,
    threshold: float = THRESHOLD,
    presence_threshold: float = PRESENCE_THRESHOLD,
) -> Program:
    """`(params, images, size, input_ids, attention_mask) → {mask, probability, …}`.

    `images` is uint8 `[b,H,W,3]`, `size` int32 `[b,2]` each picture's height and width inside it,
    the text int32 `[b,l]`. `mask` is bool and `probability` float32 `[b,H,W]`, False and 0 outside
    the picture; the score `[b]` is called what it is: `predicted_iou` of a model that was
    trained to predict it, else `confidence`, as `Segmentation.score` defines them; `presence`, of a
    model that says it, is the probability `[b]` that the words mean anything in the picture, and
    `nothing` bool `[b]`, whether that is below the threshold.

    Args:
      threshold: probability above which a pixel is in the mask.
      presence_threshold: probability below which the answer is "nothing".
    """
    graph, limit = params_lib.structure(arch)[0], logit(threshold)
    least = logit(presence_threshold)

    def segment(params: Params, images, size, input_ids, attention_mask) -> dict[str, jax.Array]:
        content = letterbox.content_box(size, arch.image_size)
        canvas = letterbox.letterbox(images, size, content, arch.image_size)
        model = params_lib.merge(graph, params)
        answer = model(normalize(canvas, content), input_ids, attention_mask)
        logits = answer.logits.astype(jnp.float32)
        logits, within = letterbox.restore(logits, size, content, images.shape[1:3])
        mask = within & (logits > limit)
        probability = jnp.where(within, jax.nn.sigmoid(logits), 0.0)
        iou = answer.iou.astype(jnp.float32)
        said = {
            "mask": mask,
            "probability": probability,
            arch.score_kind: iou if arch.iou_trained else confidence(mask, probability),
        }
        if answer.presence is None:
            return said
        presence = answer.presence
        return said | {"presence": jax.nn.sigmoid(presence), "nothing": presence < least}

    return segment


def confidence(
    mask: Bool[Array, "b H W"], probability: Float32[Array, "b H W"]
) -> Float32[Array, " b"]:
    """The mean probability inside each mask, 0 where it has no pixel.

    Row by row first: one float32 would not hold the sum over a large picture.
    """
    rows = jnp.sum(jnp.where(mask, probability, 0.0), axis=2)
    pixels = jnp.sum(mask, axis=(1, 2), dtype=jnp.float32)
    return jnp.sum(rows / jnp.maximum(pixels, 1)[:, None], axis=1)

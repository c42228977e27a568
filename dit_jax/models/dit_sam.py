"""The whole model: text and picture in, mask logits out; and SAM's own prompts.

text ── text_encoder ──┬─▶ image_encoder (before every block, as the row says) ─┐
                       └─▶ text_proj ─▶ sparse prompts ─▶ mask_decoder ◀────────┘
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float, Int

from dit_jax.models.architecture import PATCH, Architecture
from dit_jax.models.image_encoder import ImageEncoder
from dit_jax.models.layers import Rng, linear
from dit_jax.models.mask_decoder import SEVERAL, SINGLE, MaskDecoder
from dit_jax.models.prompt_encoder import PromptEncoder
from dit_jax.models.text_encoder import TextEncoder
from dit_jax.ops.arrays import Array
from dit_jax.ops.resize import resize

Images = Float[Array, "b H W 3"]
Embedding = Float[Array, "b h w c"]
Ids = Int[Array, "b l"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prediction:
    """Float32 mask logits at the input's size and at a quarter of it, and the predicted IoU.

    From `DitSam.__call__` there is one mask a picture, `[b, …]`; from `decode` m, `[b, m, …]`.
    `presence` is always one a picture, `[b]`: the logit of "something is meant", in float32; None
    of a model without `arch.presence`.
    """

    logits: Float[Array, "*b H W"]
    low_res_logits: Float[Array, "*b H4 W4"]
    iou: Float[Array, "*b"]
    presence: Float[Array, "_"] | None  # noqa: F821


class DitSam(nnx.Module):
    """Text-guided SAM. Evaluation mode unless `rngs` (a `dropout` stream) is given."""

    def __init__(self, arch: Architecture, *, rngs: Rng):
        self.arch = arch
        self.image_encoder = ImageEncoder(arch, rngs=rngs)
        self.prompt_encoder = PromptEncoder(arch.decoder_width, dtype=arch.dtype, rngs=rngs)
        self.mask_decoder = MaskDecoder(arch, rngs=rngs)
        if arch.bert is None:
            self.text_encoder, self.text_proj = None, None
            return
        make = dict(dtype=arch.dtype, rngs=rngs)
        self.text_encoder = TextEncoder(arch.bert, output_layer=arch.text_layer, **make)
        self.text_proj = linear(arch.bert.width, arch.decoder_width, **make)

    def __call__(
        self,
        images: Images | None,
        input_ids: Ids,
        attention_mask: Ids,
        *,
        before: Float[Array, "b h w d"] | None = None,
        remat: str = "none",
        rngs: Rng | None = None,
    ) -> Prediction:
        """One mask an (image, expression) pair.

        Args:
          images: normalised; see `dit_jax.data.pixels.transforms`.
          input_ids: WordPiece ids `[CLS] … [SEP]`.
          attention_mask: 1 where there is a token.
          before: what `image_encoder.before_text` made of the pictures, in place of `images`.
          remat: what the backward pass computes again instead of keeping it: "none", "dots",
            "full" or "scan"; see `dit_jax.ops.rematerialise`.
        """
        how = dict(before=before, remat=remat, rngs=rngs)
        return self._predict(images, input_ids, attention_mask, **how)

    def segment(
        self,
        images: Float[Array, "p H W 3"],
        input_ids: Ids,
        attention_mask: Ids,
        *,
        picture_of: Int[Array, " b"],
    ) -> Prediction:
        """One mask an expression, where several of the b expressions may mean the same picture.

        A picture is computed once up to where text enters: all of the image encoder where the row
        injects none, else the patches and the first block's queries, keys and values. Expressions
        are read once each. Nothing about shapes is dynamic: pad expressions (any ids, any picture)
        to a size that was compiled before. Rows come in the order of the expressions and
        equal those of `__call__` on `images[picture_of]`.

        Args:
          images: p pictures, normalised, all of one size.
          input_ids: as in `__call__`.
          attention_mask: as in `__call__`.
          picture_of: which of the p pictures each expression is about.
        """
        return self._predict(images, input_ids, attention_mask, picture_of=picture_of)

    def _predict(self, images, input_ids, attention_mask, **how) -> Prediction:
        embedding, text = self.read(images, input_ids, attention_mask, **how)
        all_masks = self.decode(embedding, text=text, text_mask=self.text_mask(attention_mask))
        single = (x[:, 0] for x in (all_masks.logits, all_masks.low_res_logits, all_masks.iou))
        return Prediction(*single, all_masks.presence)

    def read(
        self,
        images: Float[Array, "p H W 3"] | None,
        input_ids: Ids,
        attention_mask: Ids,
        *,
        before: Float[Array, "p h w d"] | None = None,
        picture_of: Int[Array, " b"] | None = None,
        remat: str = "none",
        rngs: Rng | None = None,
    ) -> tuple[Embedding, Float[Array, "b l c"]]:
        """What `decode` takes: the embedding of a picture and its text, and the text as prompts."""
        features = self.encode_text(input_ids, attention_mask, rngs=rngs)
        about = dict(text_mask=self.text_mask(attention_mask), picture_of=picture_of, before=before)
        embedding = self.image_encoder(images, features, **about, remat=remat, rngs=rngs)
        return embedding, self.text_proj(features)

    def encode_text(
        self, input_ids: Ids, attention_mask: Ids, *, rngs: Rng | None = None
    ) -> Float[Array, "b l t"]:
        """BERT features of layer `arch.text_layer`."""
        if self.text_encoder is None:
            raise ValueError("this is plain SAM: it has no text encoder; use points or boxes.")
        return self.text_encoder(input_ids, attention_mask, rngs=rngs)

    def text_mask(self, attention_mask: Ids) -> Bool[Array, "b l"] | None:
        """Which text tokens may be attended to; None where padding is not hidden."""
        return attention_mask.astype(bool) if self.arch.mask_padding else None

    def encode_image(
        self, images: Images, input_ids: Ids | None = None, attention_mask: Ids | None = None
    ) -> Embedding:
        """The image embedding. Text is needed exactly where the row injects it."""
        if self.image_encoder.injector is None:
            return self.image_encoder(images)
        if input_ids is None or attention_mask is None:
            raise ValueError("this encoder reads text: give input_ids and attention_mask.")
        features = self.encode_text(input_ids, attention_mask)
        return self.image_encoder(images, features, text_mask=self.text_mask(attention_mask))

    def decode(
        self,
        embedding: Embedding,
        *,
        points: tuple[Float[Array, "b p 2"], Int[Array, "b p"]] | None = None,
        point_mask: Bool[Array, "b p"] | None = None,
        boxes: Float[Array, "b 4"] | None = None,
        masks: Float[Array, "b H4 W4 1"] | None = None,
        text: Float[Array, "b l c"] | None = None,
        text_mask: Bool[Array, "b l"] | None = None,
        multimask: bool = False,
    ) -> Prediction:
        """Masks from any prompts, together or alone.

        Args:
          points: pixel coordinates (x, y) of the input image and labels, 1 object / 0 background.
          point_mask: False hides a point entirely, so that rows of different counts share a batch.
          boxes: x0, y0, x1, y1 in pixels of the input image.
          masks: logits of an earlier prediction.
          text: `text_proj` of BERT features.
          multimask: three masks for an ambiguous prompt instead of one.
        """
        check_labels(points)
        grid = embedding.shape[1:3]
        sparse, mask = self.sparse_prompts(embedding, points, point_mask, boxes, text, text_mask)
        low_res, iou, presence = self.mask_decoder(
            embedding,
            self.prompt_encoder.image_positions(grid),
            sparse=sparse,
            dense=self.prompt_encoder.dense(masks),
            sparse_mask=mask,
            wanted=SEVERAL if multimask else SINGLE,
        )
        size = (grid[0] * PATCH, grid[1] * PATCH)
        # DIT aligns corners (reference), Meta's SAM does not.
        channels_last = jnp.moveaxis(low_res, 1, -1)
        logits = resize(channels_last, size, method="linear", align_corners=text is not None)
        return Prediction(jnp.moveaxis(logits, -1, 1), low_res, iou, presence)

    def sparse_prompts(self, embedding, points, point_mask, boxes, text, text_mask):
        """Points and boxes, then text; and which of these tokens may be attended to."""
        geometric = self.prompt_encoder.sparse(points, boxes, grid=embedding.shape[1:3])
        parts = [part for part in (geometric, text) if part is not None]
        if not parts:
            parts = [jnp.zeros((embedding.shape[0], 0, embedding.shape[-1]), embedding.dtype)]
        sparse = jnp.concatenate(parts, axis=1)
        if point_mask is None and (text is None or text_mask is None):
            return sparse, None
        first = [] if point_mask is None else [point_mask]
        last = [] if text is None or text_mask is None else [text_mask]
        others = sparse.shape[1] - sum(mask.shape[1] for mask in first + last)
        between = [jnp.ones((sparse.shape[0], others), bool)] if others else []
        return sparse, jnp.concatenate(first + between + last, axis=1)


def check_labels(points) -> None:
    """Raises ValueError for labels, where they are known on the host, that mean nothing."""
    if points is None or not isinstance(points[1], np.ndarray):
        return
    wrong = sorted(set(points[1].ravel().tolist()) - {-1, 0, 1})
    if wrong:
        raise ValueError(
            f"point labels {wrong}; expected 1 (object), 0 (background), -1 (padding)."
        )

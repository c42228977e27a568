"""Points, boxes and earlier answers in rounds: rows that point at different things in one program.

`DitSam.decode` takes prompts that all rows have; here some rows have a box and others points, and
each gets the tokens that `decode` would make of it alone.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from dit_jax.models.architecture import PATCH
from dit_jax.models.dit_sam import DitSam
from dit_jax.models.mask_decoder import SINGLE
from dit_jax.ops.arrays import Array
from dit_jax.ops.resize import resize

Canvas = Float[Array, "b m S S"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prompts:
    """What has been pointed at in each picture; places that are not yet used are hidden."""

    points: Float[Array, "b p 2"]
    labels: Int[Array, "b p"]
    given: Bool[Array, "b p"]
    boxes: Float[Array, "b 4"]
    boxed: Bool[Array, " b"]

    def tokens(self, model: DitSam, grid: tuple[int, int]) -> tuple[Array, Bool[Array, "b t"]]:
        """As `DitSam.decode` makes them of each row alone, and which of them count."""
        encoder = model.prompt_encoder
        points = encoder.embed_points(self.points, self.labels, pad=True, grid=grid)
        boxes = encoder.embed_boxes(self.boxes, grid=grid)
        boxed = self.boxed[:, None]
        tokens = jnp.concatenate([points, boxes], axis=1).astype(encoder.dtype)
        return tokens, jnp.concatenate([self.given, ~boxed, boxed, boxed], axis=1)

    def put(self, place: int | Int[Array, ""], points, labels) -> "Prompts":
        """With a point in each row."""
        return dataclasses.replace(
            self,
            points=self.points.at[:, place].set(points),
            labels=self.labels.at[:, place].set(labels),
            given=self.given.at[:, place].set(True),
        )


@dataclasses.dataclass(frozen=True)
class Answering:
    """The decoder on embeddings that are computed once; `text` stands behind every prompt."""

    model: DitSam
    embedding: Float[Array, "b h w c"]
    text: Float[Array, "b l c"] | None = None
    text_mask: Bool[Array, "b l"] | None = None

    def __call__(
        self,
        prompts: Prompts,
        *,
        wanted: slice = SINGLE,
        before: Float[Array, "b h w"] | None = None,
        shown: Bool[Array, " b"] | None = None,
    ) -> tuple[Canvas, Float[Array, "b m h w"], Float[Array, "b m"]]:
        """Logits on the canvas and at a quarter of it, and predicted IoU.

        Args:
          before: earlier logits at a quarter, as a mask, of the rows where `shown`.
        """
        model, grid = self.model, self.embedding.shape[1:3]
        sparse, there = prompts.tokens(model, grid)
        if self.text is not None:
            words = self.text_mask
            words = jnp.ones(self.text.shape[:2], bool) if words is None else words
            sparse = jnp.concatenate([sparse, self.text], axis=1)
            there = jnp.concatenate([there, words], axis=1)
        dense = model.prompt_encoder.dense(None)
        if before is not None:
            masked = model.prompt_encoder.dense(before[..., None].astype(sparse.dtype))
            dense = jnp.where(shown[:, None, None, None], masked, dense)
        small, iou, _ = model.mask_decoder(
            self.embedding,
            model.prompt_encoder.image_positions(grid),
            sparse=sparse,
            dense=dense,
            sparse_mask=there,
            wanted=wanted,
        )
        size = (grid[0] * PATCH, grid[1] * PATCH)
        last = jnp.moveaxis(small, 1, -1)
        whole = resize(last, size, method="linear", align_corners=self.text is not None)
        return jnp.moveaxis(whole, -1, 1), small, iou


def nothing(rows: int, *, places: int) -> Prompts:
    """No prompts yet."""
    return Prompts(
        points=jnp.zeros((rows, places, 2), jnp.float32),
        labels=jnp.zeros((rows, places), jnp.int32),
        given=jnp.zeros((rows, places), bool),
        boxes=jnp.zeros((rows, 4), jnp.float32),
        boxed=jnp.zeros((rows,), bool),
    )

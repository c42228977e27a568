"""SAM's prompt encoder: points, boxes and masks to sparse and dense embeddings.

Labels: 1 foreground, 0 background, −1 padding. Coordinates are (x, y), pixels of the encoder's
input.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Int

from dit_jax.models.architecture import PATCH
from dit_jax.models.layers import Rng, layer_norm
from dit_jax.ops.arrays import Array
from dit_jax.ops.gelu import gelu
from dit_jax.ops.linear import EXACT

MASK_CHANNELS = 16
EPSILON = 1e-6
BACKGROUND, FOREGROUND, TOP_LEFT, BOTTOM_RIGHT = range(4)

Size = tuple[int, int]


class PromptEncoder(nnx.Module):
    """Sparse tokens `[b, s, c]` and a dense map that is added to the image embedding."""

    def __init__(self, width: int, *, dtype: str, rngs: Rng):
        self.pe_layer = FourierPositions(width)
        self.point_embeddings = nnx.List(
            nnx.Param(jnp.zeros((1, width), jnp.float32)) for _ in range(4)
        )
        self.not_a_point_embed = nnx.Param(jnp.zeros((1, width), jnp.float32))
        self.no_mask_embed = nnx.Param(jnp.zeros((1, width), jnp.float32))
        self.mask_downscaling = MaskDownscaling(width, dtype=dtype, rngs=rngs)
        self.dtype = dtype

    @jax.named_scope("prompt_encoder")
    def image_positions(self, grid: Size) -> Float[Array, "1 h w c"]:
        """Fourier features of every patch centre."""
        return self.pe_layer.of_centers(grid)[None].astype(self.dtype)

    @jax.named_scope("prompt_encoder")
    def sparse(
        self,
        points: tuple[Float[Array, "b p 2"], Int[Array, "b p"]] | None,
        boxes: Float[Array, "b 4"] | None,
        *,
        grid: Size,
    ) -> Float[Array, "b s c"] | None:
        """Point tokens, then box corners; a padding point stands in where there is no box."""
        tokens = []
        if points is not None:
            tokens.append(self.embed_points(*points, pad=boxes is None, grid=grid))
        if boxes is not None:
            tokens.append(self.embed_boxes(boxes, grid=grid))
        return jnp.concatenate(tokens, axis=1).astype(self.dtype) if tokens else None

    def embed_points(self, coords, labels, *, pad: bool, grid: Size):
        if pad:
            coords = jnp.pad(coords, ((0, 0), (0, 1), (0, 0)))
            labels = jnp.pad(labels, ((0, 0), (0, 1)), constant_values=-1)
        label = labels[..., None]
        kinds = jnp.stack([self.point_embeddings[k][0] for k in (BACKGROUND, FOREGROUND)])
        encoded = self.encode(coords, grid) + kinds[jnp.maximum(labels, 0)]
        return jnp.where(label < 0, self.not_a_point_embed[...][None], encoded)

    def embed_boxes(self, boxes, *, grid: Size):
        corners = self.encode(boxes.reshape(-1, 2, 2), grid)
        kinds = [self.point_embeddings[k][0] for k in (TOP_LEFT, BOTTOM_RIGHT)]
        return corners + jnp.stack(kinds)[None]

    def encode(self, coords: Float[Array, "b p 2"], grid: Size) -> Float[Array, "b p c"]:
        width_height = jnp.asarray([grid[1] * PATCH, grid[0] * PATCH], jnp.float32)
        return self.pe_layer((coords.astype(jnp.float32) + 0.5) / width_height[None, None])

    @jax.named_scope("prompt_encoder")
    def dense(
        self, masks: Float[Array, "b H4 W4 1"] | None
    ) -> Float[Array, "b h w c"] | Float[Array, "1 1 1 c"]:
        """Mask logits at a quarter of the input's side, or the embedding of "no mask"."""
        if masks is None:
            return self.no_mask_embed[...][None, None].astype(self.dtype)
        return self.mask_downscaling(masks)


class FourierPositions(nnx.Module):
    """Gaussian random Fourier features (Tancik et al. 2020) of coordinates in [0, 1]²."""

    def __init__(self, width: int):
        self.gaussian_matrix = nnx.Param(jnp.zeros((2, width // 2), jnp.float32))

    def __call__(self, unit: Float[Array, "*b 2"]) -> Float[Array, "*b c"]:
        turns = jnp.matmul(2 * unit - 1, self.gaussian_matrix[...], precision=EXACT)
        angles = 2 * jnp.pi * turns
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)

    def of_centers(self, grid: Size) -> Float[Array, "h w c"]:
        """The same of all cells' centers, by what a row and a column have: sines are dear."""
        centers = [(jnp.arange(side, dtype=jnp.float32) + 0.5) / side for side in grid]
        y, x = (2 * jnp.pi * (2 * side[:, None] - 1) for side in centers)
        across, down = jnp.split(self.gaussian_matrix[...], 2)
        x, y = (x * across)[None], (y * down)[:, None]
        sin_x, cos_x, sin_y, cos_y = jnp.sin(x), jnp.cos(x), jnp.sin(y), jnp.cos(y)
        sines, cosines = sin_x * cos_y + cos_x * sin_y, cos_x * cos_y - sin_x * sin_y
        return jnp.concatenate([sines, cosines], axis=-1)


class MaskDownscaling(nnx.Module):
    """Two strided convolutions from a mask at 1/4 to the embedding's 1/16 of the input."""

    def __init__(self, width: int, *, dtype: str, rngs: Rng):
        small, large = MASK_CHANNELS // 4, MASK_CHANNELS
        make = dict(padding="VALID", dtype=dtype, rngs=rngs)
        self.conv1 = nnx.Conv(1, small, (2, 2), strides=2, **make)
        self.norm1 = layer_norm(small, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.conv2 = nnx.Conv(small, large, (2, 2), strides=2, **make)
        self.norm2 = layer_norm(large, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.conv3 = nnx.Conv(large, width, (1, 1), **make)

    def __call__(self, masks: Float[Array, "b H4 W4 1"]) -> Float[Array, "b h w c"]:
        x = gelu(self.norm1(self.conv1(masks)))
        return self.conv3(gelu(self.norm2(self.conv2(x))))

"""SAM's ViT image encoder (Kirillov et al. 2023), with a slot for text in front of the image.

Without text it is Meta's encoder: windowed blocks where `windowed`, global ones elsewhere. With
text (Sec. 3 of the DIT paper) every block attends over `[text; image]` and none is windowed.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Bool, Float, Int

from dit_jax.models import injection
from dit_jax.models.architecture import PATCH, Architecture
from dit_jax.models.layers import Mlp, Rng, layer_norm, linear, merge_heads, split_heads
from dit_jax.models.loop import middle_blocks
from dit_jax.ops.arrays import Array
from dit_jax.ops.attention import attend, attend_packed, packs, relative_terms
from dit_jax.ops.gelu import gelu
from dit_jax.ops.rematerialise import QKV, SCAN, rematerialised
from dit_jax.ops.resize import resize, resize_rows

EPSILON = 1e-6
MLP_RATIO = 4

Grid = Float[Array, "b h w d"]
Text = Float[Array, "b l d"]
Mask = Bool[Array, "b l"]
Rows = Int[Array, " b"]


class ImageEncoder(nnx.Module):
    """Pixels `[b, H, W, 3]`, and text where the row injects it, to embeddings `[b, h, w, c]`."""

    def __init__(self, arch: Architecture, *, rngs: Rng):
        vit, dtype = arch.vit, arch.dtype
        self.patch_embed = PatchEmbed(vit.width, dtype=dtype, rngs=rngs)
        self.pos_embed = nnx.Param(jnp.zeros((1, vit.grid, vit.grid, vit.width), jnp.float32))
        self.prob_text = (
            linear(arch.bert.width, vit.width, dtype=dtype, rngs=rngs)
            if arch.text_projection
            else None
        )
        self.injector = injection.build(
            arch.injection,
            depth=vit.depth - arch.inject_from,
            width=vit.width,
            text_tokens=arch.text_tokens,
            dtype=dtype,
            rngs=rngs,
        )
        self.inject_from = arch.inject_from
        self.blocks = nnx.List(Block(arch, i, rngs=rngs) for i in range(vit.depth))
        self.neck = Neck(vit.width, arch.decoder_width, dtype=dtype, rngs=rngs)

    @jax.named_scope("image_encoder")
    def __call__(
        self,
        images: Float[Array, "p H W 3"] | None,
        text: Float[Array, "b l t"] | None = None,
        *,
        before: Float[Array, "p h w d"] | None = None,
        text_mask: Mask | None = None,
        picture_of: Rows | None = None,
        remat: str = "none",
        rngs: Rng | None = None,
    ) -> Float[Array, "b h w c"]:
        """Args:
        text: b texts, about as many pictures; or about picture `picture_of[i]` each.
        before: what `before_text` made of the pictures, in their place.
        remat: see `dit_jax.ops.rematerialise`.
        """
        x = self.before_text(images, remat=remat) if before is None else before
        about = dict(text_mask=text_mask, picture_of=picture_of, remat=remat, rngs=rngs)
        return self.from_text(x, text, **about)

    def before_text(
        self, images: Float[Array, "p H W 3"], *, remat: str = "none"
    ) -> Float[Array, "p h w d"]:
        """Patches after the blocks that no text enters: the same whatever is said."""
        return self.run(range(self.inject_from), self.embed(images), remat=remat)

    def from_text(
        self,
        x: Float[Array, "p h w d"],
        text: Float[Array, "b l t"] | None,
        *,
        text_mask: Mask | None = None,
        picture_of: Rows | None = None,
        remat: str = "none",
        rngs: Rng | None = None,
    ) -> Float[Array, "b h w c"]:
        """Embeddings of what `before_text` gave, and of text; arguments as of the whole."""
        if self.injector is None:
            text = None
        elif text is None:
            raise ValueError("this encoder reads text: give input_ids and attention_mask.")
        elif self.prob_text is not None:
            text = self.prob_text(text)
        rows = None if text is None else picture_of  # until text comes in, pictures stay alone
        about = dict(text=text, text_mask=text_mask, rows=rows, remat=remat, rngs=rngs)
        x = self.neck(self.run(range(self.inject_from, len(self.blocks)), x, **about))
        return x if text is not None or picture_of is None else x[picture_of]

    def run(
        self, layers: range, x: Grid, *, text=None, text_mask=None, rows=None, remat, rngs=None
    ):
        """The image after some blocks; text comes in before the first of them."""
        about = dict(text=text, text_mask=text_mask, rngs=rngs)
        carried = None
        for i in layers:
            if remat == SCAN and i == layers.start + 1:
                x, carried = middle_blocks(self, x, carried, layers=layers[1:-1], **about)
            if remat != SCAN or i in (layers[0], layers[-1]):
                how = dict(rows=rows if i == layers.start else None, remat=remat)
                x, carried = self.run_block(i, x, carried, **how, **about)
        return x

    def run_block(self, layer: int, x, carried, *, text, text_mask, rows, remat: str, rngs):
        """The image and the carried text after a block, with what is injected before it."""
        image = x if rows is None else x[rows]
        tokens = self.inject(layer, text, carried, image, mask=text_mask, rngs=rngs)
        about = dict(text_mask=text_mask, carry=self.carries(layer), rows=rows)
        with jax.named_scope(f"blocks.{layer}"):
            block = functools.partial(self.blocks[layer], **about)
            return rematerialised(block, remat)(x, tokens)

    def embed(self, images: Float[Array, "b H W 3"]) -> Grid:
        """Patches plus absolute positions, which are resized to the picture's grid."""
        x = self.patch_embed(images)
        positions = resize(self.pos_embed[...], x.shape[1:3], method="cubic")
        return x + positions.astype(x.dtype)

    def inject(
        self,
        layer: int,
        text: Text | None,
        carried: Text | None,
        x: Grid,
        *,
        mask: Mask | None = None,
        rngs: Rng | None = None,
    ) -> Text | None:
        """Tokens in front of block `layer`, or None."""
        if text is None or self.injector is None:
            return None
        image = x.reshape(x.shape[0], -1, x.shape[-1])
        own = layer - self.inject_from
        with jax.named_scope(f"injector.{own}"):
            return self.injector(own, text, carried, image, mask=mask, rngs=rngs)

    def carries(self, layer: int) -> bool:
        """Whether anything reads the text rows that leave block `layer`."""
        injected = self.injector is not None and layer in range(
            self.inject_from, len(self.blocks) - 1
        )
        return injected and self.injector.carries


class PatchEmbed(nnx.Module):
    """16×16 patches to tokens: a strided convolution, written as one matrix product."""

    def __init__(self, width: int, *, dtype: str, rngs: Rng):
        self.proj = nnx.Conv(
            3, width, (PATCH, PATCH), strides=PATCH, padding="VALID", dtype=dtype, rngs=rngs
        )

    @jax.named_scope("patch_embed")
    def __call__(self, images: Float[Array, "b H W 3"]) -> Grid:
        b, height, width, _ = images.shape
        if height % PATCH or width % PATCH:
            raise ValueError(f"images are {height}×{width}; expected multiples of {PATCH} pixels.")
        kernel = self.proj.kernel[...].astype(self.proj.dtype)
        x = images.astype(self.proj.dtype).reshape(
            b, height // PATCH, PATCH, width // PATCH, PATCH, 3
        )
        x = jnp.einsum("bhiwjc,ijcd->bhwd", x, kernel)
        return x + self.proj.bias[...].astype(x.dtype)[None, None, None]


class Block(nnx.Module):
    """norm1 → attention → norm2 → MLP, each with its residual, on `[text; image]`."""

    def __init__(self, arch: Architecture, index: int, *, rngs: Rng):
        vit, dtype = arch.vit, arch.dtype
        self.norm1 = layer_norm(vit.width, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.attn = Attention(
            vit.width, vit.heads, table_rows=vit.table_rows(index), dtype=dtype, rngs=rngs
        )
        self.norm2 = layer_norm(vit.width, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(vit.width, MLP_RATIO * vit.width, activation=gelu, dtype=dtype, rngs=rngs)
        self.window = vit.window if arch.windowed and index not in vit.global_blocks else None

    def __call__(
        self,
        x: Float[Array, "p h w d"],
        text: Text | None,
        *,
        text_mask: Mask | None = None,
        carry: bool = False,
        rows: Rows | None = None,
    ) -> tuple[Grid, Text | None]:
        """The image after this block, and the text where `carry`; else text is only read.

        With `rows` text i is about picture `rows[i]`, and there is one image a text from here on.
        """
        x, y = self.norm1.with_skip(x)
        if self.window is None:
            read = None if text is None else self.norm1(text)
            about = dict(text_mask=text_mask, carry=carry, rows=rows)
            attended, attended_text = self.attn(y, read, **about)
        else:
            windows, padded = partition(y, self.window)
            windows, _ = self.attn(windows, None)
            attended = unpartition(windows, self.window, padded=padded, grid=y.shape[1:3])
        x = (x if rows is None else x[rows]) + attended
        x, y = self.norm2.with_skip(x)
        x = x + self.mlp(y)
        if not carry:
            return x, None
        text = text + attended_text
        return x, text + self.mlp(self.norm2(text))


class Attention(nnx.Module):
    """Multi-head attention over image and text with relative positions on the image part.

    The text goes behind the image here, where their order makes no difference.
    """

    def __init__(self, width: int, heads: int, *, table_rows: int, dtype: str, rngs: Rng):
        self.qkv = linear(width, 3 * width, dtype=dtype, rngs=rngs)
        self.proj = linear(width, width, dtype=dtype, rngs=rngs)
        table = (table_rows, width // heads)
        self.rel_pos_h = nnx.Param(jnp.zeros(table, jnp.float32))
        self.rel_pos_w = nnx.Param(jnp.zeros(table, jnp.float32))
        self.heads = heads

    @jax.named_scope("attn")
    def __call__(
        self,
        x: Float[Array, "p h w d"],
        text: Text | None,
        *,
        text_mask: Mask | None = None,
        carry: bool = False,
        rows: Rows | None = None,
    ) -> tuple[Grid, Text | None]:
        b, h, w, d = x.shape
        if rows is None and packs(x, text, text_mask, heads=self.heads):
            return self.packed(x, text, text_mask, carry=carry)
        q, k, v = (split_heads(y, self.heads) for y in self.project(x.reshape(b, h * w, d)))
        rel = relative_terms(q, *self.tables((h, w), dtype=q.dtype), grid=(h, w))
        if rows is not None:
            b, (q, k, v, rel) = len(rows), jax.tree.map(lambda y: y[rows], (q, k, v, rel))
        key_mask = None
        if text is not None:
            tq, tk, tv = self.project_text(text, queries=carry)
            k, v = jnp.concatenate([k, tk], axis=2), jnp.concatenate([v, tv], axis=2)
            q = jnp.concatenate([q, tq], axis=2) if carry else q
            key_mask = self.key_mask(text_mask, h * w)
        y = self.proj(merge_heads(attend(q, k, v, rel=rel, key_mask=key_mask)))
        if not carry:
            return y.reshape(b, h, w, d), None
        return y[:, : h * w].reshape(b, h, w, d), y[:, h * w :]

    def packed(
        self, x: Float[Array, "b h w d"], text: Text | None, text_mask: Mask | None, *, carry: bool
    ) -> tuple[Grid, Text | None]:
        """As `__call__`, without taking the image's queries, keys and values apart."""
        b, h, w, d = x.shape
        head = self.heads, d // self.heads
        qkv = checkpoint_name(self.qkv(x.reshape(b, h * w, d)), QKV).reshape(b, h * w, 3, *head)
        read = None
        if text is not None:
            own = checkpoint_name(self.qkv(text), QKV) if carry else self.project_read(text)
            own = own.reshape(*text.shape[:2], -1, *head)
            read = own[:, :, -2:]
        tables = self.tables((h, w), dtype=qkv.dtype)
        y = attend_packed(qkv, read, tables, grid=(h, w), text_mask=text_mask)
        y = self.proj(y.reshape(b, h, w, d))
        if not carry:
            return y, None
        # The text's few queries have no positions.
        keys, values = jnp.moveaxis(jnp.concatenate([qkv[:, :, 1:], read], axis=1), 2, 0)
        arrays = (z.swapaxes(1, 2) for z in (own[:, :, 0], keys, values))
        attended = attend(*arrays, key_mask=self.key_mask(text_mask, h * w))
        return y, self.proj(merge_heads(attended))

    def key_mask(self, text_mask: Mask | None, image: int) -> Bool[Array, "b n"] | None:
        """Of `[image; text]`, where all of the image is seen."""
        if text_mask is None:
            return None
        return jnp.pad(text_mask, ((0, 0), (image, 0)), constant_values=True)

    def project(self, x: Float[Array, "b n d"]) -> list[Float[Array, "b n d"]]:
        return jnp.split(checkpoint_name(self.qkv(x), QKV), 3, axis=-1)

    def project_text(self, text: Text, *, queries: bool):
        """Keys and values of the text, and queries only where its rows live on."""
        if queries:
            return [split_heads(y, self.heads) for y in self.project(text)]
        kv = jnp.split(self.project_read(text), 2, axis=-1)
        return None, *(split_heads(y, self.heads) for y in kv)

    def project_read(self, text: Text) -> Float[Array, "b l dd"]:
        """Keys and values of text that asks nothing, side by side."""
        # Queries among them: on a CPU they take less time than to cut their weights off.
        return checkpoint_name(self.qkv(text)[..., text.shape[-1] :], QKV)

    def tables(
        self, grid: tuple[int, int], *, dtype
    ) -> tuple[Float[Array, "rows_h c"], Float[Array, "rows_w c"]]:
        """Relative positions of a grid's rows and columns, 2·side − 1 each."""
        both = zip((self.rel_pos_h, self.rel_pos_w), grid, strict=True)
        rows_h, rows_w = (
            resize_rows(table[...], 2 * side - 1).astype(dtype) for table, side in both
        )
        return rows_h, rows_w


class Neck(nnx.Module):
    """1×1 and 3×3 convolutions to the decoder's width, each followed by a channel LayerNorm."""

    def __init__(self, width: int, out: int, *, dtype: str, rngs: Rng):
        make = dict(padding="SAME", use_bias=False, dtype=dtype, rngs=rngs)
        self.conv1 = nnx.Conv(width, out, (1, 1), **make)
        self.norm1 = layer_norm(out, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.conv2 = nnx.Conv(out, out, (3, 3), **make)
        self.norm2 = layer_norm(out, epsilon=EPSILON, dtype=dtype, rngs=rngs)

    @jax.named_scope("neck")
    def __call__(self, x: Grid) -> Float[Array, "b h w c"]:
        return self.norm2(self.conv2(self.norm1(self.conv1(x))))


def partition(x: Grid, window: int) -> tuple[Float[Array, "bn s s d"], tuple[int, int]]:
    """Non-overlapping windows, zero-padded at the bottom and right; and the padded (h, w)."""
    b, h, w, d = x.shape
    x = jnp.pad(x, ((0, 0), (0, -h % window), (0, -w % window), (0, 0)))
    rows, columns = x.shape[1] // window, x.shape[2] // window
    windows = x.reshape(b, rows, window, columns, window, d).swapaxes(2, 3)
    return windows.reshape(-1, window, window, d), x.shape[1:3]


def unpartition(
    windows: Float[Array, "bn s s d"],
    window: int,
    *,
    padded: tuple[int, int],
    grid: tuple[int, int],
) -> Grid:
    """Inverse of `partition`, without the padding."""
    rows, columns = padded[0] // window, padded[1] // window
    d = windows.shape[-1]
    x = windows.reshape(-1, rows, columns, window, window, d).swapaxes(2, 3)
    return x.reshape(-1, *padded, d)[:, : grid[0], : grid[1]]

"""One attention for every block, and the choice of how this device computes it.

Queries and keys are sequences `[image; text]` in which the text part may be absent (attention does
not care for their order). A relative position biases only the image-image part:
`rel_h[i, row(j)] + rel_w[i, column(j)]` (MViTv2, Li et al. 2022), computed from the *unscaled*
query; no back end but "plain" ever holds it for all pairs. Softmax runs in float32 whatever the
inputs.

The encoder's blocks ask first whether the device attends from queries, keys and values as their
projection gives them, packed (`packs`, `attend_packed`); else they take them apart (`attend`).
"""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Bool, Float

from dit_jax.ops.arrays import Array
from dit_jax.ops.attention import folded as attention_folded
from dit_jax.ops.attention import mosaic, packed, packed_launch, pallas
from dit_jax.ops.attention.anywhere import attend_anywhere
from dit_jax.ops.attention.by_head import attend_by_head
from dit_jax.ops.attention.plain import K, Mask, Q, Rel, attend_plain
from dit_jax.ops.kernel_check import GONE, kernel_fault, like, warn
from dit_jax.ops.mesh import shard_rows_and_heads
from dit_jax.ops.platform import Target, target
from dit_jax.strict import one_of

# Up to this many scores in all, whole arrays of them are the fastest way on every device.
SCORES_AT_ONCE = 1 << 22
# Up to this many of one head, 128 MiB, a device computes to compare a fused back end with them.
SCORES_COMPARED = 1 << 25
# An environment variable that names the back end of attention with relative positions itself: for
# a new device on which the choice below fails or is slow.
FORCE = "DIT_JAX_ATTENTION"

BACK_ENDS: dict[str, Callable] = {
    "plain": attend_plain,  # scores in memory
    "by_head": attend_by_head,  # CPU
    "cudnn": attention_folded.attend_cudnn,  # NVIDIA, 16 bits
    "splash": attention_folded.attend_splash,  # TPU
    "pallas": pallas.attend_pallas,  # TPU, GPU
    "anywhere": attend_anywhere,  # one program for all of them
}
# Not among them, since these want their arguments together: `attend_packed`. NVIDIA, 16 bits.
PACKED, MOSAIC = "packed", "mosaic"
PACKERS: dict[str, Callable] = {
    PACKED: packed.attend_packed,
    # Hopper. Nobody has timed it: only where it is asked for by name.
    MOSAIC: functools.partial(
        packed.attend_packed, kernels=(mosaic.relate, mosaic.forward, mosaic.backward)
    ),
}
HALF = ("bfloat16", "float16")
_CHOSEN: ContextVar[str | None] = ContextVar("attention", default=None)


@contextlib.contextmanager
def use_back_end(name: str) -> Iterator[None]:
    """Programs traced inside use this back end, not the best one for the device at hand.

    A program that is written for other machines needs "anywhere" or "plain".
    """
    one_of("attention", name, (*BACK_ENDS, *PACKERS))
    token = _CHOSEN.set(name)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


@dataclasses.dataclass(frozen=True)
class Problem:
    """What decides about a back end: one attention's sizes."""

    b: int
    heads: int
    m: int
    n: int
    c: int
    grid: tuple[int, int] | None
    masked: bool
    dtype: str

    def folded(self) -> int:
        """Channels of a query that carries its relative terms (and the mask)."""
        return attention_folded.width(self.c, self.grid, masked=self.masked)


def attend(q: Q, k: K, v: K, *, rel: Rel | None = None, key_mask: Mask | None = None) -> Q:
    """softmax(q·k / √c + bias)·v.

    Args:
      rel: bias of the first h·w queries towards the first h·w keys, per row and per column.
      key_mask: False hides a key from every query; at least one key must be left.
    """
    if (chosen := _CHOSEN.get()) in BACK_ENDS:
        return BACK_ENDS[chosen](q, k, v, rel, key_mask)
    b, heads, m, c = q.shape
    grid = None if rel is None else (rel[0].shape[3], rel[1].shape[3])
    problem = Problem(b, heads, m, k.shape[2], c, grid, key_mask is not None, str(q.dtype))
    name = os.environ.get(FORCE) if rel is not None else None
    if name:
        one_of(FORCE, name, (*BACK_ENDS, *PACKERS))
    if not name or name in PACKERS:
        name = choose(problem, target())
    if name == "plain":
        return attend_plain(q, k, v, rel, key_mask)
    arrays = q, k, v, rel, key_mask
    return shard_rows_and_heads(BACK_ENDS[name], *arrays, axes=("bk",) * 4 + ("b",), out="bk")


def packs(
    x: Float[Array, "b h w d"],
    text: Float[Array, "b l d"] | None,
    text_mask: Bool[Array, "b l"] | None,
    *,
    heads: int,
) -> bool:
    """Whether this device attends from packed queries, keys and values (`attend_packed`) in a block
    that reads this image and text. Decided and logged once.
    """
    forced = _forced()
    if forced and forced not in PACKERS:
        return False  # an exported program's sizes may not even be numbers
    (b, *grid, d), tokens = x.shape, 0 if text is None else text.shape[1]
    fits = packed_launch.fits(grid=tuple(grid), channels=d // heads)
    if forced or not fits:
        return fits
    n, masked = grid[0] * grid[1], text is not None and text_mask is not None
    sizes = dict(b=b, heads=heads, m=n, n=n + tokens, c=d // heads, grid=tuple(grid))
    return _packs(PACKED, Problem(**sizes, masked=masked, dtype=str(x.dtype)), target())


def _forced() -> str | None:
    return _CHOSEN.get() or os.environ.get(FORCE)


@functools.lru_cache(maxsize=256)
def _packs(name: str, problem: Problem, target: Target) -> bool:
    if target.kind != "gpu" or problem.dtype not in HALF:
        return False
    reason = failure(name, problem, target)
    if reason:
        warn(f"attention: {name}", problem, reason)
    else:
        logging.info("attention: %s for %s", name, problem)
    return reason is None


def attend_packed(
    qkv: Float[Array, "b n 3 k c"],
    text: Float[Array, "b l 2 k c"] | None,
    tables: tuple[Float[Array, "rows_h c"], Float[Array, "rows_w c"]],
    *,
    grid: tuple[int, int],
    text_mask: Bool[Array, "b l"] | None = None,
) -> Float[Array, "b n k c"]:
    """As `attend`, for the queries of an image over `[image; text]`, where `packs` says so.

    Args:
      qkv: queries, keys and values of the image.
      text: keys and values of the text.
      tables: as in `relative_terms`, of 2h − 1 and 2w − 1 rows.
      text_mask: False hides a token.
    """
    bands = tuple(band(table, side) for table, side in zip(tables, grid, strict=True))
    arrays = qkv, text, bands, text_mask
    axes = ("bn3k", "bl2k", "", "b")
    run = PACKERS[_packer(qkv, text, text_mask, grid)]
    return shard_rows_and_heads(run, *arrays, axes=axes, out="bnk")


def _packer(qkv, text, text_mask, grid) -> str:
    """Of `PACKERS`: Triton's, unless another is named and nothing speaks against it."""
    if _forced() != MOSAIC:
        return PACKED
    (b, n, _, heads, c), tokens = qkv.shape, 0 if text is None else text.shape[1]
    masked = text is not None and text_mask is not None
    sizes = Problem(b, heads, n, n + tokens, c, grid, masked, str(qkv.dtype))
    return MOSAIC if _packs(MOSAIC, sizes, target()) else PACKED


@functools.lru_cache(maxsize=256)
def choose(problem: Problem, target: Target) -> str:
    """The back end of a problem, decided and logged once: the first candidate that compiles."""
    if problem.b * problem.heads * problem.m * problem.n <= SCORES_AT_ONCE:
        return "plain"
    if target.kind == "cpu":
        return "by_head"
    if problem.grid is None:  # text or the decoder's few tokens: far fewer scores than an image has
        return "plain"
    refusals = []
    for name in candidates(problem, target.kind):
        reason = failure(name, problem, target)
        if reason is None:
            logging.info("attention: %s for %s", name, problem)
            return name
        if reason.startswith(GONE):
            warn(f"attention: {name}", problem, reason)
        else:
            refusals.append(f"{name}: {reason}")
    logging.warning(
        "attention: the slow plain path, scores in memory, for %s (%s)",
        problem,
        "; ".join(refusals) or f"no fused one fits on {target.kind}",
    )
    return "plain"


def candidates(problem: Problem, platform: str) -> list[str]:
    """Fused back ends that can state this problem, the one that should be fastest first.

    Folding is cheap while a head's channels and both sides of the grid fit into 128, the width of a
    TPU's matrix unit, or 152, ViT-H's at 512 px with hidden keys; beyond that it adds a third of
    all arithmetic.
    """
    if platform not in ("gpu", "tpu"):
        return []
    half = problem.dtype in HALF
    fused = {"gpu": ["cudnn"] * half, "tpu": ["splash"]}[platform]
    free = problem.folded() <= {"gpu": 152, "tpu": 128}[platform]
    return [*fused, "pallas"] if free else ["pallas", *fused]


def failure(name: str, problem: Problem, target: Target) -> str | None:
    """Why a back end should not run on a device; None where it compiles, forward and backward.

    This process's device also computes one head of one picture, which `attend_plain` has to agree
    with, unless its scores alone would take much memory.
    """
    if name == MOSAIC and (refusal := mosaic.refusal(problem, target)):
        return refusal
    program, arguments, definition = comparison(name, problem, target)
    return kernel_fault(target, program, *arguments, definition=definition)


def comparison(
    name: str, problem: Problem, target: Target
) -> tuple[Callable, tuple, Callable | None]:
    """What `kernel_check.verdict` compares of a back end, forward and all gradients: program,
    arguments, definition."""
    shape = functools.partial(like, target)
    b, heads, c, (h, w) = min(problem.b, 2), problem.heads, problem.c, problem.grid
    m, n, dtype = problem.m, problem.n, problem.dtype
    if name in PACKERS:
        attend, plain, text = PACKERS[name], plain_packed, n - m
        words = shape((b, text, 2, heads, c), dtype) if text else None
        bands = tuple(shape((side, side, c), dtype) for side in (h, w))
        arrays, out = (shape((b, m, 3, heads, c), dtype), words, bands), (b, m, heads, c)
        mask = shape((b, text), bool) if problem.masked else None
        head = np.s_[-1:, ..., -1:, :]
    else:
        attend, plain, keys = BACK_ENDS[name], attend_plain, shape((b, heads, n, c), dtype)
        rel = tuple(shape((b, heads, h * w, side), dtype) for side in (h, w))
        arrays, out = (shape((b, heads, m, c), dtype), keys, keys, rel), (b, heads, m, c)
        mask = shape((b, n), bool) if problem.masked else None
        head = np.s_[-1:, -1:]

    def of_head(x):
        return x[head] if x.ndim > 3 else x  # all heads share the bands

    def program(arrays, mask, upstream):
        out, back = jax.vjp(lambda *x: attend(*x, mask), *arrays)
        others_none = jnp.zeros_like(upstream).at[head].set(upstream[head])
        return jax.tree.map(of_head, (out, back(others_none)))

    def definition(arrays, mask, upstream):
        arrays = jax.tree.map(lambda x: of_head(x).astype(jnp.float32), arrays)
        mask = None if mask is None else mask[-1:]
        out, back = jax.vjp(lambda *x: plain(*x, mask), *arrays)
        return out, back(upstream[head].astype(jnp.float32))

    comparable = definition if m * n <= SCORES_COMPARED else None
    return program, (arrays, mask, shape(out, dtype)), comparable


def plain_packed(
    qkv: Float[Array, "b n 3 k c"],
    text: Float[Array, "b l 2 k c"] | None,
    bands: tuple[Float[Array, "h h c"], Float[Array, "w w c"]],
    text_mask: Bool[Array, "b l"] | None,
) -> Float[Array, "b n k c"]:
    """`packed.attend_packed` as its definition says: what it is held to."""
    q, k, v = (x.swapaxes(1, 2) for x in jnp.moveaxis(qkv, 2, 0))
    rel, mask = _by_bands(q, *bands), None
    if text is not None:
        read = (x.swapaxes(1, 2) for x in jnp.moveaxis(text, 2, 0))
        k, v = (jnp.concatenate(pair, axis=2) for pair in zip((k, v), read, strict=True))
    if text_mask is not None:
        mask = jnp.pad(text_mask, ((0, 0), (q.shape[2], 0)), constant_values=True)
    return attend_plain(q, k, v, rel, mask).swapaxes(1, 2)


def relative_terms(
    q: Float[Array, "b k hw c"],
    table_h: Float[Array, "rows_h c"],
    table_w: Float[Array, "rows_w c"],
    *,
    grid: tuple[int, int],
) -> tuple[Float[Array, "b k hw h"], Float[Array, "b k hw w"]]:
    """q·R_h[i − i'] and q·R_w[j − j'] for every image query, row i' and column j'.

    Tables must already have 2h − 1 and 2w − 1 rows; R[0] is the distance −(h − 1).
    """
    h, w = grid
    return _by_bands(q, band(table_h, h), band(table_w, w))


def _by_bands(q, band_h, band_w):
    h, w = len(band_h), len(band_w)
    q = q.reshape(*q.shape[:2], h, w, q.shape[-1])
    rel_h = jnp.einsum("bkhwc,hic->bkhwi", q, band_h)
    rel_w = jnp.einsum("bkhwc,wjc->bkhwj", q, band_w)
    shape = (*q.shape[:2], h * w)
    return rel_h.reshape(*shape, h), rel_w.reshape(*shape, w)


def band(table: Float[Array, "rows c"], side: int) -> Float[Array, "side side c"]:
    """`table`'s row i − i' + side − 1 for every i and i'."""
    place = jnp.arange(side)
    return table[place[:, None] - place[None, :] + side - 1]

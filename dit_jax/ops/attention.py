"""One attention for every block: text rows, padding masks and decomposed relative positions.

Queries and keys are sequences `[text; image]` in which the text part may be absent. A relative
position biases only the image-image part: `rel_h[i, row(j)] + rel_w[i, column(j)]` (MViTv2,
Li et al. 2022), computed from the *unscaled* query. Softmax runs in float32 whatever the inputs.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from dit_jax.ops.arrays import Array
from dit_jax.ops.platform import platform

# Above this many scores a CPU runs head by head: fresh pages for [b, k, m, n] cost more than they
# save (measured on ViT-B at 512 px: 1.1 s against 1.9 s for a forward pass).
SCORES_AT_ONCE = 1 << 22
LONG = 1 << 19  # scores of one head above which a program of unknown batch size does so

Attend = Callable[..., jax.Array]  # (q, k, v, rel, key_mask)
_CHOSEN: ContextVar[Attend | None] = ContextVar("attention", default=None)


@contextlib.contextmanager
def computed_by(chosen: Attend) -> Iterator[None]:
    """Programs traced inside use this computation, not the best one for the device at hand.

    A program that is written for other machines needs `anywhere` or `plain`.
    """
    token = _CHOSEN.set(chosen)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def attend(
    q: Float[Array, "b k m c"],
    k: Float[Array, "b k n c"],
    v: Float[Array, "b k n c"],
    *,
    rel: tuple[Float[Array, "b k hw h"], Float[Array, "b k hw w"]] | None = None,
    key_mask: Bool[Array, "b n"] | None = None,
) -> Float[Array, "b k m c"]:
    """softmax(q·k / √c + bias)·v.

    Args:
      rel: bias of the last h·w queries towards the last h·w keys, per row and per column.
      key_mask: False hides a key from every query.
    """
    chosen = _CHOSEN.get() or best(q, k)
    return chosen(q, k, v, rel, key_mask)


def best(q, k) -> Attend:
    """The fastest computation for these sizes on JAX's default device."""
    b, heads, m, n = *q.shape[:3], k.shape[2]
    if platform() != "cpu" or b * heads * m * n <= SCORES_AT_ONCE:
        return plain
    return by_head


def anywhere(q, k, v, rel, key_mask):
    """One program for several kinds of devices: on a CPU head by head, on others all at once.

    The number of rows need not be known.
    """
    if q.shape[2] * k.shape[2] <= LONG:
        return plain(q, k, v, rel, key_mask)
    operands, static = jax.tree.flatten((q, k, v, rel, key_mask))

    def of(implementation):
        return lambda *leaves: implementation(*jax.tree.unflatten(static, leaves))

    return jax.lax.platform_dependent(*operands, cpu=of(by_head), default=of(plain))


def by_head(q, k, v, rel, key_mask):
    """Head after head, so that only one head's scores are in memory."""

    @jax.checkpoint
    def one_head(head):
        q, k, v, rel = jax.tree.map(lambda x: x[:, None], head)
        return plain(q, k, v, rel, key_mask)[:, 0]

    heads_first = jax.tree.map(lambda x: x.swapaxes(0, 1), (q, k, v, rel))
    return jax.lax.map(one_head, heads_first).swapaxes(0, 1)


def plain(q, k, v, rel, key_mask):
    """All scores at once, in matrix products that every compiler knows."""
    scores = jnp.einsum("bkmc,bknc->bkmn", q, k, preferred_element_type=jnp.float32)
    scores = scores * q.shape[-1] ** -0.5
    if rel is not None:
        scores = _add_relative(scores, *rel)
    if key_mask is not None:
        scores = jnp.where(key_mask[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("bkmn,bknc->bkmc", weights, v)


def _add_relative(scores, rel_h, rel_w):
    b, heads, image, h = rel_h.shape
    w = rel_w.shape[-1]
    bias = rel_h[..., :, None] + rel_w[..., None, :]
    bias = bias.reshape(b, heads, image, h * w).astype(jnp.float32)
    text_rows, text_columns = scores.shape[2] - image, scores.shape[3] - h * w
    return scores + jnp.pad(bias, ((0, 0), (0, 0), (text_rows, 0), (text_columns, 0)))


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
    rows = jnp.arange(h)[:, None] - jnp.arange(h)[None, :] + h - 1
    columns = jnp.arange(w)[:, None] - jnp.arange(w)[None, :] + w - 1
    q = q.reshape(*q.shape[:2], h, w, q.shape[-1])
    rel_h = jnp.einsum("bkhwc,hic->bkhwi", q, table_h[rows])
    rel_w = jnp.einsum("bkhwc,wjc->bkhwj", q, table_w[columns])
    shape = (*q.shape[:2], h * w)
    return rel_h.reshape(*shape, h), rel_w.reshape(*shape, w)

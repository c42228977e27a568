"""Separable resizing as one (out, in) matrix per axis, in PyTorch's conventions.

`jax.image.resize` antialiases linear resizing, uses another cubic kernel, and knows no
`align_corners`; each differs from the reference by whole units (see tests/ops/test_resize.py).

Products are exact: a TPU would round float32 to bfloat16 first, and logits and positions with it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dit_jax.ops.arrays import Array
from dit_jax.ops.linear import EXACT

CUBIC_A = -0.75  # PyTorch's `mode="bicubic"`


@jax.named_scope("resize")
def resize(
    x: Float[Array, "*b h w c"],
    size: tuple[int, int],
    *,
    method: str,
    align_corners: bool = False,
) -> Float[Array, "*b H W c"]:
    """Resizes the two axes before the last, like `torch.nn.functional.interpolate`.

    Args:
      size: (H, W).
      method: "linear" or "cubic"; neither antialiases.
      align_corners: corner pixels map onto corner pixels.
    """
    *b, h, w, c = x.shape
    if (h, w) == size:
        return x
    rows = jnp.asarray(matrix(h, size[0], method, align_corners), x.dtype)
    columns = jnp.asarray(matrix(w, size[1], method, align_corners), x.dtype)
    # Products of matrices that lie in memory as they are: nothing is turned.
    x = jnp.matmul(rows, x.reshape(*b, h, w * c), precision=EXACT)
    if c == 1:
        return jnp.matmul(x, columns.T, precision=EXACT)[..., None]
    columns = jnp.broadcast_to(columns, (*b, size[0], *columns.shape))
    return jnp.matmul(columns, x.reshape(*b, size[0], w, c), precision=EXACT)


def resize_rows(x: Float[Array, "n c"], rows: int) -> Float[Array, "rows c"]:
    """Linear resize of a table's first axis, as SAM does with relative positions."""
    if x.shape[0] == rows:
        return x
    weights = jnp.asarray(matrix(x.shape[0], rows, "linear", False), x.dtype)
    return jnp.matmul(weights, x, precision=EXACT)


@functools.lru_cache(maxsize=256)
def matrix(n: int, out: int, method: str, align_corners: bool) -> Float[np.ndarray, "out n"]:
    """Weights of every input sample for every output sample.

    Positions are computed in float32, as PyTorch does: it is worth 1e-5 of the largest value.
    """
    step = np.arange(out, dtype=np.float32)
    if align_corners:
        source = step * np.float32((n - 1) / max(out - 1, 1))
    else:
        source = (step + np.float32(0.5)) * np.float32(n / out) - np.float32(0.5)
    if method == "linear":
        source = np.maximum(source, np.float32(0.0))
        taps, weights = (0, 1), _linear
    elif method == "cubic":
        taps, weights = (-1, 0, 1, 2), _cubic
    else:
        raise ValueError(f"resize method is {method!r}; expected 'linear' or 'cubic'.")
    floor = np.floor(source).astype(int)
    result = np.zeros((out, n), np.float32)
    for tap in taps:
        column = np.clip(floor + tap, 0, n - 1)
        np.add.at(result, (np.arange(out), column), weights(source - floor - tap))
    return result


def _linear(t: np.ndarray) -> np.ndarray:
    return 1.0 - np.abs(t)


def _cubic(t: np.ndarray) -> np.ndarray:
    t, a = np.abs(t), CUBIC_A
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))

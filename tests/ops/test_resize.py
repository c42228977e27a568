"""Resizing against `torch.nn.functional.interpolate`, and that the obvious JAX would be wrong."""

import jax
import numpy as np
import pytest
from closeness import assert_close

from dit_jax.ops.resize import resize, resize_rows

SIZES = [
    ((64, 64), (32, 32)),
    ((64, 64), (8, 8)),
    ((8, 8), (32, 32)),
    ((5, 9), (7, 4)),
    ((6, 6), (6, 9)),
]


@pytest.mark.parametrize("size, out", SIZES)
@pytest.mark.parametrize(
    "method, mode, align",
    [("linear", "bilinear", False), ("linear", "bilinear", True), ("cubic", "bicubic", False)],
)
def test_matches_torch(size, out, method, mode, align):
    from peers import torch

    x = np.random.default_rng(0).standard_normal((2, *size, 3), np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(x).permute(0, 3, 1, 2), size=out, mode=mode, align_corners=align
    ).permute(0, 2, 3, 1)
    actual = resize(x, out, method=method, align_corners=align)
    assert_close(actual, expected, mode, tolerance=1e-5)


@pytest.mark.parametrize("rows, out", [(27, 63), (127, 63), (27, 15), (15, 15), (5, 127)])
def test_rows_match_torch(rows, out):
    from peers import torch

    x = np.random.default_rng(0).standard_normal((rows, 4), np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(x).T[None], size=out, mode="linear")
    assert_close(resize_rows(x, out), expected[0].T, "rows", tolerance=1e-5)


def test_jax_resize_differs():
    """Why this file exists: if JAX ever agrees with PyTorch, the matrices can go."""

    from peers import torch

    x = np.random.default_rng(0).standard_normal((64, 64), np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(x)[None, None], size=(32, 32), mode="bicubic"
    )
    actual = jax.image.resize(x, (32, 32), "bicubic")
    assert np.abs(actual - expected[0, 0].numpy()).max() > 0.5


def test_unknown_method():
    with pytest.raises(ValueError, match="'nearest'; expected 'linear' or 'cubic'"):
        resize(np.zeros((2, 2, 1), np.float32), (4, 4), method="nearest")

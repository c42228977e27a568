"""The one measure of agreement with a reference: max |Δ| ≤ 1e-4 · max |reference|."""

import numpy as np

TOLERANCE = 1e-4


def assert_close(actual, expected, what: str, *, tolerance: float = TOLERANCE) -> None:
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape} ≠ {expected.shape}"
    scale = np.abs(expected).max()
    error = np.abs(actual - expected).max()
    assert np.isfinite(error), f"{what}: not finite"
    assert error <= tolerance * scale, f"{what}: max |Δ| {error:.3g} of max |ref| {scale:.3g}"


def assert_same_answer(one, other, what: str = "answer") -> None:
    """Of `Segmenter`: programs for different numbers of rows round differently, on each CPU."""
    np.testing.assert_array_equal(one.mask, other.mask, what)
    assert_close(one.logits, other.logits, what, tolerance=1e-5)
    np.testing.assert_allclose(one.score, other.score, rtol=1e-4, atol=1e-5, err_msg=what)

"""Weights as int8, a scale for each output channel."""

import dataclasses

import numpy as np
import pytest

from dit_jax import variants
from dit_jax.models import int8
from dit_jax.models import params as parameters

ARCH = variants.architecture(variants.VARIANTS["tiny"])


@pytest.mark.parametrize(
    ("shape", "axis"), [((40, 30), 1), ((40, 30), 0), ((2, 2, 8, 30), 2), ((3, 3, 8, 9), -1)]
)
def test_each_channel_is_off_by_half_a_step_of_its_own_at_most(shape, axis):
    weight = np.random.default_rng(0).standard_normal(shape, np.float32)
    channels = np.moveaxis(weight, axis, 0)
    channels[0] *= 1000
    channels[1] = 0
    found = int8.rounded(weight, channels=axis)
    assert found.values.dtype == np.int8 and found.scale.dtype == np.float32
    assert found.scale.size == weight.shape[axis] == found.scale.shape[axis]
    ours = np.moveaxis(int8.whole(found), axis, 0)
    assert ours.dtype == np.float32 and not ours[1].any()
    for one, other in zip(ours, channels, strict=True):
        assert np.abs(one - other).max() <= np.abs(other).max() / 127 / 2 * 1.0001
    assert np.abs(found.values).max() == 127
    outline = int8.outline(shape, channels=axis)
    for one, other in ((outline.values, found.values), (outline.scale, found.scale)):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)


def test_matrices_are_int8_and_the_rest_stays():
    params = parameters.init(ARCH)
    arch, rounded = parameters.to_int8(ARCH, params)
    assert arch == dataclasses.replace(ARCH, weights="int8")
    flat, expected = map(parameters.flatten, (rounded, parameters.structure(arch)[1]))
    apart, abstract = int8.apart(flat), int8.apart(expected)
    assert {p: (v.shape, v.dtype) for p, v in apart.items()} == {
        p: (v.shape, v.dtype) for p, v in abstract.items()
    }
    assert int8.together(apart).keys() == flat.keys()
    kept = {p: v for p, v in flat.items() if not isinstance(v, int8.Int8)}
    assert len(kept) < len(flat)
    for path, value in kept.items():
        assert value.size < int8.FEW or not path.endswith(("kernel", "word_embeddings.embedding"))
    back, whole = parameters.to_float32(arch, rounded)
    assert back == ARCH
    for path, value in parameters.flatten(parameters.to_int8(back, whole)[1]).items():
        if isinstance(value, int8.Int8):  # rounding twice is rounding once
            np.testing.assert_array_equal(value.values, flat[path].values)

"""The linear layer's own derivative against automatic differentiation's."""

import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from closeness import assert_close

from dit_jax.ops.linear import BFLOAT16, FP8, linear
from dit_jax.plan import targets


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4)])
def test_gradients(shape):
    rng = np.random.default_rng(0)
    draw = lambda *s: jnp.asarray(rng.standard_normal(s, np.float32))  # noqa: E731
    x, kernel, bias, upstream = draw(*shape, 6), draw(6, 7), draw(7), draw(*shape, 7)

    def plain(x, kernel, bias):
        return jnp.einsum("...i,io->...o", x, kernel) + bias.reshape((1,) * len(shape) + (7,))

    for arguments in ((x, kernel, bias), (x, kernel)):
        rest = (None,) if len(arguments) == 2 else ()
        y, back = jax.vjp(lambda *a, rest=rest: linear(*a, *rest), *arguments)
        zero = (jnp.zeros(7),) if rest else ()
        other, other_back = jax.vjp(lambda *a, zero=zero: plain(*a, *zero), *arguments)
        for a, b in zip((y, *back(upstream)), (other, *other_back(upstream)), strict=True):
            assert_close(a, b, "linear", tolerance=1e-6)


def test_half_precision_sums_in_whole():
    """bfloat16 activations, float32 parameters: their gradients are never rounded to bfloat16."""
    x = jnp.full((1000, 1), 1.0, jnp.bfloat16)
    y, back = jax.vjp(linear, x, jnp.ones((1, 1)), jnp.zeros(1))
    dx, dkernel, dbias = back(jnp.full_like(y, 1.0078125))
    assert (y.dtype, dx.dtype) == (jnp.bfloat16, jnp.bfloat16)
    assert dkernel.dtype == dbias.dtype == jnp.float32
    assert float(dkernel[0, 0]) == float(dbias[0]) == 1007.8125


@pytest.mark.parametrize("shape", [(5,), (2, 3)])
def test_products_of_rounded_numbers_are_summed_in_whole(shape):
    rng = np.random.default_rng(0)
    draw = lambda *s: jnp.asarray(rng.standard_normal(s, np.float32))  # noqa: E731
    x, kernel, bias, g = draw(*shape, 600), draw(600, 7), draw(7), draw(*shape, 7)
    y, back = jax.jit(lambda *a: jax.vjp(lambda *b: linear(*b, BFLOAT16), *a))(x, kernel, bias)
    x, kernel, rounded = (a.astype(jnp.bfloat16).astype(jnp.float32) for a in (x, kernel, g))
    rows, columns = x.reshape(-1, 600), rounded.reshape(-1, 7)
    expected = (
        x @ kernel + jnp.broadcast_to(bias, y.shape),
        rounded @ kernel.T,
        rows.T @ columns,
        g.reshape(-1, 7).sum(0),
    )
    for a, b in zip((y, *back(g)), expected, strict=True):
        assert_close(a, b, "linear", tolerance=1e-5)
        assert a.dtype == jnp.float32


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fp8_rounds_what_is_scaled_to_its_largest_number(dtype):
    """Against NumPy with ml_dtypes: activations and weights e4m3 (to 448), gradients e5m2 (to
    57344); products of such numbers summed in float32."""
    rng = np.random.default_rng(0)
    draw = lambda *s: rng.standard_normal(s, np.float32)  # noqa: E731
    x, kernel, bias, g = draw(2, 3, 60) * 1e-3, draw(60, 7) * 1e3, draw(7), draw(2, 3, 7) * 1e-6
    x, g = (np.asarray(jnp.asarray(a, dtype), np.float32) for a in (x, g))
    half = [jnp.asarray(x, dtype), jnp.asarray(kernel), jnp.asarray(bias)]
    y, back = jax.jit(lambda *a: jax.vjp(lambda *b: linear(*b, FP8), *a))(*half)
    found = (y, *back(jnp.asarray(g, dtype)))

    def rounded(a, kind, largest):
        scale = np.abs(a).max() / np.float32(largest)
        return (a / scale).astype(kind).astype(np.float32) * scale

    e4m3, e5m2 = (ml_dtypes.float8_e4m3fn, 448), (ml_dtypes.float8_e5m2, 57344)
    rows, weights, up = rounded(x, *e4m3), rounded(kernel, *e4m3), rounded(g, *e5m2)
    assert np.abs(rows - x).max() > 1e-2 * np.abs(x).max()
    expected = (
        rows @ weights + bias,
        up @ weights.T,
        rows.reshape(-1, 60).T @ up.reshape(-1, 7),
        g.reshape(-1, 7).sum(0),
    )
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, "linear", tolerance=1e-5 if dtype == "float32" else 8e-3)
    assert [str(a.dtype) for a in found] == [dtype, dtype, "float32", "float32"]


def test_fp8_of_nothing_is_nothing():
    y, back = jax.vjp(lambda *a: linear(*a, None, FP8), jnp.zeros((2, 5)), jnp.ones((5, 3)))
    for found in (y, *back(jnp.zeros((2, 3)))):
        assert not np.any(found)


@pytest.mark.parametrize("name", ["h100", "v5e"])
def test_fp8_products_compile_for_devices_that_are_elsewhere(name):
    """All three of a GPU read numbers of 8 bits; a TPU v5e, which has no units for them, widens
    them."""
    try:
        where = targets.find(name, 1)
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    there = jax.sharding.SingleDeviceSharding(where.devices[0])
    shapes = ((4096, 256), "bfloat16"), ((256, 512), "float32"), ((4096, 512), "bfloat16")

    @jax.jit
    def both(x, kernel, g):
        y, back = jax.vjp(lambda *a: linear(*a, None, FP8), x, kernel)
        return y, back(g)

    given = [jax.ShapeDtypeStruct(*shape, sharding=there) for shape in shapes]
    platforms = ("tpu" if name == "v5e" else "cuda",)
    text = both.trace(*given).lower(lowering_platforms=platforms).compile().as_text()
    # The first argument of each product: an activation's, a gradient's, an activation's.
    products = re.findall(r"_computation[\w.]* \(\w+[\w.]*: (f8\w+)\[\S+, \w+[\w.]*: (f8\w+)", text)
    if name == "h100":
        pairs = ("f8e4m3fn", "f8e4m3fn"), ("f8e4m3fn", "f8e5m2"), ("f8e5m2", "f8e4m3fn")
        assert sorted(products) == sorted(pairs)

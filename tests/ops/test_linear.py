"""The linear layer's own derivative against automatic differentiation's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close

from dit_jax.ops.linear import BFLOAT16, linear


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

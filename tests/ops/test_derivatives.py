"""Second derivatives, and forward ones from reverse ones, where derivatives are written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close

from dit_jax.ops import norm
from dit_jax.ops.attention.by_head import attend_by_head
from dit_jax.ops.attention.plain import attend_plain
from dit_jax.ops.gelu import gelu
from dit_jax.ops.linear import linear

EPSILON = 1e-6
NORMED = ((2, 3, 8), (8,), (8,))
ATTENDED = ((1, 2, 6, 4), (1, 2, 9, 4), (1, 2, 9, 4), (1, 2, 6, 2), (1, 2, 6, 3))


def plain_norm(x, scale, bias):
    centred = x - x.mean(-1, keepdims=True)
    spread = jnp.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
    return centred / spread * scale[None, None] + bias[None, None]


# ours, its definition, shapes of the arguments
CASES = {
    "gelu": (gelu, lambda x: jax.nn.gelu(x, approximate=False), ((5, 7),)),
    "linear": (
        linear,
        lambda x, kernel, bias: x @ kernel + bias[None, None],
        ((2, 3, 4), (4, 5), (5,)),
    ),
    "layer norm": (lambda *a: norm.layer_norm(*a, EPSILON), plain_norm, NORMED),
    "attention": (
        lambda q, k, v, *rel: attend_by_head(q, k, v, rel, None),
        lambda q, k, v, *rel: attend_plain(q, k, v, rel, None),
        ATTENDED,
    ),
}


def forward(f, arguments, directions):
    """As docs/architecture.md has it."""
    y, back = jax.vjp(f, *arguments)
    _, forth = jax.vjp(back, jnp.zeros_like(y))
    return forth(directions)[0]


@pytest.mark.parametrize("name", CASES)
def test_as_of_the_definition(name):
    ours, definition, shapes = CASES[name]
    rng = np.random.default_rng(0)
    arguments, directions = (
        tuple(jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes)
        for _ in range(2)
    )

    def curvature(f):  # as jax.hessian, in one direction
        slope = jax.grad(lambda *a: jnp.sin(f(*a)).sum(), argnums=tuple(range(len(shapes))))
        return jax.jit(lambda: jax.jvp(slope, arguments, directions)[1])()

    for a, b in zip(curvature(ours), curvature(definition), strict=True):
        assert_close(a, b, f"second derivative of {name}", tolerance=1e-5)
    expected = jax.jit(lambda: jax.jvp(definition, arguments, directions)[1])()
    found = jax.jit(lambda: forward(ours, arguments, directions))()
    assert_close(found, expected, f"forward derivative of {name}", tolerance=1e-5)
    with pytest.raises(TypeError, match=r"\(jvp\) to a custom_vjp function"):
        jax.jvp(ours, arguments, directions)

"""The exact GELU (Hendrycks & Gimpel 2016) with a derivative written out.

`jax.nn.gelu(approximate=False)` goes through `erfc`, 5× slower than `erf` forward on a CPU, and its
derivative through automatic differentiation, 2.7× slower than x's own: Φ(x) + x·φ(x).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dit_jax.ops.arrays import Array

ROOT_HALF = np.float32(np.sqrt(0.5))
PHI_AT_ZERO = np.float32(1.0 / np.sqrt(2.0 * np.pi))


@jax.custom_vjp
def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x·Φ(x), computed in float32 and returned in x's type."""
    return _forward(x)[0]


def _cdf(x):
    return 0.5 * (1.0 + jax.lax.erf(x * ROOT_HALF))


def _forward(x):
    wide = x.astype(jnp.float32)
    return (wide * _cdf(wide)).astype(x.dtype), x


def _backward(x, upstream):
    wide = x.astype(jnp.float32)
    slope = _cdf(wide) + wide * PHI_AT_ZERO * jnp.exp(-0.5 * wide * wide)
    return ((upstream.astype(slope.dtype) * slope).astype(x.dtype),)


gelu.defvjp(_forward, _backward)

"""Kernels of ours on a mesh of eight simulated devices; run as a program, which asserts.

Attention from packed arrays, and LayerNorm's backward pass: each device computes its own rows, and
of attention its own heads; results and gradients are those of one device.
"""

import os

from compiler import COMPILES_FASTER

os.environ["XLA_FLAGS"] = f"{COMPILES_FASTER} --xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
from closeness import assert_close
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from dit_jax.ops import norm
from dit_jax.ops.attention.dispatch import attend_packed
from dit_jax.ops.mesh import AXES, BATCH_AXES, use_mesh


def main() -> None:
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal(shape, np.float32)  # noqa: E731
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2, 2), AXES)
    mask = np.arange(5)[None] <= np.arange(4)[:, None]
    tables = 0.2 * draw(31, 16), 0.2 * draw(31, 16)

    def attention(qkv, text, tables):
        return attend_packed(qkv, text, tables, grid=(16, 16), text_mask=mask)

    arrays = (draw(4, 256, 3, 2, 16), draw(4, 5, 2, 2, 16), tables)
    check(attention, mesh, *arrays, upstream=draw(4, 256, 2, 16))

    norm._kernel = lambda *about: norm.TRITON  # interpreted

    def with_skip(x, scale, bias):
        return norm.with_skip(x, scale, bias, 1e-6)

    upstream = draw(4, 32, 32, 48), draw(4, 32, 32, 48)
    check(with_skip, mesh, draw(4, 32, 32, 48), draw(48), draw(48), upstream=upstream)


def check(f, mesh: Mesh, *arrays, upstream) -> None:
    """Arrays with four rows are split over the mesh, others are on every device."""

    def both(arrays, upstream):
        out, back = jax.vjp(f, *arrays)
        return out, back(upstream)

    def place(x):
        split = P(BATCH_AXES) if len(x) == 4 else P()
        return jax.device_put(x, NamedSharding(mesh, split))

    expected = jax.jit(both)(arrays, upstream)
    with use_mesh(mesh):
        program = jax.jit(both).lower(*jax.tree.map(place, (arrays, upstream))).compile()
        actual = program(*jax.tree.map(place, (arrays, upstream)))
    first = jax.tree.leaves(actual)[0]
    assert not first.sharding.is_fully_replicated, first.sharding
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        a = jnp.asarray(jax.device_get(a))
        assert_close(a, jax.device_get(b), "on a mesh", tolerance=1e-5)


if __name__ == "__main__":
    main()

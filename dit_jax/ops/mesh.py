"""The mesh that a program is split over, for operations that a compiler cannot split by itself.

A compiler splits what it knows; for a kernel of ours it would gather everything onto every device.
JAX's `custom_partitioning` would tell it how, but not on TPUs (jax issue 38196), so such an
operation runs in a `shard_map`: each device computes its own rows of the batch and its own heads.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager

import jax
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")


def laid_on(mesh: Mesh | AbstractMesh) -> AbstractContextManager:
    """Programs that are traced inside are split over this mesh."""
    return jax.sharding.use_abstract_mesh(getattr(mesh, "abstract_mesh", mesh))


def by_rows(x: jax.Array) -> jax.Array:
    """`x` [b, …] with its rows on the devices that split the batch, and whole else."""
    mesh = _mesh()
    if mesh is None or x.shape[0] % _pieces(mesh):
        return x
    return jax.lax.with_sharding_constraint(x, P(BATCH_AXES))


def by_rows_and_heads(f: Callable, *arrays: object) -> jax.Array:
    """`f(*arrays)`, where each device of the mesh computes its rows and heads.

    Args:
      f: gives an array [b, heads, …]; no row and no head may depend on another.
      arrays: trees of [b, heads, …], the first one an array, or of [b, n], which heads share.
    """
    mesh = _mesh()
    if mesh is None:
        return f(*arrays)
    b, heads = arrays[0].shape[:2]
    rows = BATCH_AXES if b % _pieces(mesh) == 0 else None
    head = "tensor" if heads % mesh.shape["tensor"] == 0 else None
    places = jax.tree.map(lambda x: P(rows, head) if x.ndim > 2 else P(rows), arrays)
    # What Pallas computes does not say over which axes it varies: check_vma.
    split = jax.shard_map(f, in_specs=places, out_specs=P(rows, head), check_vma=False)
    return split(*arrays)


def _mesh() -> AbstractMesh | None:
    """That of `laid_on`, where it has several devices; not one that a caller's own program has."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh if mesh.axis_names == AXES and mesh.size > 1 else None


def _pieces(mesh: AbstractMesh) -> int:
    """Of a batch."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)

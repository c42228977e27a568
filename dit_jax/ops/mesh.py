"""The mesh that a program is split over, for operations that a compiler cannot split by itself.

A compiler splits what it knows; for a kernel of ours it would gather everything onto every device.
JAX's `custom_partitioning` would tell it how, but not on TPUs (jax issue 38196), so such an
operation runs in a `shard_map`: each device computes its own rows of the batch and its own heads.
"""

import contextlib
import math
from collections.abc import Callable, Iterator

import jax
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P

from dit_jax.ops import platform
from dit_jax.ops.arrays import Array

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")


@contextlib.contextmanager
def use_mesh(mesh: Mesh | AbstractMesh) -> Iterator[None]:
    """Programs that are traced inside are split over this mesh, and for its devices."""
    with contextlib.ExitStack() as stack:
        if isinstance(mesh, Mesh):
            devices = mesh.local_devices or mesh.devices.flat
            stack.enter_context(platform.default(devices[0]))
        abstract = getattr(mesh, "abstract_mesh", mesh)
        stack.enter_context(jax.sharding.use_abstract_mesh(abstract))
        yield


def shard_rows(x: Array) -> Array:
    """`x` [b, …] with its rows on the devices that split the batch; of other axes nothing is said.

    A parameter's pieces and a batch's rows both lie along `fsdp`: where nobody says which of the
    two an activation keeps, a compiler takes the parameter's.
    """
    mesh = _mesh()
    if mesh is None or x.shape[0] % _pieces(mesh):
        return x
    others = [P.UNCONSTRAINED] * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, P(BATCH_AXES, *others))


def gather_columns(x: Array) -> Array:
    """`x` [n, d] with each of its rows, as far as a device has them, in one piece."""
    if _mesh() is None:
        return x
    return jax.lax.with_sharding_constraint(x, P(P.UNCONSTRAINED, None))


def shard_rows_and_heads(f: Callable, *arrays: object, axes: tuple, out: object) -> object:
    """`f(*arrays)`, where each device of the mesh computes its rows and heads.

    Args:
      f: gives an array or several; no row and no head may depend on another.
      arrays: trees of arrays, the first one an array.
      axes: for every argument, or every array of it, a letter an axis: "b", the batch's rows, and
        "k", heads, are split; others are not, and may be left out at the end.
      out: the same for the result.
    """
    mesh = _mesh()
    if mesh is None:
        return f(*arrays)
    sizes = dict(zip(axes[0], arrays[0].shape, strict=False))
    split = {"b": BATCH_AXES if sizes["b"] % _pieces(mesh) == 0 else None}
    if "k" in sizes and sizes["k"] % mesh.shape["tensor"] == 0:
        split["k"] = "tensor"

    def place(letters: str) -> P:
        return P(*map(split.get, letters))

    # What Pallas computes does not say over which axes it varies: check_vma.
    places = dict(in_specs=jax.tree.map(place, axes), out_specs=jax.tree.map(place, out))
    return jax.shard_map(f, **places, check_vma=False)(*arrays)


def _mesh() -> AbstractMesh | None:
    """That of `use_mesh`, where it has several devices; not one that a caller's own program has."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh if mesh.axis_names == AXES and mesh.size > 1 else None


def _pieces(mesh: AbstractMesh) -> int:
    """Of a batch."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)

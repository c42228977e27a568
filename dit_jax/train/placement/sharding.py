"""Where every parameter lives: a mesh of devices and an ordered (regex → axes) table.

Axes of the mesh: `data` splits the batch, `fsdp` splits the batch and stores each large parameter
in pieces, `tensor` splits the matrices of attention and MLPs (Shoeybi et al. 2019: by columns
into a layer, by rows out of it). Of several slices of TPUs, each holds its own part of `data`:
what else there is stays inside one. First match wins and every parameter must match. The same table
holds for gradients, moments and moving averages, whose trees end in the parameter's path.
"""

import re
from typing import Any

import jax
from absl import logging
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from dit_jax import config as configs
from dit_jax.ops.mesh import AXES, BATCH_AXES

BATCH = P(BATCH_AXES)

COLUMNS, ROWS, WHOLE = P(None, "tensor"), P("tensor", None), P()
LAYERS_IN = r"(qkv|query|key|value|[qkv]_proj|linear_[qkv]|lin1|intermediate)"
LAYERS_OUT = r"(attn\.proj|out_proj|lin2|linear_merge|output)"
RULES = (
    (rf".*\.{LAYERS_IN}\.kernel", COLUMNS),
    (rf".*\.{LAYERS_IN}\.bias", P("tensor")),
    (rf".*\.{LAYERS_OUT}\.kernel", ROWS),
    (r".*\.word_embeddings\.embedding", ROWS),
    (r".*\.embedding", WHOLE),
    (r".*\.(rel_pos_[hw]|pos_embed|gaussian_matrix|tokens)", WHOLE),
    (r".*\.(\w+_token|mask_tokens|no_mask_embed|not_a_point_embed|point_embeddings\.\d+)", WHOLE),
    (r"(.*\.)?(probs(\.\d+)?|prob_text|text_proj|proj|conv\d|layers\.\d)\.kernel", WHOLE),
    (r".*\.(bias|scale)", WHOLE),
)
# Below this many numbers a piece costs more to gather than it saves in memory.
SMALLEST_SHARDED = 2**14


def make_mesh(shape: configs.Mesh, devices: list[jax.Device] | None = None) -> Mesh:
    """All devices as (data, fsdp, tensor), slice after slice along `data`.

    Raises ValueError where the sizes do not fill them, or where the devices are of other slices.
    """
    devices = jax.devices() if devices is None else devices
    sizes, auto = mesh_sizes(shape, len(devices)), (AxisType.Auto,) * 3
    numbered = [getattr(device, "slice_index", None) for device in devices]
    found = len(set(numbered))
    if shape.slices == 1 and (found == 1 or devices[0].platform != "tpu"):
        return jax.make_mesh(sizes, AXES, axis_types=auto, devices=devices)
    if found != shape.slices:
        raise ValueError(f"mesh.slices is {shape.slices}; expected {found}, those of the devices.")
    data, *inside = sizes
    of_one, across = (data // shape.slices, *inside), (shape.slices, 1, 1)
    return Mesh(
        mesh_utils.create_hybrid_device_mesh(of_one, across, devices), AXES, axis_types=auto
    )


def mesh_sizes(shape: configs.Mesh, count: int) -> tuple[int, int, int]:
    """(data, fsdp, tensor) of `count` devices; raises ValueError where they are not filled."""
    fixed = shape.fsdp * shape.tensor
    data = count // fixed if shape.data == -1 and fixed > 0 else shape.data
    if min(data, shape.fsdp, shape.tensor) < 1 or data * fixed != count:
        raise ValueError(
            f"mesh.data × mesh.fsdp × mesh.tensor is {shape.data} × {shape.fsdp} × {shape.tensor};"
            f" expected a product of {count}, the number of devices (-1 fills up)."
        )
    if data % shape.slices:
        raise ValueError(
            f"mesh.slices is {shape.slices}, and mesh.data {data}; expected a multiple of it: fsdp"
            " and tensor stay inside a slice."
        )
    return data, shape.fsdp, shape.tensor


def batch_sharding(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Rows over `data` and `fsdp`."""
    return NamedSharding(mesh, BATCH)


def check_batches(
    optim: configs.Optim, evaluation: configs.Eval, mesh: Mesh | AbstractMesh
) -> None:
    """Raise ValueError where a batch cannot be split evenly over the devices."""
    pieces = mesh.shape["data"] * mesh.shape["fsdp"]
    sizes = {
        "optim.batch_size / optim.accumulate": optim.batch_size // optim.accumulate,
        "eval.batch_size": evaluation.batch_size,
    }
    for name, size in sizes.items():
        if size % pieces:
            raise ValueError(f"{name} is {size}; expected a multiple of {pieces} (data × fsdp).")


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def shardings(tree: Any, mesh: Mesh | AbstractMesh) -> Any:
    """A NamedSharding for each leaf of a tree whose dict keys are parameter paths.

    Leaves outside any dict (step counts) and scalars are replicated. An axis that cannot be split
    evenly stays whole; all such parameters are named in one warning.
    """
    whole: list[str] = []

    def place(path: tuple, leaf: Any) -> NamedSharding:
        name = parameter_path(path)
        return NamedSharding(mesh, spec(name, leaf.shape, mesh, whole=whole) if name else P())

    placed = jax.tree_util.tree_map_with_path(place, tree)
    if whole:
        listed = ", ".join(sorted(set(whole)))
        logging.warning("kept whole, because no axis divides evenly: %s", listed)
    return placed


def parameter_path(path: tuple) -> str:
    """The dict keys of a tree path, joined: the parameter that the leaf belongs to."""
    keys = [str(entry.key) for entry in path if isinstance(entry, jax.tree_util.DictKey)]
    return ".".join(keys)


def spec(name: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh, *, whole: list[str]) -> P:
    """The table's axes where they divide, then `fsdp` on the largest axis that is left."""
    axes = list(_rule(name)) + [None] * len(shape)
    axes = axes[: len(shape)]
    for i, axis in enumerate(axes):
        if axis is not None and shape[i] % mesh.shape[axis]:
            whole.append(f"{name}{list(shape)} along {axis}")
            axes[i] = None
    size = mesh.shape["fsdp"]
    if size == 1 or _numbers(shape) < SMALLEST_SHARDED:
        return P(*axes)
    free = [i for i, axis in enumerate(axes) if axis is None and shape[i] % size == 0]
    if free:
        axes[max(free, key=lambda i: shape[i])] = "fsdp"
    else:
        whole.append(f"{name}{list(shape)} along fsdp")
    return P(*axes)


def _rule(name: str) -> P:
    for pattern, axes in RULES:
        if re.fullmatch(pattern, name):
            return axes
    raise ValueError(f"parameter {name} matches no row of the sharding table; add one.")


def _numbers(shape: tuple[int, ...]) -> int:
    count = 1
    for extent in shape:
        count *= extent
    return count

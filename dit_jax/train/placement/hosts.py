"""Several processes that share one run: which rows each brings, and what all have together.

Every process runs the same program over its own devices. A batch is global: each process makes
the rows that its devices hold (`Share`), and JAX sees one array.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Int64

from dit_jax.train.placement import sharding

GO_ON, TIME_OVER, ASKED = 0, 1, 2  # what a process requests; the largest request is everybody's


@dataclasses.dataclass(frozen=True)
class Share:
    """What one process holds of a batch that is cut into `total` pieces.

    Processes whose devices hold the same pieces (`tensor` reaches across them) form one group.
    """

    pieces: tuple[int, ...]
    total: int
    index: int  # of this process's group
    readers: tuple[int, ...]  # the first process of each group

    @property
    def count(self) -> int:
        """Groups, which hold equally many pieces each."""
        return len(self.readers)

    @property
    def reads(self) -> bool:
        """Whether this process speaks for its group, where one of it is enough."""
        return self.readers[self.index] == jax.process_index()

    def rows(self, batch_size: int) -> np.ndarray:
        """Numbers of this process's rows in a global batch, in ascending order."""
        return np.arange(batch_size).reshape(self.total, -1)[list(self.pieces)].reshape(-1)

    def place(self, own: np.ndarray, *, mesh: Mesh) -> jax.Array:
        """This process's rows of a batch → the whole batch, as an array over the mesh."""
        size = len(own) // len(self.pieces)

        def piece(index: tuple[slice, ...]) -> np.ndarray:
            start = self.pieces.index((index[0].start or 0) // size) * size
            return own[start : start + size]

        shape = (size * self.total, *own.shape[1:])
        return jax.make_array_from_callback(shape, sharding.batch_sharding(mesh), piece)


@functools.lru_cache(maxsize=16)
def share(mesh: Mesh | AbstractMesh) -> Share:
    """This process's share; raises ValueError where processes hold unequal or overlapping rows."""
    total = mesh.shape["data"] * mesh.shape["fsdp"]
    held: dict[int, set[int]] = {}
    for device, (rows,) in sharding.batch_sharding(mesh).devices_indices_map((total,)).items():
        held.setdefault(device.process_index, set()).update(range(*rows.indices(total)))
    pieces = {process: tuple(sorted(rows)) for process, rows in held.items()}
    groups = sorted(set(pieces.values()))
    if sum(map(len, groups)) != total or len({len(group) for group in groups}) != 1:
        raise ValueError(
            f"mesh {dict(mesh.shape)} cuts batches so that processes hold {groups}; expected equal"
            " shares: choose a mesh.tensor that fits into a process, or whole processes into it."
        )
    own = pieces.get(jax.process_index())
    if own is None:
        raise ValueError(f"process {jax.process_index()} has no device of mesh {dict(mesh.shape)}.")
    readers = tuple(min(p for p, rows in pieces.items() if rows == group) for group in groups)
    return Share(own, total, groups.index(own), readers)


class OwnRows:
    """The rows that this process holds of a batch on the devices; fetched when NumPy asks."""

    def __init__(self, array: jax.Array):
        self._array = array

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        pieces = {shard.index[0].start or 0: shard for shard in self._array.addressable_shards}
        rows = np.concatenate([np.asarray(pieces[start].data) for start in sorted(pieces)])
        return rows if dtype is None else rows.astype(dtype)


def gather(table: Int64[np.ndarray, "n k"], *, readers: tuple[int, ...]) -> np.ndarray:
    """The rows of all groups of processes, which bring equally many each, as int64 `[m, k]`.

    JAX computes in 32 bits, so each number travels as two halves.
    """
    halves = np.ascontiguousarray(table).view(np.int32)
    everything = np.asarray(multihost_utils.process_allgather(halves))
    if jax.process_count() > 1:
        everything = everything[list(readers)]
    return everything.reshape(-1, halves.shape[1]).view(np.int64)


def allgather(tree: Any) -> Any:
    """Every array of a tree in full, as NumPy: those whose parts lie on other hosts are fetched."""

    def fetch(leaf: jax.Array) -> np.ndarray:
        if leaf.is_fully_addressable or leaf.is_fully_replicated:
            return np.asarray(leaf)
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))

    return jax.tree.map(fetch, tree)


def is_primary() -> bool:
    """Whether this is the process that writes logs, scores and models."""
    return jax.process_index() == 0


def first(action: Callable[[], Any], *, raises: type[Exception]) -> None:
    """Let the first process alone do something; what it raises of that kind, all raise."""
    trouble = ""
    if is_primary():
        try:
            action()
        except raises as error:
            trouble = str(error)
    if trouble := broadcast_text(trouble):
        raise raises(trouble)


def broadcast_text(text: str) -> str:
    """The first process's text, in every process; cut to 1000 bytes."""
    if jax.process_count() == 1:
        return text
    own = np.zeros(1000, np.uint8)
    said = np.frombuffer(text.encode()[: own.size], np.uint8)
    own[: said.size] = said
    everywhere = np.asarray(multihost_utils.broadcast_one_to_all(own))
    return everywhere.tobytes().rstrip(b"\0").decode(errors="ignore")


def sync(name: str) -> None:
    """Until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


class Agreement:
    """The processes' requests as one: what one asked for at the call before, all learn now.

    Late by one call, so that nobody waits for a step that is still running. A process that is
    alone gets its own request at once.
    """

    def __init__(self, mesh: Mesh):
        self._mesh = mesh
        self._pending: jax.Array | None = None
        self._largest = jax.jit(jax.numpy.max, out_shardings=sharding.replicated(mesh))

    def __call__(self, request: int) -> int:
        if jax.process_count() == 1:
            return request
        before = self._pending
        everywhere = NamedSharding(self._mesh, P(sharding.AXES))
        own = np.full(1, request, np.int32)
        requests = jax.make_array_from_callback((self._mesh.size,), everywhere, lambda _: own)
        self._pending = self._largest(requests)
        return GO_ON if before is None else int(before)

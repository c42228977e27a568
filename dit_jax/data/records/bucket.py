"""Records in a bucket: every host brings the shards that it reads to a disk of its own, once.

A shard is brought when the first of its records is read, compared with the manifest's checksum,
and kept for the next run. Batches are the same wherever records lie: training shuffles all of
them, so that nearly every shard is needed by the first batches. Several are brought at a time, by
the threads that read; a split that nobody reads is never brought.
"""

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dit_jax import storage
from dit_jax.data.records.format import MANIFEST, folder_name, manifest, shard_name


def existing(out_dir: storage.Name, dataset: str, *, cache: str = "") -> Path | None:
    """As `copy`, of the records of a data set."""
    return copy(out_dir / folder_name(dataset), cache=cache)


def copy(name: storage.Name, *, cache: str = "") -> Path | None:
    """The folder here of finished records, for `Records`; None where there are none.

    Args:
      cache: folder of this host; "" is the user's cache.
    """
    try:
        built = storage.read(name / MANIFEST)
    except FileNotFoundError:
        return None
    path = storage.copy_of(name, hashlib.sha256(built).hexdigest()[:16], root=cache)
    if not (path / MANIFEST).is_file():
        for file, digest in json.loads(built)["files"].items():
            if not is_shard(file):
                storage.fetch(path / file, sha256=digest)
        storage.fetch(path / MANIFEST)
    return path


class Shards:
    """The shards of one split, of which each is brought before it is read."""

    def __init__(self, path: Path, split: str, *, lengths: Sequence[int]):
        """`lengths` are the numbers of records; OSError where the disk has no room for all."""
        count = len(lengths)
        names = [shard_name(split, number=number, count=count) for number in range(count)]
        self._ends = np.cumsum(lengths)
        self._paths = [path / name for name in names]
        self._digests = [manifest(path)["files"][name] for name in names]
        self._there: set[int] = set()
        if missing := [shard for shard in self._paths if not shard.is_file()]:
            sizes = storage.listing(storage.origin(path))
            storage.room_for(sum(sizes[shard.name].size for shard in missing), missing[0])

    def bring(self, index: int) -> None:
        """The shard that holds a record; OSError where it cannot be had."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        if number in self._there:
            return
        path = self._paths[number]
        with _alone(path):
            if not path.is_file():
                storage.fetch(path, sha256=self._digests[number])
        self._there.add(number)


def is_shard(name: str) -> bool:
    return ".array_record-" in name


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One thread of one process of this host."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

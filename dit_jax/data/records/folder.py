"""From `Annotations` to a folder of array records, once.

`build` writes one record per referent, its picture as encoded bytes. `Records` reads them back as
a Source, `verify` proves them sound, `manifest` says what they are; see `format`.
"""

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from dit_jax import storage
from dit_jax.data.entries import Annotations, Note
from dit_jax.data.records import bucket
from dit_jax.data.records.format import (
    INDEX,
    MANIFEST,
    existing,
    folder_name,
    manifest,
    sha256,
    write_info,
)
from dit_jax.data.records.plan import check_same, plan
from dit_jax.data.records.read import Records, verify
from dit_jax.data.records.write import RECORDS, Written, fsync, write_all, write_json
from dit_jax.lease import Lease, Taken

__all__ = ["Records", "build", "existing", "manifest", "verify"]

ON_ERROR = ("stop", "skip")
WAIT = 0.2  # seconds between looks whether another process is done


def build(
    annotations: Annotations,
    *,
    out_dir: str | os.PathLike[str],
    on_error: str = "stop",
    broken: Mapping[str, str] = {},
    remarks: Sequence[str] = (),
    progress: bool = True,
    shard_entries: int = 1000,
) -> Path:
    """Write the records of one data set and return their folder, for `Records`.

    Returns at once where they exist already. A build that was killed is continued by the next one;
    of several at once, one builds and the others wait for it. The records become visible when all
    of them are written and verified. A broken record raises ValueError that names it, or with
    on_error="skip" is left out and listed in the manifest, as are those that the annotations left
    out, and `remarks`. ValueError, too, where the existing records were built from other files.

    Args:
      broken: records that only a check could find to be broken, by name, and why.
    """
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error is {on_error!r}, expected one of {', '.join(ON_ERROR)}.")
    path = Path(out_dir, folder_name(annotations.dataset))
    staging = path.with_name(f"incomplete.{path.name}")
    if existing(out_dir, annotations.dataset) is None or staging.exists():
        with alone(path):
            if existing(out_dir, annotations.dataset) is None:
                _check_free(path)
                wanted = plan(annotations, shard_entries=shard_entries)
                how = dict(skip=on_error == "skip", broken=broken, progress=progress)
                written = write_all(annotations, wanted, staging, **how)
                about = dict(wanted=wanted, left_out=annotations.left_out, remarks=remarks)
                _describe(staging / RECORDS, written, **about)
                verify(staging / RECORDS, progress=progress)
                _publish(staging / RECORDS, path)
            if staging.exists():
                shutil.rmtree(staging)
    check_same(path, annotations)
    return path


def build_in(
    out_dir: storage.Name, annotations: Annotations, *, cache: str = "", **how: Any
) -> Path:
    """`build` for a bucket, on a disk of this host; one host builds, and the others wait for it.

    Args:
      cache: folder of this host; "" is the user's cache.
    """
    name = out_dir / folder_name(annotations.dataset)
    with alone(storage.copy_of(name, "building", root=cache)):
        found = bucket.existing(out_dir, annotations.dataset, cache=cache)
        if found is None:
            here = storage.cache(cache) / "building" / out_dir.scheme / out_dir.key
            built = build(annotations, out_dir=here, **how)
            storage.publish(built, name)
            found = bucket.existing(out_dir, annotations.dataset, cache=cache)
            for shard in filter(bucket.is_shard, [path.name for path in built.iterdir()]):
                os.replace(built / shard, found / shard)
            shutil.rmtree(built)
    return found


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Be the only one who builds a folder of records, on every file system; others wait."""
    said = False
    with ExitStack() as stack:
        while True:
            lease = Lease(path.parent, purpose=f"building {path.name}", name=f".{path.name}.lease")
            try:
                stack.enter_context(lease)
                break
            except Taken as taken:
                if not said:
                    logging.info("Waiting: %s", taken)
                said = True
                time.sleep(WAIT)
        yield


def _check_free(path: Path) -> None:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path} holds something else than records; move it away.")


def _publish(records: Path, path: Path) -> None:
    """Make complete records visible, also if the machine stops in the next moment."""
    for file in (*records.iterdir(), records):
        fsync(file)
    os.rename(records, path)
    fsync(path.parent)


def _describe(
    records: Path,
    written: list[Written],
    *,
    wanted: dict[str, Any],
    left_out: Sequence[Note],
    remarks: Sequence[str],
) -> None:
    """All files beside the shards; the manifest is the last. `left_out` never became an entry."""
    splits: dict[str, list[Written]] = {}
    for shard in written:
        splits.setdefault(shard.split, []).append(shard)
    broken = [one for shard in written for one in shard.left_out]
    _report(wanted["dataset"], splits, left_out=broken)
    sizes = {
        split: [(len(shard.expressions), shard.bytes) for shard in shards]
        for split, shards in splits.items()
    }
    write_info(records, splits=sizes)
    arrays = _arrays(splits)
    np.savez(records / INDEX, **arrays)
    files = sorted(file for file in records.iterdir() if file.name != MANIFEST)
    counts = {
        split: {
            "referents": len(arrays[f"{split}/expressions"]),
            "expressions": int(arrays[f"{split}/expressions"].sum()),
            "images": len(np.unique(arrays[f"{split}/image_ids"])),
            "no_target": sum(shard.no_target for shard in shards),
        }
        for split, shards in splits.items()
    }
    found = {
        "splits": counts,
        "files": {file.name: sha256(file) for file in files},
        "left_out": [{"record": note.name, "reason": note.text} for note in left_out] + broken,
        "remarks": list(remarks),
    }
    write_json(records / MANIFEST, wanted | found)


def _report(
    dataset: str, splits: dict[str, list[Written]], *, left_out: list[dict[str, str]]
) -> None:
    """Log what is left out; ValueError where nothing is left of a split."""
    for split, shards in splits.items():
        if not any(shard.expressions for shard in shards):
            reason = next(shard.left_out[0]["reason"] for shard in shards)
            raise ValueError(f"{dataset}: every record of {split} is broken; the first: {reason}")
    if left_out:
        logging.warning(
            "%s: %d broken records are left out, see %s; the first: %s",
            *(dataset, len(left_out), MANIFEST, left_out[0]["reason"]),
        )


def _arrays(splits: dict[str, list[Written]]) -> dict[str, np.ndarray]:
    """What `Records` needs to open, as `INDEX` holds it."""
    return {
        f"{split}/{name}": np.concatenate(
            [np.array(getattr(shard, name), np.int64) for shard in shards]
        )
        for split, shards in splits.items()
        for name in ("expressions", "image_ids", "contents")
    }

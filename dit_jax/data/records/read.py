"""Array records as a Source, and the proof that a folder of them is sound."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int
from tqdm import tqdm

from dit_jax import storage
from dit_jax.data.pixels import Stored
from dit_jax.data.records import bucket
from dit_jax.data.records.format import index, manifest, parse, sha256
from dit_jax.data.referent import Referent, Truth
from dit_jax.strict import counted

PICTURES = 200  # that `verify` decodes of each split, spread evenly


class Records:
    """A Source: the referents of one split, read from the folder that `build` returned."""

    def __init__(self, path: str | os.PathLike[str], split: str):
        built = manifest(path)
        if split not in (splits := built["splits"]):
            raise ValueError(f"{path}: no split {split!r}, expected one of {', '.join(splits)}.")
        self._crowds, arrays = built["reading"]["crowds"], index(path)
        self._counts = arrays[f"{split}/expressions"]
        self._image_ids = arrays[f"{split}/image_ids"]
        self._contents = arrays[f"{split}/contents"]
        builder = tfds.builder_from_directory(path)
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        self._records = builder.as_data_source(split, deserialize_method=raw)
        self._shards = None
        if storage.origin(path):
            lengths = builder.info.splits[split].shard_lengths
            self._shards = bucket.Shards(Path(path), split, lengths=lengths)

    def __len__(self) -> int:
        return len(self._counts)

    def __getitem__(self, index: int) -> Referent:
        return _stored(self.record(index))

    def truth(self, index: int) -> Truth:
        """Like `self[index].truth()`; the picture stays encoded."""
        return _stored(self.record(index)).truth()

    def expression_counts(self) -> Int[np.ndarray, " n"]:
        """How many expressions each referent has, from the index; reads no record."""
        return self._counts

    def image_ids(self) -> Int[np.ndarray, " n"]:
        """Which photograph each referent is of, from the index; reads no record."""
        return self._image_ids

    def remarks(self) -> dict[str, str]:
        """Whether crowds count in its masks: "keep" or "drop"; for whoever compares scores."""
        return {"crowds": self._crowds}

    def contents(self) -> Int[np.ndarray, " n"]:
        """Which file each picture is, whatever it is called, from the index; reads no record."""
        return self._contents

    def record_ids(self, index: int) -> dict[str, Any]:
        """What the annotation files call a referent: ref_id, ann_ids, sent_ids, file_name."""
        record = self.record(index)
        return {
            "ref_id": int(record["ref_id"]),
            "ann_ids": [int(number) for number in record["ann_ids"]],
            "sent_ids": [int(number) for number in record["sent_ids"]],
            "file_name": record["file_name"].decode(),
        }

    def record(self, index: int) -> dict[str, Any]:
        """The fields of `dit_jax.data.records.format.features`, as they are stored."""
        if not 0 <= index < len(self):
            raise IndexError(f"referent {index} of a split of {len(self)}.")
        if self._shards is not None:
            self._shards.bring(index)
        return parse(self._records[index])


def verify(path: str | os.PathLike[str], *, progress: bool = True) -> None:
    """Read everything back; ValueError naming the first file or record that is wrong.

    Compares the digests of all files and the counts with the manifest, parses every record and
    decodes every mask. Of the pictures, `PICTURES` of each split are decoded: the digests say that
    all of them are the bytes that `build` decoded one by one.
    """
    path = Path(path)
    built = manifest(path)
    for name, digest in built["files"].items():
        if not (path / name).is_file() or sha256(path / name) != digest:
            raise ValueError(
                f"{path / name} is missing or not what was built; delete {path} and build again."
            )
    total = sum(counts["referents"] for counts in built["splits"].values())
    with tqdm(
        total=total, desc="verify", unit=" records", disable=None if progress else True
    ) as bar:
        for split, counts in built["splits"].items():
            found = _check_split(Records(path, split), name=f"{path} {split}", tick=bar.update)
            if found != counts:
                raise ValueError(f"{path} {split}: found {found}, the manifest says {counts}.")


def _stored(record: dict[str, Any]) -> Stored:
    return Stored(
        record["image"],
        record["mask"],
        size=(int(record["height"]), int(record["width"])),
        orientation=int(record["orientation"]),
        expressions=tuple(text.decode() for text in record["expressions"]),
        id=record["id"].decode(),
        image_id=int(record["image_id"]),
    )


def _check_split(source: Records, *, name: str, tick: Callable[[], object]) -> dict[str, int]:
    """Check every record of a split and count what the manifest counts."""
    samples = set(np.linspace(0, len(source) - 1, min(len(source), PICTURES), dtype=int).tolist())
    no_target = 0
    for position in range(len(source)):
        record = source.record(position)
        truth = _check_record(record, decode=position in samples)
        if (len(truth.expressions), truth.image_id, record["content"]) != (
            source.expression_counts()[position],
            source.image_ids()[position],
            source.contents()[position],
        ):
            raise ValueError(f"{name}: record {position} ({truth.id}) is not the index's.")
        no_target += not truth.mask.any()
        tick()
    return {
        "referents": len(source),
        "expressions": int(source.expression_counts().sum()),
        "images": len(np.unique(source.image_ids())),
        "no_target": no_target,
    }


def _check_record(record: dict[str, Any], *, decode: bool) -> Truth:
    found = _stored(record)
    if found.present != bool(record["objects"]):
        said = "is empty" if record["objects"] else "is not empty"
        raise ValueError(
            f"{found.id} means {counted(record['objects'], 'object')}, but the mask {said}."
        )
    if decode:
        _ = found.image  # which has to be as large as the record says
    return found.truth()

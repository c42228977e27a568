"""What a folder of records holds, and one record as bytes.

TFDS's layout for `tfds.builder_from_directory`, in the array_record format: `dataset_info.json`,
`features.json` and shards `referents-<split>.array_record-00000-of-00043`. Beside them lie
`manifest.json`, which says what was built from what, and `index.npz`, which holds the numbers that
a Source needs to open at once. Writing and reading need no TensorFlow.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.proto import tf_example_pb2

FORMAT = 3  # of records and manifest; raised when either changes
MANIFEST = "manifest.json"
INDEX = "index.npz"  # arrays "<split>/expressions", "<split>/image_ids", "<split>/contents"
NAME = "referents"  # what TFDS calls the data set in the names of its files


def folder_name(dataset: str) -> str:
    """Where a data set's records lie in `out_dir`: "refcoco(unc)" in "refcoco_unc"."""
    return re.sub(r"[^\w.+-]", "_", dataset.removesuffix(")"))


def existing(out_dir: str | os.PathLike[str], dataset: str) -> Path | None:
    """The finished records of a data set ("refcoco(unc)"), whatever they were built from."""
    path = Path(out_dir, folder_name(dataset))
    return path if (path / MANIFEST).is_file() else None


def manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What the records of a folder are and what they were built from.

    Keys: `format`, `dataset`, `splits` (counts), `sources` (path and SHA-256), `entries` (SHA-256
    of all annotations), `reading` (`entries.Reading`), `files` (SHA-256 of all files beside it),
    `versions`, `left_out`, `remarks`.
    """
    file = Path(path, MANIFEST)
    if not file.is_file():
        raise ValueError(f"{path}: no records here; expected a folder that build() returned.")
    try:
        found = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is damaged, delete {path} and build again: {error}.") from error
    if found.get("format") != FORMAT:
        raise ValueError(
            f"{path} holds records of format {found.get('format')}, expected {FORMAT}; delete it"
            " and build again."
        )
    return found


def index(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of `index.npz`."""
    with np.load(Path(path, INDEX)) as arrays:
        return dict(arrays)


def shard_name(split: str, *, number: int, count: int) -> str:
    return f"{NAME}-{split}.array_record-{number:05d}-of-{count:05d}"


@cache
def features() -> tfds.features.FeaturesDict:
    """The fields of a record; Sequences have one level."""
    text, number = tfds.features.Text(), tfds.features.Scalar(np.int64)
    encoded = tfds.features.Scalar(np.object_)  # bytes, as they are
    return tfds.features.FeaturesDict(
        {
            "id": text,
            "file_name": text,
            "ref_id": number,
            "ann_ids": tfds.features.Sequence(number),
            "image_id": number,
            "image": encoded,
            "content": number,  # the first bits of the SHA-256 of `image`
            "orientation": number,  # how it is to be turned: EXIF's number, or 1
            "mask": encoded,  # compressed run lengths of the union of all objects
            "objects": number,  # how many are meant; 0 where the mask is empty
            "height": number,
            "width": number,
            "expressions": tfds.features.Sequence(text),
            "sent_ids": tfds.features.Sequence(number),
        }
    )


@cache
def _serializer() -> ExampleSerializer:
    return ExampleSerializer(features().get_serialized_info())


def serialize(example: Mapping[str, Any]) -> bytes:
    """A record as bytes, which follow from its fields alone.

    `FeaturesDict.serialize_example` of TFDS 4.9.10 writes them in another order in every process.
    """
    message = _serializer().get_tf_example(features().encode_example(example))
    return message.SerializeToString(deterministic=True)


def parse(data: bytes) -> dict[str, Any]:
    """Inverse of `serialize`, for texts as bytes; TFDS's own takes three times as long."""
    stored = tf_example_pb2.Example.FromString(data).features.feature
    found = {}
    for name, feature in features().items():
        one = stored[name]
        values = (one.int64_list if one.HasField("int64_list") else one.bytes_list).value
        found[name] = list(values) if isinstance(feature, tfds.features.Sequence) else values[0]
    return found


def write_info(folder: Path, *, splits: Mapping[str, Sequence[tuple[int, int]]]) -> None:
    """TFDS's own two files; `splits` holds the (records, bytes) of every shard."""
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=NAME, filetype_suffix="array_record"
    )
    infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[records for records, _ in shards],
            num_bytes=sum(size for _, size in shards),
            filename_template=template,
        )
        for split, shards in splits.items()
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features(),
        split_infos=infos,
        version="1.0.0",
        check_data=False,  # that would need TensorFlow
        disable_shuffling=True,  # the order of the records is the order of the index
    )


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

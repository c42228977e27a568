"""RefCOCO, RefCOCO+ and RefCOCOg: from a REFER folder to array records, and back as a Source.

A REFER folder holds `<dataset>/refs(<split_by>).p`, `<dataset>/instances.json` and COCO's
train2014 pictures. `build` reads it once and writes one record per referent, pictures as encoded
bytes, with a TFDS builder in the array_record format: neither writing nor reading needs
TensorFlow. `Refer` reads the records with random access.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int

from dit_jax.data import safe_pickle
from dit_jax.data.referent import Referent, decode_image, decode_mask, encode_mask

SPLITS_BY = {  # the partitions that REFER publishes
    "refcoco": ("unc", "google"),
    "refcoco+": ("unc",),
    "refcocog": ("umd", "google"),
}
IMAGE_FOLDERS = ("images/train2014", "images/mscoco/images/train2014", "train2014", "images")
SUMMARY = "summary.json"  # beside the records: digests of the source, expressions per referent


def build(
    dataset: str,
    split_by: str,
    *,
    source: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    image_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """Write the records of one data set and return their folder, for `Refer`.

    Returns at once where they exist already. The records are written to a temporary folder that
    is renamed at the end, so an interrupted build is never taken for a complete one (a killed one
    leaves a folder `incomplete.*`, which may be deleted). Raises ValueError, naming the record or
    the file, for anything missing or inconsistent, and also where the existing records were built
    from other files.
    """
    files = _Files.find(dataset, split_by, Path(source), image_dir)
    builder = _ReferBuilder(files, config=f"{dataset}_{split_by}", data_dir=os.fspath(out_dir))
    if not Path(builder.data_dir, SUMMARY).is_file():
        files.check()
        _prepare(builder)
    elif files.refs.is_file() and _summary(builder.data_dir)["sources"] != files.digests():
        raise ValueError(
            f"{builder.data_dir} was built from other files than {files.refs} and"
            f" {files.instances}; delete it or choose another out_dir."
        )
    return Path(builder.data_dir)


class Refer:
    """A Source: the referents of one split, read from the folder that `build` returned."""

    def __init__(self, path: str | os.PathLike[str], split: str):
        path = Path(path)
        if not (path / SUMMARY).is_file():
            raise ValueError(f"{path}: no records here; expected a folder that build() returned.")
        counts = _summary(path)["expressions"]
        if split not in counts:
            raise ValueError(f"{path}: no split {split!r}, expected one of {', '.join(counts)}.")
        self._counts = np.array(counts[split], np.int64)
        self._records = tfds.builder_from_directory(path).as_data_source(split)

    def __len__(self) -> int:
        return len(self._counts)

    def __getitem__(self, index: int) -> Referent:
        if not 0 <= index < len(self):
            raise IndexError(f"referent {index} of a split of {len(self)}.")
        record = self._records[index]
        name = record["id"].decode()
        height, width = int(record["height"]), int(record["width"])
        return Referent(
            image=decode_image(record["image"], name=name),
            mask=decode_mask(record["mask"], height=height, width=width),
            expressions=tuple(text.decode() for text in record["expressions"]),
            id=name,
            image_id=int(record["image_id"]),
        )

    def expression_counts(self) -> Int[np.ndarray, " n"]:
        """How many expressions each referent has, from the summary; decodes nothing."""
        return self._counts


@dataclass(frozen=True)
class _Files:
    """The files of a REFER folder that one data set is built from."""

    dataset: str
    refs: Path
    instances: Path
    images: Path

    @staticmethod
    def find(
        dataset: str, split_by: str, root: Path, image_dir: str | os.PathLike[str] | None
    ) -> "_Files":
        if split_by not in SPLITS_BY.get(dataset, ()):
            known = ", ".join(f"{name}/{by}" for name, all_by in SPLITS_BY.items() for by in all_by)
            raise ValueError(f"no data set {dataset}/{split_by}, expected one of {known}.")
        folders = (
            [root / name for name in IMAGE_FOLDERS] if image_dir is None else [Path(image_dir)]
        )
        images = next((folder for folder in folders if folder.is_dir()), folders[0])
        folder = root / dataset
        return _Files(dataset, folder / f"refs({split_by}).p", folder / "instances.json", images)

    def check(self) -> None:
        for path in (self.refs, self.instances, self.images):
            if not path.exists():
                raise ValueError(f"{path} is missing; expected a REFER folder with COCO pictures.")

    def digests(self) -> dict[str, str]:
        paths = {"refs": self.refs, "instances": self.instances}
        return {key: hashlib.sha256(path.read_bytes()).hexdigest() for key, path in paths.items()}


class _ReferBuilder(tfds.core.GeneratorBasedBuilder):
    """The TFDS side: features, splits and examples in the order of the refs file."""

    name = "refer"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=f"{dataset}_{split_by}")
        for dataset, all_by in SPLITS_BY.items()
        for split_by in all_by
    ]
    pkg_dir_path = None  # there is no folder of citations and checksums to look for

    def __init__(self, files: _Files, *, config: str, data_dir: str):
        super().__init__(config=config, data_dir=data_dir)
        self._files = files

    def _info(self) -> tfds.core.DatasetInfo:
        text, number = tfds.features.Text(), tfds.features.Scalar(np.int64)
        encoded = tfds.features.Scalar(np.object_)  # bytes, as they are
        features = {
            "id": text,
            "file_name": text,
            "ref_id": number,
            "ann_id": number,
            "image_id": number,
            "image": encoded,
            "mask": encoded,
            "height": number,
            "width": number,
            "expressions": tfds.features.Sequence(text),
            "sent_ids": tfds.features.Sequence(number),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # so that the summary's order is the records' order
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        files = self._files
        splits: dict[str, list[dict]] = {}
        for ref in safe_pickle.load(files.refs):
            splits.setdefault(ref["split"], []).append(ref)
        counts = {split: [len(r["sentences"]) for r in refs] for split, refs in splits.items()}
        summary = {"sources": files.digests(), "expressions": counts}
        # Written into TFDS's temporary folder, so it appears together with the records.
        Path(self.data_dir, SUMMARY).write_text(json.dumps(summary))
        instances = json.loads(files.instances.read_text())
        images = {image["id"]: image for image in instances["images"]}
        objects = {annotation["id"]: annotation for annotation in instances["annotations"]}
        return {
            split: self._generate_examples(refs, images, objects) for split, refs in splits.items()
        }

    def _generate_examples(
        self, refs: list[dict], images: dict[int, dict], objects: dict[int, dict]
    ) -> Iterator[tuple[int, dict]]:
        files = self._files
        for key, ref in enumerate(refs):
            name = f"{files.dataset} {ref['split']} ref_id {ref['ref_id']}"
            yield key, _example(ref, images, objects, folder=files.images, name=name)


def _example(
    ref: dict, images: dict[int, dict], objects: dict[int, dict], *, folder: Path, name: str
) -> dict[str, Any]:
    """One record; everything that reading it relies on is checked here, once."""
    if ref["image_id"] not in images:
        raise ValueError(f"{name}: instances.json has no picture {ref['image_id']}.")
    if ref["ann_id"] not in objects:
        raise ValueError(f"{name}: instances.json has no annotation {ref['ann_id']}.")
    entry = images[ref["image_id"]]
    name = f"{name} ({entry['file_name']})"
    path = folder / entry["file_name"]
    if not path.is_file():
        raise ValueError(f"{name}: the picture {path} is missing.")
    data, size = path.read_bytes(), (entry["height"], entry["width"])
    if (found := decode_image(data, name=name).shape[:2]) != size:
        raise ValueError(
            f"{name}: instances.json says {size[0]}x{size[1]} (height x width) but the picture is"
            f" {found[0]}x{found[1]}."
        )
    texts = [sentence["sent"] for sentence in ref["sentences"]]
    if not texts or not all(text.strip() for text in texts):
        raise ValueError(f"{name}: an expression is empty, expected at least one word in each.")
    return {
        "id": name,
        "file_name": entry["file_name"],
        **{key: ref[key] for key in ("ref_id", "ann_id", "image_id")},
        "image": data,
        "mask": _mask(objects[ref["ann_id"]]["segmentation"], size, name),
        "height": size[0],
        "width": size[1],
        "expressions": texts,
        "sent_ids": [sentence["sent_id"] for sentence in ref["sentences"]],
    }


def _mask(segmentation: Any, size: tuple[int, int], name: str) -> bytes:
    try:
        return encode_mask(segmentation, height=size[0], width=size[1])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{name}: the mask cannot be read: {error}.") from error


def _prepare(builder: _ReferBuilder) -> None:
    try:
        builder.download_and_prepare(file_format="array_record")  # downloads nothing
    except OSError:
        if not Path(builder.data_dir, SUMMARY).is_file():
            raise
        # Another process built the same records and renamed its folder first: use those.


def _summary(path: str | os.PathLike[str]) -> dict[str, Any]:
    return json.loads(Path(path, SUMMARY).read_text())

"""The kinds of data sets that can be prepared: one table, from name and partition to a reader."""

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dit_jax import storage
from dit_jax.data.annotations import folder, grefer, refer
from dit_jax.data.entries import USUAL, Annotations, Reading

Location = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Kind:
    """How one kind of data set is read."""

    splits_by: tuple[str, ...]  # its partitions
    read: Callable[..., Annotations]  # partition, source, images; see `open_annotations`
    # The annotation files in a source, there or not; None where they are not all (masks).
    files: Callable[[str, Location], dict[str, Path]] | None


def _refer(dataset: str) -> Kind:
    return Kind(
        refer.SPLITS_BY[dataset],
        lambda split_by, source, images, **how: refer.read(
            dataset, split_by, source=source, images=images, **how
        ),
        lambda split_by, source: refer.files(dataset, split_by, source=source),
    )


def _read_folder(
    split_by: str, source: Location, images: Location | None, **how: Any
) -> Annotations:
    if images:
        raise ValueError(f"images is {images}; expected none: an own folder holds its pictures.")
    found = folder.read(source, **how)
    # Two folders of one name at different places are two data sets.
    return dataclasses.replace(found, dataset=label("folder", split_by, source=source))


KINDS: dict[str, Kind] = {
    **{dataset: _refer(dataset) for dataset in refer.SPLITS_BY},
    "grefcoco": Kind(
        grefer.SPLITS_BY["grefcoco"],
        lambda split_by, source, images, **how: grefer.read(
            split_by, source=source, images=images, **how
        ),
        lambda split_by, source: grefer.files(split_by, source=source),
    ),
    "folder": Kind(("",), _read_folder, None),
}


def kind(dataset: str, split_by: str) -> Kind:
    """The row of the table; ValueError for a data set or partition that it has not."""
    if split_by not in (KINDS[dataset].splits_by if dataset in KINDS else ()):
        known = [_named(name, by) for name, row in KINDS.items() for by in row.splits_by]
        raise ValueError(
            f"there is no data set {_named(dataset, split_by)}; expected one of {', '.join(known)}."
        )
    return KINDS[dataset]


def open_annotations(
    dataset: str,
    split_by: str,
    *,
    source: Location,
    images: Location | None = None,
    skip: bool = False,
    reading: Reading = USUAL,
) -> Annotations:
    """All referents of a data set; ValueError for files that are missing or malformed.

    Args:
      split_by: the partition: "unc", "google", "umd"; "" for own folders.
      source: REFER folder, or the own folder.
      images: folder or zip file of COCO's pictures; None looks inside `source`.
      skip: leave malformed records out, and list them in `left_out`.
    """
    how = dict(skip=skip, reading=effective(dataset, reading))
    return kind(dataset, split_by).read(split_by, source, images, **how)


def effective(dataset: str, reading: Reading) -> Reading:
    """What of `reading` matters to a data set: COCO's own files are drawn on stored pixels."""
    if dataset == "folder":
        return reading
    others = dict(units="pixel", orientation="stored", captions="needed")
    return dataclasses.replace(reading, **others)


def label(dataset: str, split_by: str, *, source: Location) -> str:
    """What a data set is called: "refcoco(unc)", "folder(my_photos_1f2e3d4c)".

    The digits after an own folder's name are of the SHA-256 of its absolute path, or bucket's name.
    """
    if dataset != "folder":
        return _named(dataset, split_by)
    path = str(storage.parse(source) or storage.named(os.path.abspath(source)))
    return f"folder({Path(path).name}_{hashlib.sha256(path.encode()).hexdigest()[:8]})"


def _named(dataset: str, split_by: str) -> str:
    return f"{dataset}({split_by})" if split_by else dataset

"""RefCOCO, RefCOCO+ and RefCOCOg: a REFER folder read into `Annotations`.

    <source>/refcoco/refs(unc).p        who says what about which object: a pickle
    <source>/refcoco/instances.json     the objects, as COCO writes them
    <source>/images/train2014/          COCO's pictures, or a zip file of them

https://github.com/lichengunc/refer describes the format.
"""

import os
from pathlib import Path
from typing import Any

from dit_jax.data.annotations import coco, safe_pickle
from dit_jax.data.entries import USUAL, Annotations, Reading

SPLITS_BY = {  # the partitions that people have; REFER itself lists no "google" of RefCOCO+
    "refcoco": ("unc", "google"),
    "refcoco+": ("unc", "google"),
    "refcocog": ("umd", "google"),
}


def read(
    dataset: str,
    split_by: str,
    *,
    source: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    skip: bool = False,
    reading: Reading = USUAL,
) -> Annotations:
    """All referents of one data set, in the order of its file.

    The masks are unknown (None) where instances.json is missing. Raises ValueError for a missing or
    malformed file, and for referents that instances.json does not know; with `skip`, malformed and
    unknown records are left out.

    Args:
      images: folder or zip file of the pictures; None looks in `coco.IMAGE_PLACES` of `source`.
    """
    found, label = files(dataset, split_by, source=source), f"{dataset}({split_by})"
    if not found["refs"].is_file():
        raise ValueError(f"{found['refs']} is missing; expected REFER's file of expressions.")
    records = safe_pickle.load(found["refs"])
    notes = coco.Notes(skip=skip)
    how = dict(file=found["refs"], dataset=label, targets=_target)
    refs = coco.parse(records, **how, notes=notes)
    places = dict(files=found, images=coco.find_images(Path(source), images))
    return coco.annotations(label, refs, **places, notes=notes, reading=reading)


def files(dataset: str, split_by: str, *, source: str | os.PathLike[str]) -> dict[str, Path]:
    """What is read: `refs` and `instances`, whether they exist or not."""
    folder = Path(source, dataset)
    return {"refs": folder / f"refs({split_by}).p", "instances": folder / "instances.json"}


def _target(record: dict[str, Any]) -> tuple[int, ...]:
    return (coco.field(record, "ann_id", int),)

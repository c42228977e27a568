"""gRefCOCO (Liu et al., CVPR 2023): RefCOCO with several targets, or none, for an expression.

    <source>/grefcoco/grefs(unc).json   a list of REFER's records, as JSON
    <source>/grefcoco/instances.json    the objects, as COCO writes them
    <source>/images/train2014/          COCO's pictures, or a zip file of them

A record differs from REFER's in `ann_id`, a list of the objects that are meant, `[-1]` where there
is none, and in `no_target`, which says the same. https://github.com/henghuiding/gRefCOCO has the
data; files that others rewrote may have a bare number as `ann_id`, no `no_target`, or be a pickle
(`grefs(unc).p`).
"""

import json
import os
import reprlib
from pathlib import Path
from typing import Any

from dit_jax.data.annotations import coco, safe_pickle
from dit_jax.data.entries import USUAL, Annotations, Reading

SPLITS_BY = {"grefcoco": ("unc",)}  # the partition that is published
NOTHING = (-1,)  # the `ann_id` of an expression that means nothing


def read(
    split_by: str,
    *,
    source: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    skip: bool = False,
    reading: Reading = USUAL,
) -> Annotations:
    """All referents, in the order of the file; `segmentations` is () where nothing is meant.

    Missing files, errors and `skip` are as in `refer.read`.
    """
    found, label = files(split_by, source=source), f"grefcoco({split_by})"
    notes = coco.Notes(skip=skip)
    how = dict(file=found["refs"], dataset=label, targets=_targets)
    refs = coco.parse(_records(found["refs"]), **how, notes=notes)
    places = dict(files=found, images=coco.find_images(Path(source), images))
    return coco.annotations(label, refs, **places, notes=notes, reading=reading)


def files(split_by: str, *, source: str | os.PathLike[str]) -> dict[str, Path]:
    """What is read: `refs` and `instances`, whether they exist or not."""
    folder = Path(source, "grefcoco")
    refs = folder / f"grefs({split_by}).json"
    pickled = refs.with_suffix(".p")
    return {
        "refs": refs if refs.is_file() or not pickled.is_file() else pickled,
        "instances": folder / "instances.json",
    }


def _records(file: Path) -> Any:
    if not file.is_file():
        raise ValueError(f"{file} is missing; expected gRefCOCO's file of expressions.")
    if file.suffix == ".p":
        return safe_pickle.load(file)
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file}: not readable as JSON ({error}).") from error


def _targets(record: dict[str, Any]) -> tuple[int, ...]:
    """The annotations that are meant; ValueError where `ann_id` and `no_target` disagree."""
    ann_id = coco.field(record, "ann_id", int | list)
    ids = tuple(ann_id) if isinstance(ann_id, list) else (ann_id,)
    if not all(type(number) is int for number in ids):
        raise ValueError(f"'ann_id' is {reprlib.repr(ids)}, expected whole numbers.")
    nothing = record.get("no_target", ids == NOTHING)
    if type(nothing) is not bool:
        raise ValueError(f"'no_target' is {reprlib.repr(nothing)}, expected true or false.")
    if nothing and ids in ((), NOTHING):
        return ()
    if nothing or not ids or min(ids) < 0:
        raise ValueError(
            f"'ann_id' is {ids} and 'no_target' is {nothing}, expected annotations and false, or"
            " (-1,) and true."
        )
    return ids

"""What annotation files say about one referent, before its picture is opened.

Every kind of data set (REFER folders, gRefCOCO, own folders) is read into `Annotations`; one set of
checks and one writer of array records take it from there.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Of a folder's files these are taken for pictures, whatever is in them.
ENDINGS = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"),
    *(".jp2", ".avif"),
)
Box = tuple[float, float, float, float]  # x, y, width, height, as COCO writes them


class NamedBox(tuple):
    """A Box whose key says what its numbers are: nobody need wonder whether they are corners."""


class Filled(list):
    """Polygon parts filled by the even-odd rule, edges included, as labelme and YOLO's readers do
    it; COCO's parts run around pixels instead of through them."""


Label = int | str | tuple[int | str, ...]  # a value of a mask picture, or its colour: "#ff0000"


@dataclass(frozen=True)
class MaskFile:
    """A mask as a picture, of two values; or of several, of which `label` names what is meant."""

    path: Path
    label: Label | None = None


# COCO polygons (a list of [x0, y0, x1, y1, …]), run lengths ({"size", "counts"}), a mask picture,
# or a box whose whole inside is meant.
Segmentation = list[Any] | dict[str, Any] | MaskFile | Box


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One referent: the objects that are meant, and all expressions that mean them."""

    name: str  # for error messages: "refcoco(unc) val ref_id 5", "train.jsonl line 7"
    split: str
    file_name: str  # of its picture, in the data set's `images`
    image_id: int | None  # COCO's; None where the picture's content is its only identity
    size: tuple[int, int] | None  # height, width that the annotations claim; None: the picture's
    # Their union is meant; () means that nothing is. None: the file that says it is missing, so the
    # entry can be checked but not built.
    segmentations: tuple[Segmentation, ...] | None
    boxes: tuple[Box, ...]  # that the annotations claim, one an object; () where they claim none
    expressions: tuple[str, ...]
    ref_id: int
    ann_ids: tuple[int, ...]
    sent_ids: tuple[int, ...]
    crowds: tuple[bool, ...] = ()  # which of `segmentations` COCO marks as crowds; () none
    units: str = "pixel"  # of polygons and boxes; see `Reading`
    orientation: str = "stored"  # the frame that they are drawn in; see `Reading`


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How annotations are to be understood, where that is a choice and no file says it."""

    crowds: str = "keep"  # objects that COCO marks as crowds: part of a mask, or "drop"
    units: str = "pixel"  # of polygons and boxes in own folders, or "fraction" of the picture
    orientation: str = "upright"  # own annotations are drawn on what viewers show, or "stored"
    captions: str = "needed"  # of own annotations; "optional" where only masks are learned


USUAL = Reading()
CHOICES = {
    "crowds": ("keep", "drop"),
    "units": ("pixel", "fraction"),
    "orientation": ("upright", "stored"),
    "captions": ("needed", "optional"),
}


@dataclass(frozen=True)
class Note:
    """What reading annotations has to say: a kind of remark, the record or file, one sentence."""

    kind: str
    name: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """All referents of one data set, in the order of its files."""

    dataset: str  # "refcoco(unc)", "grefcoco(unc)", "folder(my_photos)"
    splits: dict[str, tuple[Entry, ...]]
    sources: dict[str, Path]  # which file was read as what: "refs", "instances", …
    images: Path  # folder or zip file of the pictures
    reading: Reading = USUAL
    remarks: tuple[Note, ...] = ()  # what was understood, where it was written oddly
    left_out: tuple[Note, ...] = ()  # records that could not be read and were to be skipped

"""Which way up annotations were drawn: on a picture as viewers show it, or as it is stored.

A phone stores what its sensor saw, and says in EXIF how to turn it. COCO's masks are drawn on
stored pixels. Own annotations are drawn in viewers, which turn them, so upright is what they mean,
unless what they say of sizes and places fits only the stored picture.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from dit_jax.data.entries import Entry, MaskFile
from dit_jax.data.pixels.masks import MARGIN, in_pixels
from dit_jax.data.pixels.picture_size import Size, header

OVERSHOT = 0.01  # of a side: a hand that drew over the border, no sign of another frame


@dataclass(frozen=True)
class Frame:
    """How stored pixels are turned for an entry."""

    orientation: int  # EXIF's number for `from_pillow.turned`; 1 leaves them as they are stored
    size: Size  # height, width after that
    remark: str  # "" where nothing is odd


def frame(entry: Entry, *, stored: Size, orientation: int) -> Frame:
    """The frame that an entry means, of a picture of EXIF's `orientation`."""
    if orientation == 1:
        return Frame(1, stored, "")
    shown = stored if orientation < 5 else stored[::-1]
    if entry.image_id is not None:
        return Frame(1, stored, "its EXIF rotation is not applied, as COCO's masks want it.")
    frames = {"stored": Frame(1, stored, ""), "upright": Frame(orientation, shown, "")}
    asked = frames.pop(entry.orientation)
    ((name, other),) = frames.items()
    if _fits(entry, asked.size, over=OVERSHOT) or not _fits(entry, other.size):
        return asked
    sizes = "{}x{}, not {}x{} (height x width)".format(*other.size, *asked.size)
    text = f"fits {sizes}, so it is read as {name}."
    if name == "stored":
        text = text[:-1] + "; drawn upright? Leave height and width out."
    return Frame(other.orientation, other.size, text)


def _fits(entry: Entry, size: Size, *, over: float = 0.0) -> bool:
    """Whether a picture of this size can be the one that an entry speaks of, if its places may lie
    `over` a side, as a share of it."""
    height, width = size
    if any(claimed != size for claimed in _claimed(entry)):
        return False
    places = list(far_ends(in_pixels(entry, height=height, width=width)))
    most = width * (1 + over) + MARGIN, height * (1 + over) + MARGIN
    return all(x <= most[0] and y <= most[1] for x, y in places)


def _claimed(entry: Entry) -> Iterator[Size]:
    if entry.size is not None:
        yield entry.size
    files = [one.path for one in entry.segmentations or () if isinstance(one, MaskFile)]
    for path in (path for path in files if path.is_file()):
        with path.open("rb") as file:
            found = header(file)
        if found is not None:
            yield found[1]


def far_ends(entry: Entry) -> Iterator[tuple[float, float]]:
    """The far ends of polygons and boxes."""
    for x, y, width, height in entry.boxes:
        yield x + width, y + height
    for segmentation in entry.segmentations or ():
        for part in segmentation if isinstance(segmentation, list) else ():
            yield max(part[::2], default=0), max(part[1::2], default=0)

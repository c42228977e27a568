"""Mask pictures: which of their pixels are meant, by the values that are there.

Two values are a mask, whatever they are called (0 and 1, 0 and 255, transparent and opaque). What
was blurred, resized or compressed since is cut at half, and labels of several objects ask which one
is meant. What was not evident is said in a remark, and what is none of this is refused.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Int32, Integer, UInt8
from PIL import Image

from dit_jax.data.entries import Label, MaskFile
from dit_jax.data.from_pillow import exif_orientation
from dit_jax.data.pixels.decode import DAMAGED
from dit_jax.data.pixels.near_names import near
from dit_jax.data.pixels.picture_size import check_pixels, content, header
from dit_jax.strict import counted

Levels = Integer[np.ndarray, "H W"]  # as few bits as there are
Mask = Bool[np.ndarray, "H W"]
TURNED = "has an EXIF rotation, which is not applied to masks."
UNREADABLE = "cannot be read, expected a complete PNG."
IGNORE = 255  # palette index of what is neither inside nor outside: PASCAL VOC and many others
NEARLY = 8  # levels by which grey, and black, may be off
SPAN = 64  # levels between the two peaks of a blurred mask, at least
BLURRED = 4  # values of a blurred mask, at least: three are two objects, or a border
LABELS = 64  # values that may be labels; a photograph has more
SOLID = 0.1  # share of a label's pixels that are surrounded by the same label, at least
FEW = 0.01  # share of all such pixels below which they are accidents
SHOWN = 6  # values that a message spells out


@dataclass(frozen=True)
class MaskPicture:
    """What is meant, and a sentence for each thing that was not evident."""

    mask: Mask
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Values:
    """A picture as one number a pixel: a grey level, a palette's index, or 0xRRGGBB."""

    labels: Levels
    shades: Levels | None  # how bright pixels are; None of colours
    colours: dict[int, int] | None  # 0xRRGGBB of each label; None where labels are grey levels
    palette: bool
    cut_out: bool = False  # labels are opacities that are not in the pixels: no label names them

    def named(self, label: int) -> str:
        """As an annotation file writes it."""
        grey = self.colours is None or self.palette
        return str(label) if grey else f'"#{label:06x}"'


def read_mask(file: MaskFile) -> MaskPicture:
    """Raises ValueError, in one sentence with the path, for what is no mask."""
    if not file.path.is_file():
        raise ValueError(f"the mask picture {file.path} is missing{near(file.path)}.")
    try:
        image, bits = _open(file.path)
        turned = () if exif_orientation(image) == 1 else (TURNED,)
        if file.label is None:
            found = _meant(_cut_out(image, bits) or _values(image, bits))
            return MaskPicture(found.mask, found.remarks + turned)
        return MaskPicture(_picked(image, bits, file.label), turned)
    except ValueError as error:
        raise ValueError(f"the mask picture {file.path} {error}") from error


def _open(path: Path) -> tuple[Image.Image, int]:
    """The decoded picture and its bits a channel."""
    with path.open("rb") as file:
        data = content(file, path.stat().st_size, name="it")
    kind, size = header(data) or ("", (0, 0))
    if kind != "PNG":
        raise ValueError(UNREADABLE)
    check_pixels(*size, name="it")
    factory, _ = Image.OPEN[kind]
    try:
        image = factory(io.BytesIO(data), "")
        image.load()
    except DAMAGED as error:
        raise ValueError(UNREADABLE) from error
    return image, data[24]


def _values(image: Image.Image, bits: int) -> Values:
    if image.mode == "P":
        return _indices(image)
    pixels = np.asarray(image)
    pixels = pixels.view(np.uint8) if pixels.dtype == bool else pixels
    if pixels.ndim == 2:
        # Pillow stretches 2 and 4 bits to 8, but labels are what was written.
        step = 255 // (2**bits - 1) if bits in (2, 4) else 1
        return Values(pixels // step, pixels, None, palette=False)
    colour, alpha = pixels[..., : 3 if pixels.shape[2] > 2 else 1], pixels[..., -1]
    if pixels.shape[2] in (2, 4) and np.ptp(alpha):
        if not np.ptp(colour[alpha > 0], axis=0).any():  # whatever transparent ones are
            return Values(alpha, alpha, None, palette=False)
        colour = colour * (alpha > 0)[..., None]  # transparent is outside
    spread = _spread(colour)  # of small numbers, those of panoptic masks, it tells objects apart
    if spread == 0 or (spread <= NEARLY and colour.max() >= SPAN):
        return Values(colour[..., 0], colour[..., 0], None, palette=False)
    labels = _packed(colour)
    return Values(labels, None, {one: one for one, _ in _counted(labels)}, palette=False)


def _cut_out(image: Image.Image, bits: int) -> Values | None:
    """The opacity of a palette or by a tRNS chunk, where all that is opaque has one colour."""
    clear = image.info.get("transparency")
    if clear is None:
        return None
    if image.mode == "P":
        colour, alpha = np.split(np.asarray(image.convert("RGBA")), [3], axis=2)
        alpha = alpha[..., 0]
    else:
        colour = np.asarray(image).reshape(image.height, image.width, -1)
        clear = np.atleast_1d(clear)  # in the file's bits, not in Pillow's
        if image.mode in ("L", "RGB"):
            clear = clear >> 8 if bits == 16 else clear * (255 // (2**bits - 1))
        alpha = np.uint8(255) * (colour != clear.astype(colour.dtype)).any(axis=2)
    opaque = colour[alpha > 0]
    if not np.ptp(alpha) or (opaque != opaque[0]).any():
        return None
    return Values(alpha, alpha, None, palette=False, cut_out=True)


def _spread(colour: UInt8[np.ndarray, "H W c"]) -> int:
    """How far the channels of a pixel are apart, at most."""
    channels = cv2.split(np.ascontiguousarray(colour))
    return int((np.maximum.reduce(channels) - np.minimum.reduce(channels)).max())


def _indices(image: Image.Image) -> Values:
    labels, used = np.asarray(image), image.getpalette("RGB") or []
    table = np.zeros((256, 3), np.uint8)
    table[: len(used) // 3] = np.reshape(used, (-1, 3))
    there = [one for one, _ in _counted(labels)]
    grey = np.ptp(table[there], axis=1).max() <= NEARLY
    colours = dict(zip(there, _packed(table[there]).tolist(), strict=True))
    return Values(labels, table[labels][..., 0] if grey else None, colours, palette=True)


def _packed(colour: UInt8[np.ndarray, "*n 3"]) -> Int32[np.ndarray, "*n"]:
    red, green, blue = (colour[..., channel].astype(np.int32) for channel in range(3))
    return (red << 16) + (green << 8) + blue


def _picked(image: Image.Image, bits: int, label: Label) -> Mask:
    """The pixels of the labels that somebody named: numbers, or colours like "#ff0000"."""
    named = label if isinstance(label, tuple) else (label,)
    found = _values(image, bits)
    numbers = [one for one in named if isinstance(one, int)]
    colours = [int(one.removeprefix("#"), 16) for one in named if isinstance(one, str)]
    painted = _packed(np.asarray(image.convert("RGB")))
    if found.colours is not None and not found.palette:
        painted, numbers = found.labels, []  # of colours, no number says which
    parts = [found.labels == one for one in numbers] + [painted == one for one in colours]
    if len(parts) < len(named) or not all(part.any() for part in parts):
        raise ValueError(f"has no pixels of label {label!r}; it has {_listed(found)}.")
    return np.any(parts, axis=0)


def _meant(found: Values) -> MaskPicture:
    labels, remarks = found.labels, []
    there = sorted(one for one, _ in _counted(labels))
    if found.palette and IGNORE in there and len({*there} - {0, IGNORE}):
        count = int(np.count_nonzero(labels == IGNORE))
        remarks.append(
            f"has {counted(count, 'pixel')} of index 255, 'ignore': they count as outside."
        )
        there.remove(IGNORE)
    if len(there) == 1:
        mask = (labels == there[0]) & bool(there[0])
        return MaskPicture(mask, tuple(remarks))
    if len(there) == 2:
        inside = _object(found, *there)
        outside = sum(there) - inside
        mask = labels == inside
        if outside and not found.palette:
            remarks.append(f"has no pixel of 0; of {outside} and {inside}, {inside} is meant.")
        other = "turn it" if found.cut_out else f'write "label": {found.named(outside)}'
    else:
        mask, remark = _halved(found)
        remarks.append(remark)
        other = "turn it"
    if _looks_inverted(mask):
        remarks.append(f"covers most of the picture's border; if it is inverted, {other}.")
    return MaskPicture(mask, tuple(remarks))


def _object(found: Values, low: int, high: int) -> int:
    """Which of two labels is the object: what is not black, else the higher number."""
    if found.colours is None:
        return high
    for darkest in (0, NEARLY):
        black = [max(found.colours[one].to_bytes(3)) <= darkest for one in (low, high)]
        if black[0] != black[1]:
            return high if black[0] else low
    if not found.palette:
        raise ValueError(
            f"has two colours, neither of them black ({_listed(found)}); write which one is meant:"
            f' "label": {found.named(high)}.'
        )
    return high


def _halved(found: Values) -> tuple[Mask, str]:
    """A mask whose values lie around two peaks, cut at half; ValueError where there are no two."""
    shades = found.shades
    if shades is not None and _two_peaks(shades):
        low, high = int(shades.min()), int(shades.max())
        half, count = (low + high) / 2, len(_counted(shades))
        return (
            shades > half,
            f"has {count} values around {low} and {high}; above {half:g} is meant.",
        )
    values = [value for value, _ in _counted(found.labels)]
    hint = "."
    if len(values) <= LABELS and not found.cut_out:
        label = next(one for one in values if one not in (0, IGNORE))
        hint = f', or the one that is meant: "label": {found.named(label)}.'
    raise ValueError(f"has {counted(len(values), 'value')}: {_listed(found)}; expected two{hint}")


def _two_peaks(shades: Levels) -> bool:
    """Whether nearly everything is nearly the lowest or the highest value, as of one blurred mask.

    Labels are told apart by their solid areas: only one value may have such at either peak, and
    none between them.
    """
    low, high = int(shades.min()), int(shades.max())
    quarter = (high - low) / 4
    bottom, top = shades < low + quarter, shades > high - quarter
    between = shades.size - np.count_nonzero(bottom) - np.count_nonzero(top)
    clear = between <= min(np.count_nonzero(bottom), np.count_nonzero(top))
    if high - low < SPAN or len(_counted(shades)) < BLURRED or not clear:
        return False
    solid = _solid(shades)
    at_bottom, at_top = solid < low + quarter, solid > high - quarter
    one_each = max(at_bottom.sum(), at_top.sum()) <= 1
    return bool(one_each and (at_bottom | at_top).all())


def _solid(shades: Levels) -> Integer[np.ndarray, " n"]:
    """The values that fill areas."""
    levels, square = shades.astype(np.float32), np.ones((3, 3), np.uint8)
    even = shades[cv2.erode(levels, square) == cv2.dilate(levels, square)]
    own, least = dict(_counted(shades)), FEW * len(even)
    kept = [one for one, count in _counted(even) if count >= max(SOLID * own[one], least)]
    return np.array(kept, np.int64)


def _looks_inverted(mask: Mask) -> bool:
    """Few objects surround the rest of their picture."""
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    return bool(border.mean() > 0.5 and 0.5 < mask.mean() < 1)


def _counted(labels: Integer[np.ndarray, "*n"]) -> list[tuple[int, int]]:
    """Values and how many pixels have them, the most frequent first."""
    counts = np.bincount(labels.ravel())  # of at most 24 bits: no need to sort the pixels
    values = np.flatnonzero(counts)
    order = values[np.argsort(-counts[values], kind="stable")]
    return list(zip(order.tolist(), counts[order].tolist(), strict=True))


def _listed(found: Values) -> str:
    labels = _counted(found.labels)
    said = [f"{found.named(value)} ({count:,} px)" for value, count in labels[:SHOWN]]
    return ", ".join([*said, *(["…"] if len(labels) > SHOWN else [])])

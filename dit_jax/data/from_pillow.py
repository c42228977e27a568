"""A picture that Pillow opened, as RGB of 8 bits: upright, and whatever its bits were before.

Exported programs carry this file beside their runner, so it needs NumPy and Pillow alone; pictures
of more than 8 bits are read here wherever they are read, so that everybody sees the same pixels.
"""

import io

import numpy as np
from PIL import Image

DEPTHS = (8, 10, 12, 16)  # bits that sensors have, in files of 16
ORIENTATION = 0x0112  # EXIF's tag
# Where a picture says how it is turned, if it does: EXIF, XMP, AVIF's boxes.
MARKS = (b"Exif", b"eXIf", b"EXIF", b"exif", b"xmp", b"tiff:Orientation", b"irot", b"imir")


def rgb(image: Image.Image, *, orientation: int | None = None) -> tuple[np.ndarray, str]:
    """Upright pixels, uint8 [H, W, 3], and what was understood where that is not evident, or "".

    Transparency is left out. Raises ValueError for values that are no picture's, and what Pillow
    raises for damaged data.

    Args:
      orientation: how to turn what is stored; None as EXIF says.
    """
    pixels, remark = eight_bits(values(image))  # before EXIF: to look for it may decode a PNG
    return turned(pixels, orientation or exif_orientation(image)), remark


def values(image: Image.Image) -> np.ndarray:
    """Grey [H, W], or colours [H, W, 3], as they are stored, of as many bits as there are."""
    if image.mode[0] in "IF":  # 16 or 32 bits, or floats
        return np.asarray(image)
    raw = _raw_mode(image)
    if raw.rstrip("BLN") in ("RGB;16", "RGBA;16", "RGBX;16"):
        return _both_bytes(image, raw)[..., :3]
    if raw in ("jp2", "j2k") and image.mode[:3] in ("RGB", "YCb"):
        _check_jpeg_2000(image)
    pixels = np.asarray(image.convert("RGB"))
    if ";16" in raw and pixels.max() < 16:  # the upper bytes alone
        raise ValueError(f"it uses at most 12 of its 16 bits, as {raw}; save it as grey or RGB")
    return pixels


def eight_bits(values: np.ndarray) -> tuple[np.ndarray, str]:
    """Values as RGB from 0 to 255, and a remark where it is not evident which value is white.

    Bytes stay as they are, whole numbers of 16 bits lose the lower 8. Where no value needs more
    than 8, 10 or 12 bits, the sensor had no more: the upper 8 of these are kept. Floats are from 0
    to 1, to 255 or to 65535.
    """
    if values.dtype == np.uint8:
        return values, ""
    eight, remark = _eight_bits(values)
    return eight if eight.ndim == 3 else np.repeat(eight[..., None], 3, axis=2), remark


def _eight_bits(values: np.ndarray) -> tuple[np.ndarray, str]:
    low, high = float(values.min()), float(values.max())
    floats = values.dtype.kind == "f"
    if not (low >= 0 and high <= 65535) or (floats and 1 < high < 16):  # NaN is neither
        raise ValueError(f"it has values from {low:g} to {high:g}; expected 0 to 1, 255 or 65535")
    if floats and high <= 255:
        white = 1 if high <= 1 else 255
        remark = f"has floats from {low:g} to {high:g}; {white} is read as white."
        return np.rint(values * (255 / white)).astype(np.uint8), remark
    bits = next(bits for bits in DEPTHS if high < 2**bits)
    remark = f"has 16 bits, of which {bits} are used; {2**bits - 1} is read as white."
    eight = (values.astype(np.uint16) >> (bits - 8)).astype(np.uint8)
    return eight, remark if bits < 16 and high else ""


def exif_orientation(image: Image.Image) -> int:
    """1 … 8: how the stored pixels are to be turned, see `turned`; 1 is not at all."""
    if image.format == "TIFF":  # which every reader turns by itself
        return 1
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except (SyntaxError, ValueError, KeyError, IndexError, TypeError, OSError, EOFError):
        return 1  # damaged, as viewers see it
    return found if found in range(1, 9) else 1


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels as viewers show them."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _raw_mode(image: Image.Image) -> str:
    """What a file that is not yet decoded holds: "RGB;16B"; "" of anything else."""
    tile = getattr(image, "tile", None)
    arguments = tile[0].args if tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _both_bytes(image: Image.Image, raw: str) -> np.ndarray:
    """Colours of 16 bits, of which Pillow 13 keeps the upper byte; told that the file has the other
    byte first, it keeps the lower one."""
    image.fp.seek(0)
    again = type(image)(io.BytesIO(image.fp.read()), "")
    again.seek(image.tell())
    lower = raw[: raw.index(";16")] + (";16L" if raw.endswith("B") else ";16B")
    again.tile = [
        tile._replace(args=(lower, *tile.args[1:]) if isinstance(tile.args, tuple) else lower)
        for tile in again.tile
    ]
    image.load()
    again.load()  # here and not in NumPy, which takes an error for something that is no array
    return np.asarray(image).astype(np.uint16) << 8 | np.asarray(again)


def _check_jpeg_2000(image: Image.Image) -> None:
    """Raise ValueError for colours of more than 8 bits: white would become black in Pillow 13."""
    image.fp.seek(0)
    data = image.fp.read()
    depth = data[data.index(b"\xff\x51") :][40:41]  # Ssiz, of the first channel
    if not depth:
        raise ValueError("its header is cut short")
    if depth[0] & 127 >= 8:
        raise ValueError("it is a JPEG 2000 in colour of more than 8 bits; save it as PNG or TIFF")

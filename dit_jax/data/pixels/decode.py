"""An encoded picture as RGB pixels: by OpenCV, or by Pillow where there may be more than 8 bits."""

import io
import struct
import zlib

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from dit_jax.data import from_pillow

# What both OpenCV decodes and Pillow reads the header of.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
# What Pillow's readers raise where a header is broken; warnings, where somebody makes them errors.
BROKEN = (
    *(SyntaxError, IndexError, TypeError, struct.error),
    *(OSError, ValueError, KeyError, EOFError, OverflowError, MemoryError, RuntimeError),
    *(Warning, Image.DecompressionBombError),  # of a frame larger than its picture
)
# What Pillow raises for damaged data, as far as it is known.
DAMAGED = (OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error, zlib.error, Warning)
HEIC = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")  # ISO 23008-12
PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
REDUCED = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,  # the flag without a color
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
# TIFF and BigTIFF, JPEG 2000 as file and as stream, PPM and PGM: of any number of bits.
MAYBE_DEEP = (
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    *(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
    *(b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"P7"),
)


def decode_image(
    data: bytes, *, name: str, orientation: int = 1, reduced: int = 1
) -> UInt8[np.ndarray, "H W 3"]:
    """Decode an encoded picture to RGB of 8 bits; `name` is for errors.

    Pixels come as they are stored, because COCO's masks are drawn on these, unless `orientation`
    (EXIF's number) turns them. Grey and CMYK come out as RGB, more bits as
    `from_pillow.eight_bits` says; transparency is left out.

    Of a JPEG, `reduced` = 2, 4 or 8 gives sides divided by it, rounded up, in less time: the
    decoder makes each block smaller.
    """
    if is_deep(data) and (found := opened(data)) is not None:
        return by_pillow(found[1], name=name, orientation=orientation)[0]
    pixels = _by_opencv(data, reduced)
    if pixels is None:
        problem = or_heic(data, "cannot be decoded")
        raise ValueError(
            f"{name}: the picture ({len(data)} bytes) {problem}; expected a complete JPEG, PNG or"
            " other picture that OpenCV reads."
        )
    return pixels if orientation == 1 else from_pillow.turned(pixels, orientation)


def by_pillow(
    image: Image.Image, *, name: str, orientation: int | None = None
) -> tuple[UInt8[np.ndarray, "H W 3"], str]:
    """`from_pillow.rgb`, with its errors as a ValueError of one sentence."""
    try:
        return from_pillow.rgb(image, orientation=orientation)
    except DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{name} cannot be read as RGB: {reason}.") from error


def depth(data: bytes, *, name: str) -> str:
    """What is to be said of a picture's bits, or "": only pictures of more than 8 are decoded."""
    found = opened(data) if is_deep(data) else None
    return by_pillow(found[1], name=name, orientation=1)[1] if found else ""


def or_heic(data: bytes, problem: str) -> str:
    """A problem with something that is no picture, or that it is one of an iPhone."""
    heic = data[4:8] == b"ftyp" and data[8:12] in HEIC
    return "is HEIC, which is not read" if heic else problem


def is_deep(data: bytes) -> bool:
    """Whether a picture may have more than 8 bits a channel."""
    return data.startswith(MAYBE_DEEP) or (data.startswith(PNG) and data[24:25] == b"\x10")


def opened(data: bytes | io.BufferedIOBase) -> tuple[str, Image.Image] | None:
    """The format, and a picture that Pillow has not decoded yet; None for no picture.

    Not through `Image.open`, whose own limit warns or raises below `picture_size.LARGEST`.
    """
    Image.init()
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    begins = file.read(16)
    for kind in FORMATS:
        factory, accepts = Image.OPEN.get(kind, (None, None))
        try:
            # A text instead of True says that this Pillow was built without the format.
            if factory is not None and accepts(begins) is True:
                file.seek(0)
                return kind, factory(file, "")
        except BROKEN:
            continue
    return None


def _by_opencv(data: bytes, reduced: int) -> UInt8[np.ndarray, "H W 3"] | None:
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | REDUCED[reduced]
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:  # it claims to be larger than OpenCV decodes
        return None

"""How large an encoded picture is, from its header where it is evidently complete.

Reading a header takes microseconds, decoding milliseconds; with 20,000 pictures that is the
difference between a check and a coffee break. Everything is decoded once while records are built.

A header is also where a decompression bomb shows: a few bytes that claim more pixels than fit into
memory are refused before anything is decoded.
"""

import io

from dit_jax.data import from_pillow
from dit_jax.data.pixels.decode import decode_image, opened

Size = tuple[int, int]  # height, width, of the pixels as they are stored
LAST = {
    "JPEG": b"\xff\xd9",
    "PNG": b"IEND\xaeB`\x82",
}  # what a picture that was not cut off ends on
ENDING = 64  # bytes of padding that may follow
LARGEST = 200_000_000  # pixels: the largest sensors of phones; 600 MB as RGB
LARGEST_FILE = 6 * LARGEST + 2**20  # bytes: as many pixels of 16 bits, uncompressed
LARGE = 2**26  # bytes: of a file of more, the header says first what to expect
DEEPEST = 16  # bytes a pixel: four channels of 32 bits, uncompressed


def picture_size(data: bytes, *, name: str) -> Size:
    """Height and width of a JPEG, PNG or other picture.

    Raises ValueError where it cannot be decoded, or claims to have more than `LARGEST` pixels.
    """
    found = header(data)
    if found is None:
        return decode_image(data, name=name).shape[:2]
    kind, size = found
    check_pixels(*size, name=name)
    if kind in LAST and LAST[kind] in data[-ENDING:]:
        return size
    return decode_image(data, name=name).shape[:2]


def header(data: bytes | io.BufferedIOBase) -> tuple[str, Size] | None:
    """The format and the size that a picture claims, without decoding it; None for no picture.

    Of a file no more is read than that takes.
    """
    if (found := opened(data)) is None:
        return None
    kind, image = found
    with image:
        return kind, (image.height, image.width)


def content(file: io.BufferedIOBase, size: int, *, name: str) -> bytes:
    """All of a file of `size` bytes; ValueError where its picture cannot need as many."""
    if size > LARGE:
        found = header(file)
        if found is None:
            raise ValueError(f"{name} has {size} bytes and does not begin as a picture does.")
        height, width = found[1]
        check_pixels(height, width, name=name)
        if size > min(LARGEST_FILE, LARGE + DEEPEST * height * width):
            raise ValueError(
                f"{name} has {size} bytes, which are too many for a picture of {height}x{width}"
                " (height x width)."
            )
        file.seek(0)
    return file.read(size)


def orientation(data: bytes) -> int:
    """EXIF's number: how viewers turn a picture; see `from_pillow.turned`. 1 is not at all."""
    if not any(mark in data for mark in from_pillow.MARKS) or (found := opened(data)) is None:
        return 1
    with found[1] as image:
        return from_pillow.exif_orientation(image)


def check_pixels(height: int, width: int, *, name: str) -> None:
    """Raise ValueError for a picture that is too large to decode within reasonable memory."""
    if height * width > LARGEST:
        raise ValueError(
            f"{name} is {height}x{width} (height x width), which is more than"
            f" {LARGEST // 1_000_000} megapixels; expected a smaller picture."
        )

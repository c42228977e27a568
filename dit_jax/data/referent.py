"""What every data set yields: one object of one picture, with all the expressions that name it.

Also how its picture and its mask are stored: encoded bytes, and COCO's compressed run lengths.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Bool, Int, UInt8
from pycocotools import mask as rle


@dataclass(frozen=True)
class Referent:
    """One object, at the picture's own size.

    `id` names the record in error messages; `image_id` groups the referents of one photograph.
    """

    image: UInt8[np.ndarray, "H W 3"]  # RGB
    mask: Bool[np.ndarray, "H W"]
    expressions: tuple[str, ...]
    id: str
    image_id: int

    def __post_init__(self):
        if self.mask.shape != self.image.shape[:2]:
            raise ValueError(
                f"{self.id}: the mask is {self.mask.shape[0]}x{self.mask.shape[1]} (height x width)"
                f" but the picture is {self.image.shape[0]}x{self.image.shape[1]}."
            )
        if not self.expressions:
            raise ValueError(f"{self.id}: expected at least one expression, found none.")


@runtime_checkable
class Source(Protocol):
    """Random access to the referents of one split."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Referent: ...

    def expression_counts(self) -> Int[np.ndarray, " n"]:
        """How many expressions each referent has, without decoding any picture."""
        ...


def decode_image(data: bytes, *, name: str) -> UInt8[np.ndarray, "H W 3"]:
    """Decode an encoded picture to RGB, exactly as its pixels are stored; `name` is for errors.

    EXIF orientation is ignored: the masks of COCO are drawn on the unrotated pixels. Grey, CMYK
    and 16-bit pictures come out as 8-bit RGB.
    """
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if image is None:
        raise ValueError(
            f"{name}: the picture ({len(data)} bytes) cannot be decoded; expected a complete JPEG,"
            " PNG or other picture that OpenCV reads."
        )
    return image


def encode_mask(segmentation: Any, *, height: int, width: int) -> bytes:
    """COCO polygons (their union), or run lengths of a crowd, to compressed run lengths."""
    if isinstance(segmentation, list):
        return rle.merge(rle.frPyObjects(segmentation, height, width))["counts"]
    if segmentation["size"] != [height, width]:
        raise ValueError(
            f"the mask is {segmentation['size'][0]}x{segmentation['size'][1]} (height x width) but"
            f" the picture is {height}x{width}"
        )
    counts = segmentation["counts"]
    if isinstance(counts, list):
        return rle.frPyObjects(segmentation, height, width)["counts"]
    return counts.encode() if isinstance(counts, str) else counts


def decode_mask(counts: bytes, *, height: int, width: int) -> Bool[np.ndarray, "H W"]:
    """Compressed run lengths to a mask."""
    return rle.decode({"size": [height, width], "counts": counts}).astype(bool)

"""What every data set yields: one object of one picture, with all the expressions that name it.

Also how its picture becomes pixels.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Bool, Int, UInt8


@dataclass(frozen=True)
class Truth:
    """What a referent is without its picture: mask at the picture's size, and expressions.

    `id` names the record in error messages; `image_id` groups the referents of one photograph. An
    empty mask means that the expressions fit nothing in the picture.
    """

    mask: Bool[np.ndarray, "H W"]
    expressions: tuple[str, ...]
    id: str
    image_id: int


@dataclass(frozen=True)
class Referent:
    """One or several objects that an expression means, at the picture's own size; see `Truth`."""

    image: UInt8[np.ndarray, "H W 3"]  # RGB
    mask: Bool[np.ndarray, "H W"]
    expressions: tuple[str, ...]
    id: str
    image_id: int

    def truth(self) -> Truth:
        """Without the picture."""
        return Truth(self.mask, self.expressions, self.id, self.image_id)

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

    def truth(self, index: int) -> Truth:
        """Like `self[index].truth()`, without decoding the picture where that can be avoided."""
        ...

    def expression_counts(self) -> Int[np.ndarray, " n"]:
        """How many expressions each referent has, without decoding any picture."""
        ...

    def image_ids(self) -> Int[np.ndarray, " n"]:
        """Which photograph each referent is of, without decoding any picture; int64.

        Equal numbers mean the same photograph, also across splits and data sets.
        """
        ...


@runtime_checkable
class Stated(Protocol):
    """A Source that says what scores on it depend on, beside the protocol, like `Records`."""

    def remarks(self) -> dict[str, str]: ...


def decode_image(data: bytes, *, name: str, upright: bool = False) -> UInt8[np.ndarray, "H W 3"]:
    """Decode an encoded picture to RGB; `name` is for errors.

    Pixels come as they are stored: EXIF orientation is ignored, because the masks of COCO are drawn
    on the unrotated pixels. `upright` turns them as viewers do. Grey, CMYK and 16-bit pictures come
    out as 8-bit RGB; transparency is left out.
    """
    flags = cv2.IMREAD_COLOR_RGB | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:  # it claims to be larger than OpenCV decodes
        image = None
    if image is None:
        raise ValueError(
            f"{name}: the picture ({len(data)} bytes) cannot be decoded; expected a complete JPEG,"
            " PNG or other picture that OpenCV reads."
        )
    return image

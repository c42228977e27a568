"""A referent as records hold it: its picture encoded, its mask as run lengths.

`image` and `mask` are decoded when they are asked for, whole and exact. Training, which varies
pictures anyway, asks for both at the size that they are to have, which takes less.
"""

from functools import cached_property

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from dit_jax.data.pixels import run_lengths
from dit_jax.data.pixels.decode import JPEG, decode_image
from dit_jax.data.pixels.picture_size import Size
from dit_jax.data.pixels.transforms import resize
from dit_jax.data.referent import Referent

REDUCED = (8, 4, 2)  # by what JPEG is decoded smaller
# EXIF's orientations by which the last row, or the last column, of either comes first.
TURNED_UP, TURNED_LEFT = (3, 4, 7, 8), (2, 3, 6, 7)


class Stored(Referent):
    """A Referent; a mask that does not fit raises ValueError at once, a picture when it is read."""

    def __init__(
        self,
        picture: bytes,
        counts: bytes,
        *,
        size: Size,
        expressions: tuple[str, ...],
        id: str,
        image_id: int,
        orientation: int = 1,
    ):
        """Of a picture that has `size` as `orientation` turns it, and that mask's run lengths."""
        try:
            runs = run_lengths.checked(counts, height=size[0], width=size[1])
        except ValueError as error:
            raise ValueError(f"{id}: {error}") from error
        about = dict(size=size, expressions=expressions, id=id, image_id=image_id)
        vars(self).update(about, _picture=picture, _runs=runs, _orientation=orientation)

    @cached_property
    def image(self) -> UInt8[np.ndarray, "H W 3"]:
        return self._decoded(1)

    @cached_property
    def mask(self) -> Bool[np.ndarray, "H W"]:
        return run_lengths.filled(self._runs, height=self.size[0], width=self.size[1])

    @property
    def present(self) -> bool:
        return bool(self._runs[1::2].any())

    def fitted(self, to: Size) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
        """Picture and mask times 255 at another size, nearly as if they were resized from whole.

        A JPEG that is at least twice as large is decoded at a half, a quarter or an eighth first.
        """
        times = min(whole / side for whole, side in zip(self.size, to, strict=True))
        small = self._picture.startswith(JPEG) and times >= REDUCED[-1]
        reduced = next(n for n in REDUCED if n <= times) if small else 1
        (height, width), (h, w) = self.size, to
        mask = run_lengths.resized(self._runs, height=height, width=width, to=to)
        image = self._decoded(reduced)
        if reduced == 1:
            return resize(image, to), mask
        # Its last row and column before it is turned may reach beyond the picture; that is cut off.
        scales = dict(fx=w * reduced / width, fy=h * reduced / height)
        found = cv2.resize(image, None, **scales, interpolation=cv2.INTER_LINEAR)
        top = found.shape[0] - h if self._orientation in TURNED_UP else 0
        left = found.shape[1] - w if self._orientation in TURNED_LEFT else 0
        return found[top : top + h, left : left + w], mask

    def _decoded(self, reduced: int) -> UInt8[np.ndarray, "h w 3"]:
        about = dict(name=self.id, orientation=self._orientation)
        image = decode_image(self._picture, **about, reduced=reduced)
        if image.shape[:2] != tuple(-(-side // reduced) for side in self.size):
            height, width = self.size
            raise ValueError(
                f"{self.id}: the mask is {height}x{width} (height x width) but the picture is"
                f" {image.shape[0]}x{image.shape[1]}."
            )
        return image

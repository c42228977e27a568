"""What the server keeps open between requests: the latest pictures, and no more.

Who opened one gets to know it by an id that cannot be guessed.
"""

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from dit_jax.data.pixels import header, pictures
from dit_jax.predict import Picture, Segmenter
from dit_jax.serve.schema import LARGEST_PICTURE

LARGEST = 50_000_000  # pixels of a picture: 150 MB as RGB while it is opened
SMALLEST_VIEW, LARGEST_VIEW = 512, 1280  # pixels of the longer side, as the page shows it
JPEG_QUALITY = 90


class Gone(LookupError):
    """What an id meant is not kept any more, or never was."""


class LruCache:
    """At most `most` values, each under an id of its own; the ones used least recently go first."""

    def __init__(self, most: int, *, sentence: str):
        self._most, self._sentence = most, sentence
        self._kept: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, value: Any) -> str:
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._kept[key] = value
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return key

    def __getitem__(self, key: str) -> Any:
        """Raises Gone, with a sentence."""
        with self._lock:
            if key not in self._kept:
                raise Gone(self._sentence)
            self._kept.move_to_end(key)
            return self._kept[key]

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)


@dataclass(frozen=True, eq=False)
class OpenPicture:
    """An opened picture and what the page shows of it."""

    picture: Picture
    jpeg: bytes = field(repr=False)
    view: tuple[int, int]  # width, height of the JPEG
    drawn: bytes | None = field(default=None, repr=False)  # as a PNG, where nobody has a file of it


def pixels_of(data: bytes, *, most: int = LARGEST) -> pictures.Rgb:
    """Raises ValueError, in a sentence, for what is no picture or has more than `most` pixels."""
    if not data:
        raise ValueError("nothing arrived; expected the bytes of a picture.")
    if len(data) > LARGEST_PICTURE:
        raise ValueError(
            f"the picture has more than {LARGEST_PICTURE // 2**20} MB; expected a smaller file."
        )
    found = header(data)
    if found is not None:
        height, width = found[1]
        if height * width > most:
            raise ValueError(
                f"the picture has {width} × {height} pixels; expected at most"
                f" {most // 1_000_000} megapixels here."
            )
    return pictures.rgb(data, name="this file")


def show(pixels: pictures.Rgb, segmenter: Segmenter, *, drawn: bool = False) -> OpenPicture:
    picture = segmenter.open(pixels, name="the picture")
    view = _viewed(pixels)
    jpeg = _encoded(view, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    size = view.shape[1], view.shape[0]
    return OpenPicture(picture, jpeg, size, _encoded(pixels, ".png", []) if drawn else None)


def _encoded(pixels: pictures.Rgb, kind: str, how: list[int]) -> bytes:
    _, data = cv2.imencode(kind, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), how)
    return data.tobytes()


def _viewed(pixels: pictures.Rgb) -> UInt8[np.ndarray, "h w 3"]:
    """Within the sizes that can be looked at; tiny pictures become larger."""
    longer = max(pixels.shape[:2])
    ratio = min(max(longer, SMALLEST_VIEW), LARGEST_VIEW) / longer
    if ratio == 1:
        return pixels
    height, width = (max(1, round(side * ratio)) for side in pixels.shape[:2])
    if ratio > 1:
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC)
    while min(pixels.shape[0] / height, pixels.shape[1] / width) >= 2:
        # Halves first: OpenCV is quick at squares of whole pixels.
        half = [(side + 1) // 2 for side in pixels.shape[1::-1]]
        pixels = cv2.resize(pixels, half, interpolation=cv2.INTER_AREA)
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)

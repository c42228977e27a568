"""Pictures of one split that look like another's: copies that were saved anew, in other bytes.

Such a copy keeps the averages of 16 x 16 fields but for rounding. They have to be alike with
and without what most pictures of a data set have in common: a round field of view makes no copy.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations

import cv2
import numpy as np
from jaxtyping import Float32

from dit_jax.data.from_pillow import turned
from dit_jax.data.pixels import Size

Fields = Float32[np.ndarray, "256"]
SIDE = 16
JPEG = b"\xff\xd8"
LARGE = 256  # pixels of the shorter side, from which its blocks of 8 x 8 are enough
ALIKE = 0.99  # correlation from which two are one; docs/own-data.md says what was measured
FEW = 10  # blank pictures that count into the average, which of two copies alone is the copy
FAINT = 1.0  # grey levels, of 255: what is left of a picture that is nearly the average
BLOCK = 512  # pictures that are compared with all others at once


def fields(data: bytes, *, size: Size, orientation: int) -> Fields | None:
    """Greys of an encoded picture, upright, from left to right and down; None where none are had.

    Args:
      size: height and width, as they are stored.
    """
    large = data.startswith(JPEG) and min(size) >= LARGE  # others would be decoded all the same
    scale = cv2.IMREAD_REDUCED_GRAYSCALE_8 if large else cv2.IMREAD_GRAYSCALE
    try:
        grey = cv2.imdecode(np.frombuffer(data, np.uint8), scale | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # it claims to be larger than OpenCV decodes
        return None
    if grey is None:
        return None
    rows, columns = map(_shares, size, grey.shape)
    small = turned(rows @ grey.astype(np.float32) @ columns.T, orientation)
    return small.ravel()


def _shares(length: int, count: int) -> Float32[np.ndarray, "16 n"]:
    """How much each field takes of `count` pixels, 1 or 8 long, of which the last may be cut."""
    pixels = np.minimum(np.arange(count + 1) * -(-length // count), length)
    edges = np.linspace(0, length, SIDE + 1)[:, None]
    shares = np.minimum(edges[1:], pixels[1:]) - np.maximum(edges[:-1], pixels[:-1])
    return (shares.clip(0) * SIDE / length).astype(np.float32)


def alike(splits: Mapping[str, Mapping[str, Fields]]) -> Iterator[tuple[str, str, str, str]]:
    """Split and name of a picture, and of the one that looks most like it in an earlier split.

    Args:
      splits: fields by split and name. A name that is in both splits is one picture, not two.
    """
    pictures = [(split, name) for split, found in splits.items() for name in found]
    every = np.array([splits[split][name] for split, name in pictures], np.float32)
    every = every.reshape(-1, SIDE * SIDE)
    every -= every.mean(1, keepdims=True)
    units = _units(every), _units(every - every.sum(0) / (len(every) + FEW))
    of = np.array([split for split, _ in pictures])
    for a, b in combinations([split for split in splits if splits[split]], 2):
        theirs, ours = np.flatnonzero(of == a), np.flatnonzero(of == b)
        for block in np.array_split(ours, -(-len(ours) // BLOCK)):
            best = theirs[(units[1][block] @ units[1][theirs].T).argmax(1)]
            close = np.minimum(*((unit[block] * unit[best]).sum(1) for unit in units)) >= ALIKE
            for i, j in zip(block[close], best[close], strict=True):
                if (name := pictures[i][1]) not in splits[a]:
                    yield b, name, a, pictures[j][1]


def _units(every: Float32[np.ndarray, "n 256"]) -> Float32[np.ndarray, "n 256"]:
    """Of length 1, or 0 where they are nearly nothing."""
    strength = np.linalg.norm(every, axis=1, keepdims=True)
    return every / np.where(strength > FAINT * SIDE, strength, np.inf)

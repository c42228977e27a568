"""Label Studio's run lengths of brushes, as its own SDK decodes them (thi.ng's `rle-pack`).

A stream of bits, the highest first: 32 of the count of values, 5 of a value's bits less one, four
times 4 of the bits that a length may have, less one. Then come runs: 1, two bits that choose how
many bits the length has, the length less one, the value. Values are the picture's RGBA bytes.
"""

import numpy as np
from jaxtyping import Bool, UInt8

CHANNELS, INSIDE = 4, 255
WORD = 8  # bits of a value
SIZES = np.array([3, 4, 8, 16])  # bits of a length
LONGEST = 2 ** int(SIZES[-1])


def encode(mask: Bool[np.ndarray, "H W"]) -> list[int]:
    """Bytes as Label Studio's JSON has them."""
    flat = mask.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=~flat[:1]))
    lengths = CHANNELS * np.diff(starts, append=flat.size)
    pieces = -(-lengths // LONGEST)  # of a run that one length cannot say
    values = np.repeat(np.where(flat[starts], INSIDE, 0), pieces)
    said = np.full(pieces.sum(), LONGEST)
    said[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * LONGEST
    header = _bits(
        np.array([CHANNELS * flat.size, WORD - 1, *(SIZES - 1)]), np.array([32, 5, 4, 4, 4, 4])
    )
    return np.packbits(np.concatenate([header, _runs(said, values)])).tolist()


def _runs(lengths: np.ndarray, values: np.ndarray) -> UInt8[np.ndarray, " n"]:
    kind = np.searchsorted(2**SIZES, lengths)
    size = SIZES[kind]
    word = (((0b100 | kind) << size) | (lengths - 1)) << WORD | values
    return _bits(word, 3 + size + WORD)


def _bits(numbers: np.ndarray, widths: np.ndarray) -> UInt8[np.ndarray, " n"]:
    """The lowest bits of each number, one after another."""
    bits = np.unpackbits(numbers.astype(">u4").view(np.uint8)).reshape(-1, 32)
    return bits[np.arange(32) >= 32 - widths[:, None]]

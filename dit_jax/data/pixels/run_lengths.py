"""COCO's compressed run lengths to a mask, in NumPy.

The runs go down the columns of the picture, outside and inside in turn. Each is written as a number
with sign in characters from "0" on: 5 bits each, lowest first, while bit 6 says that more follow.
From the fourth run on it is the difference to the run before the last. pycocotools reads the same,
three times slower, and writes past the end of its memory where the runs do not fit the picture.
"""

import math

import cv2
import numpy as np
from jaxtyping import Bool, Int, UInt8

LONGEST = 7  # characters of a number: a run of 2**34 pixels


def decode(counts: bytes, *, height: int, width: int) -> Bool[np.ndarray, "H W"]:
    """The mask, contiguous by rows; raises ValueError where the runs do not fill the picture."""
    return filled(checked(counts, height=height, width=width), height=height, width=width)


def checked(counts: bytes, *, height: int, width: int) -> Int[np.ndarray, " n"]:
    """Lengths of the runs; raises ValueError where they do not fill the picture."""
    lengths = runs(counts)
    if lengths.min() < 0 or lengths.sum() != height * width:
        raise ValueError(
            f"the mask's run lengths do not add up to the {height * width} pixels of a"
            f" {height}x{width} (height x width) picture."
        )
    return lengths


def filled(lengths: Int[np.ndarray, " n"], *, height: int, width: int) -> Bool[np.ndarray, "H W"]:
    """The mask of `checked` runs."""
    mask = np.zeros((height, width), np.uint8)
    if len(lengths) > 1:
        left, right = _extent(lengths, height=height)
        mask[:, left:right] = cv2.transpose(_columns(lengths, left, right, height=height))
    return mask.view(np.bool_)


def resized(
    lengths: Int[np.ndarray, " n"], *, height: int, width: int, to: tuple[int, int]
) -> UInt8[np.ndarray, "h w"]:
    """The mask of `checked` runs times 255, resized bilinearly without being there at full size.

    As `cv2.resize` does it but for roundings, because columns come first here.
    """
    h, w = to
    soft = np.zeros(to, np.uint8)
    if len(lengths) > 1:
        left, right = _extent(lengths, height=height)
        common = math.gcd(width, w)  # both grids meet again after so many parts of either
        start = max(0, left - 1) * common // width  # one column more on either side, of zeros
        left = start * width // common
        # At least what becomes one column; to the right there are as many, since grids meet there.
        right = min(width, max(right + 1, left - (-width // w)))
        if h == height:  # OpenCV would copy what need not be resized otherwise
            start, left, right = 0, 0, width
        columns = _columns(lengths, left, right, height=height) * np.uint8(255)
        how = dict(fx=h / height, fy=w / width, interpolation=cv2.INTER_LINEAR)
        found = cv2.transpose(cv2.resize(columns, None, **how))
        start = start * w // common
        soft[:, start : start + found.shape[1]] = found
    return soft


def _extent(lengths: Int[np.ndarray, " n"], *, height: int) -> tuple[int, int]:
    """The first column with a pixel inside, and the one after the last: the rest stays zero."""
    inside = len(lengths) - len(lengths) % 2  # runs, without one outside at the end
    return int(lengths[0]) // height, -(-int(lengths[:inside].sum()) // height)


def _columns(
    lengths: Int[np.ndarray, " n"], left: int, right: int, *, height: int
) -> UInt8[np.ndarray, "k H"]:
    """Columns from `left` to `right`, outside of which there is nothing; each a row of 0 and 1."""
    lengths = lengths.copy()
    lengths[0] -= left * height
    if len(lengths) % 2:
        lengths[-1] -= lengths.sum() - (right - left) * height
    values = np.arange(len(lengths), dtype=np.uint8) & 1
    return np.repeat(values, lengths).reshape(right - left, height)


def runs(counts: bytes) -> Int[np.ndarray, " n"]:
    """Lengths of the runs; raises ValueError where `counts` is no such text."""
    codes = np.frombuffer(counts, np.uint8) - np.uint8(ord("0"))  # wraps below "0", to above 63
    last = np.flatnonzero(codes < 32)  # character of each number
    sizes = last.copy()
    sizes[1:] -= last[:-1]
    sizes[:1] += 1
    complete = len(last) and last[-1] == len(codes) - 1
    if not complete or codes.max() > 63 or sizes.max() > LONGEST:
        raise ValueError("the mask's run lengths are damaged, expected COCO's compressed counts.")
    numbers = codes[last].astype(np.int64)
    numbers -= (numbers & 16) << 1
    for before in range(1, int(sizes.max())):  # the highest bits came last
        longer = np.flatnonzero(sizes > before)
        lower = codes[last[longer] - before] & 31
        numbers[longer] = (numbers[longer] << 5) + lower
    np.cumsum(numbers[1::2], out=numbers[1::2])
    np.cumsum(numbers[2::2], out=numbers[2::2])
    return numbers

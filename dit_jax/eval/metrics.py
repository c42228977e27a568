"""Intersection over union, added up exactly: oIoU, mIoU and P@X of any number of mask pairs.

oIoU (= cIoU) is the sum of all intersections over the sum of all unions, mIoU (= gIoU) the mean of
the pairs' IoUs, P@X the share of pairs with IoU > X (strictly).

Everything added up is an integer. So the scores do not depend on the order of the pairs, on the
batch size, or on how many hosts share the work.

A pair of two empty masks has IoU 1: nothing was there and nothing was found, as the protocols of
LISA and gRefCOCO have it. Only data with empty truths, like gRefCOCO, ever meets the case. An empty
prediction of a real object, or the reverse, has IoU 0.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

THRESHOLDS = (50, 60, 70, 80, 90)  # the X of P@X, in percent

# One IoU of 1, as an integer. It rounds an IoU by less than 1e-12 and lets eight million pairs
# add up within an int64.
ONE = 1 << 40

Scores = dict[str, float | int | str]


@dataclass(frozen=True, kw_only=True)
class Sums:
    """What mask pairs add up to; `Sums()` is none of them and `+` joins two lots."""

    n: int = 0
    intersections: int = 0  # pixels
    unions: int = 0  # pixels
    ious: int = 0  # in units of 1 / ONE
    above: tuple[int, ...] = (0,) * len(THRESHOLDS)  # pairs whose IoU is above each threshold

    @classmethod
    def of(cls, predicted: Bool[np.ndarray, "H W"], truth: Bool[np.ndarray, "H W"]) -> "Sums":
        """The sums of one pair."""
        i = int(np.count_nonzero(predicted & truth))
        u = int(np.count_nonzero(predicted | truth))
        top, bottom = (i, u) if u else (1, 1)
        return cls(
            n=1,
            intersections=i,
            unions=u,
            ious=(2 * top * ONE + bottom) // (2 * bottom),  # rounded to nearest
            above=tuple(int(100 * top > x * bottom) for x in THRESHOLDS),
        )

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            n=self.n + other.n,
            intersections=self.intersections + other.intersections,
            unions=self.unions + other.unions,
            ious=self.ious + other.ious,
            above=tuple(a + b for a, b in zip(self.above, other.above, strict=True)),
        )

    def scores(self) -> Scores:
        """`oIoU`, `mIoU`, `P@0.5` … `P@0.9` in percent, and `n`, the number of pairs."""
        if self.n == 0:
            raise ValueError("there is nothing to score, expected at least one pair of masks.")
        overall = self.intersections / self.unions if self.unions else 1.0
        precision = {
            f"P@{x / 100}": 100.0 * count / self.n
            for x, count in zip(THRESHOLDS, self.above, strict=True)
        }
        mean = self.ious / (ONE * self.n)
        return {"oIoU": 100.0 * overall, "mIoU": 100.0 * mean, **precision, "n": self.n}


def iou(predicted: Bool[np.ndarray, "H W"], truth: Bool[np.ndarray, "H W"]) -> float:
    """Intersection over union of one pair, from 0 to 1; 1 where both are empty."""
    return Sums.of(predicted, truth).ious / ONE

"""From outcomes to scores: oIoU, mIoU, gIoU, P@X, N-acc and T-acc, as a protocol defines them.

oIoU (= cIoU) is the sum of all intersections over the sum of all unions; gIoU the mean IoU of all
expressions; mIoU and P@X the mean IoU, and the share with an IoU above X, of the expressions that a
protocol counts there. N-acc is the share of the expressions without target to which the model says
"nothing", T-acc the share of the others to which it does not.

Every expression contributes a row of integers (`addends`); sums of such rows give the scores of a
split, of a class of expressions, or of a resample of the pictures.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from dit_jax.eval.outcomes import Outcomes

THRESHOLDS = (50, 60, 70, 80, 90)  # the X of P@X, in percent
PRECISION = tuple(f"P@{x / 100}" for x in THRESHOLDS)
METRICS = ("oIoU", "mIoU", "gIoU", *PRECISION, "N-acc", "T-acc")

# One IoU of 1, as an integer. It rounds an IoU by less than 1e-12 and lets eight million
# expressions add up within an int64.
HALF_BITS = 20
ONE = 1 << (2 * HALF_BITS)

SUMS = (
    *("n", "intersection", "union", "iou", "counted", "counted iou"),
    *(f"above {x}" for x in THRESHOLDS),
    *("empty", "empty, right", "target", "target, right"),
)

Scores = dict[str, Any]  # metrics in percent (None where undefined), "n", and what describes them


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """How a protocol counts, once intersections and unions are known."""

    strict: bool  # P@X counts IoU > X, else IoU >= X
    empty_iou: int  # 0 or 1: IoU where nothing is there and the model says so, so no pixel counts
    targets_only: bool  # mIoU and P@X leave out expressions without target
    reported: tuple[str, ...]  # of METRICS: what the papers that use the protocol print


def measure(outcomes: Outcomes, conventions: Conventions) -> Scores:
    """All METRICS of a table of outcomes, in percent or None, and `n`."""
    if not len(outcomes):
        raise ValueError("there is nothing to score, expected at least one expression.")
    total = addends(outcomes, conventions).sum(axis=0, keepdims=True)
    values = {name: value.item() for name, value in ratios(total, conventions).items()}
    return {name: None if np.isnan(v) else v for name, v in values.items()} | {"n": len(outcomes)}


def addends(outcomes: Outcomes, conventions: Conventions) -> Int64[np.ndarray, "n 15"]:
    """What each expression adds to every one of SUMS."""
    top, bottom = outcomes["intersection"], outcomes["union"]
    empty = outcomes["target"] == 0
    said = outcomes["nothing"] == 1
    flat = (bottom == 0) & said & bool(conventions.empty_iou)  # IoU 1 without any pixel
    top, bottom = np.where(bottom == 0, flat, top), np.where(bottom == 0, 1, bottom)
    iou = units(top, bottom)
    counted = ~empty if conventions.targets_only else np.ones(len(outcomes), bool)
    above = np.greater if conventions.strict else np.greater_equal
    columns = (
        *(np.ones(len(outcomes)), outcomes["intersection"], outcomes["union"]),
        *(iou, counted, iou * counted),
        *(above(100 * top, x * bottom) & counted for x in THRESHOLDS),
        *(empty, empty & said, ~empty, ~empty & ~said),
    )
    return np.stack([np.asarray(column, np.int64) for column in columns], axis=1)


def units(top: Int64[np.ndarray, " n"], bottom: Int64[np.ndarray, " n"]) -> np.ndarray:
    """`top / bottom`, at most 1, as an int64 in units of 1 / ONE, rounded to nearest.

    A long division in two steps, so that nothing overflows for pictures below 2**40 pixels.
    """
    high, rest = np.divmod(top << HALF_BITS, bottom)
    low = ((rest << (HALF_BITS + 1)) + bottom) // (2 * bottom)
    return (high << HALF_BITS) + low


def ratios(
    total: Int64[np.ndarray, "b 15"], conventions: Conventions
) -> dict[str, Float64[np.ndarray, " b"]]:
    """METRICS in percent from sums of addends, row by row; NaN where nothing can be divided by.

    N-acc and T-acc are both undefined without an expression that means nothing, as in ReLA.
    """
    sums = {name: total[:, i] for i, name in enumerate(SUMS)}
    overall = _share(sums["intersection"], sums["union"])
    overall = np.where(sums["union"] > 0, overall, float(conventions.empty_iou))
    right_targets = np.where(
        sums["empty"] > 0, _share(sums["target, right"], sums["target"]), np.nan
    )
    values = (
        *(overall, _share(sums["counted iou"], sums["counted"]) / ONE),
        _share(sums["iou"], sums["n"]) / ONE,
        *(_share(sums[f"above {x}"], sums["counted"]) for x in THRESHOLDS),
        *(_share(sums["empty, right"], sums["empty"]), right_targets),
    )
    return {name: 100.0 * value for name, value in zip(METRICS, values, strict=True)}


def _share(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.where(bottom > 0, top / np.maximum(bottom, 1), np.nan)


def iou(predicted: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"]) -> float:
    """Intersection over union of one pair, from 0 to 1; 1 where both are empty."""
    union = np.count_nonzero(predicted | truth)
    return float(np.count_nonzero(predicted & truth) / union) if union else 1.0

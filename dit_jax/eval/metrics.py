"""From outcomes to scores: oIoU, mIoU, gIoU, P@X, N-acc and T-acc, as a protocol defines them, and
how well a model's own scores of its masks rank these (AURC) and fit them (ECE).

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

from dit_jax.eval.outcomes import NO_SCORE, ONE, Outcomes

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)  # the X of P@X
PRECISION = tuple(f"P@{x}" for x in THRESHOLDS)
METRICS = ("oIoU", "mIoU", "gIoU", *PRECISION, "N-acc", "T-acc")
RANKING = ("AURC", "ECE")
BINS = 10  # of scores from 0 to 1, for the ECE

SUMS = (
    *("n", "intersection", "union", "iou", "counted", "counted iou"),
    *(f"above {x}" for x in THRESHOLDS),
    *("empty", "empty, right", "target", "target, right"),
)

Scores = dict[str, Any]  # metrics in percent (None where undefined), "n", and what describes them


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """How a protocol counts, once intersections and unions are known.

    `thresholds`, `added` and `added_to_n` are what its code computes with in float64; as they are
    by default, nothing is lost: a quotient is the float64 next to it, and so is each of THRESHOLDS,
    so that an IoU of exactly X is equal to it, and any other is not.
    """

    strict: bool  # P@X counts IoU > X, else IoU >= X
    thresholds: tuple[float, ...] = THRESHOLDS  # what its code takes for the X of P@X
    added: tuple[float, float] = (0.0, 0.0)  # to an intersection and its union, before dividing
    added_to_n: float = 0.0  # to the number of expressions that gIoU is divided by
    empty_iou: int  # 0 or 1: IoU where nothing is there and the model says so, so no pixel counts
    empty_overall: float  # oIoU of a split without any pixel; NaN where its code fails or has NaN
    targets_only: bool  # mIoU and P@X leave out expressions without target
    reported: tuple[str, ...]  # of METRICS: what the papers that use the protocol print


def measure(outcomes: Outcomes, conventions: Conventions) -> Scores:
    """All METRICS of a table of outcomes, in percent or None, and `n`."""
    if not len(outcomes):
        raise ValueError("there is nothing to score, expected at least one expression.")
    total = addends(outcomes, conventions).sum(axis=0, keepdims=True)
    values = {name: value.item() for name, value in ratios(total, conventions).items()}
    return {name: None if np.isnan(v) else v for name, v in values.items()} | {"n": len(outcomes)}


def ranking(outcomes: Outcomes, conventions: Conventions) -> dict[str, float | None]:
    """RANKING in percent, over the expressions of mIoU; None where one of them has no score.

    AURC: the best-scored k expressions have a mean risk, 1 - IoU; its mean over k = 1 … n. Equal
    scores have no order: each takes the mean risk of all of them. ECE: mean IoU and mean score of
    each of BINS bins of the score differ; the mean of that, weighted by what is in a bin. There, a
    score outside of [0, 1] counts as the nearer end.
    """
    sums = dict(zip(SUMS, addends(outcomes, conventions).T, strict=True))
    counted = sums["counted"] == 1
    score, iou = outcomes["score"][counted], sums["iou"][counted]
    if not len(score) or (score == NO_SCORE).any():
        return dict.fromkeys(RANKING)
    values, group, size = np.unique(score, return_inverse=True, return_counts=True)
    risk = np.zeros(len(values), np.int64)
    np.add.at(risk, group, ONE - iou)
    each = np.repeat((risk / size)[::-1], size[::-1]) / ONE  # from the best score on
    share = np.clip(score, 0, ONE)
    gap = np.zeros(BINS, np.int64)
    np.add.at(gap, np.minimum(share * BINS // ONE, BINS - 1), iou - share)
    area = np.mean(np.cumsum(each) / np.arange(1, len(each) + 1))
    return {"AURC": 100.0 * float(area), "ECE": 100.0 * float(np.abs(gap).sum() / ONE / len(score))}


def addends(outcomes: Outcomes, conventions: Conventions) -> Int64[np.ndarray, "n 15"]:
    """What each expression adds to every one of SUMS."""
    top, bottom = outcomes["intersection"], outcomes["union"]
    empty = outcomes["target"] == 0
    said = outcomes["nothing"] == 1
    flat = said & bool(conventions.empty_iou)  # IoU 1 without any pixel
    more_top, more_bottom = conventions.added
    iou = (top + more_top) / (np.maximum(bottom, 1) + more_bottom)
    iou = np.where(bottom == 0, flat, iou)
    units = np.rint(ONE * iou)
    counted = ~empty if conventions.targets_only else np.ones(len(outcomes), bool)
    above = np.greater if conventions.strict else np.greater_equal
    columns = (
        *(np.ones(len(outcomes)), top, bottom),
        *(units, counted, units * counted),
        *(above(iou, x) & counted for x in conventions.thresholds),
        *(empty, empty & said, ~empty, ~empty & ~said),
    )
    return np.stack([np.asarray(column, np.int64) for column in columns], axis=1)


def ratios(
    total: Int64[np.ndarray, "b 15"], conventions: Conventions
) -> dict[str, Float64[np.ndarray, " b"]]:
    """METRICS in percent from sums of addends, row by row; NaN where nothing can be divided by.

    N-acc and T-acc are both undefined without an expression that means nothing; ReLA prints 0.
    """
    sums = {name: total[:, i] for i, name in enumerate(SUMS)}
    overall = _share(sums["intersection"], sums["union"])
    overall = np.where(sums["union"] > 0, overall, conventions.empty_overall)
    right_targets = np.where(
        sums["empty"] > 0, _share(sums["target, right"], sums["target"]), np.nan
    )
    values = (
        *(overall, _share(sums["counted iou"], sums["counted"]) / ONE),
        _share(sums["iou"], sums["n"] + conventions.added_to_n) / ONE,
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

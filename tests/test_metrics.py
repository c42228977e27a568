"""Sums of mask pairs: exact, additive, and equal to the definitions computed one pair at a time."""

from functools import reduce
from operator import add

import numpy as np
import pytest

from dit_jax.eval.metrics import Sums, iou


def pairs_of(seed: int, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mask pairs of all sizes and qualities: the prediction is the truth with pixels turned."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(number):
        truth = rng.random(rng.integers(1, 12, size=2)) < rng.uniform(0.2, 0.9)
        pairs.append((truth ^ (rng.random(truth.shape) < rng.uniform(0, 0.5)), truth))
    return pairs


def pair_of_iou(intersection: int, union: int) -> tuple[np.ndarray, np.ndarray]:
    truth = np.zeros((1, 100), bool)
    truth[0, :union] = True
    predicted = np.zeros((1, 100), bool)
    predicted[0, :intersection] = True
    return predicted, truth


def test_scores_equal_the_definitions():
    pairs = pairs_of(seed=0, number=200)
    scores = reduce(add, (Sums.of(*pair) for pair in pairs)).scores()
    intersections = np.array([np.sum(p & t) for p, t in pairs])
    unions = np.array([np.sum(p | t) for p, t in pairs])
    ious = np.array([i / u if u else 1.0 for i, u in zip(intersections, unions, strict=True)])
    assert scores["n"] == 200
    assert scores["oIoU"] == pytest.approx(100 * intersections.sum() / unions.sum(), abs=1e-9)
    assert scores["mIoU"] == pytest.approx(100 * ious.mean(), abs=1e-9)
    for x in (0.5, 0.6, 0.7, 0.8, 0.9):
        assert scores[f"P@{x}"] == pytest.approx(100 * np.mean(ious > x), abs=1e-9)
    assert list(scores) == ["oIoU", "mIoU", "P@0.5", "P@0.6", "P@0.7", "P@0.8", "P@0.9", "n"]


def test_any_grouping_and_order_gives_the_same_sums():
    sums = [Sums.of(*pair) for pair in pairs_of(seed=1, number=60)]
    whole = reduce(add, sums)
    assert reduce(add, reversed(sums)) == whole
    for group in (1, 3, 8, 60):
        lots = [reduce(add, sums[i : i + group], Sums()) for i in range(0, 60, group)]
        assert reduce(add, lots) == whole


@pytest.mark.parametrize("percent", [50, 60, 70, 80, 90])
def test_an_iou_equal_to_the_threshold_does_not_exceed_it(percent):
    name = f"P@{percent / 100}"
    assert Sums.of(*pair_of_iou(percent, 100)).scores()[name] == 0
    assert Sums.of(*pair_of_iou(percent + 1, 100)).scores()[name] == 100


def test_empty_masks():
    nothing, something = np.zeros((3, 4), bool), np.ones((3, 4), bool)
    assert iou(nothing, nothing) == 1
    assert iou(nothing, something) == 0
    assert iou(something, nothing) == 0
    right = Sums.of(nothing, nothing)
    assert (right.intersections, right.unions) == (0, 0)
    assert right.scores()["oIoU"] == right.scores()["mIoU"] == right.scores()["P@0.9"] == 100
    mixed = (right + Sums.of(*pair_of_iou(30, 60))).scores()
    assert (mixed["oIoU"], mixed["mIoU"]) == (50, 75)


def test_sums_of_a_large_split_stay_exact():
    pair = np.ones((1, 1), bool), np.ones((1, 1), bool)
    half = Sums(n=10**7, intersections=10**15, unions=2 * 10**15 - 1, ious=0)
    total = half + half + Sums.of(*pair)
    assert total.intersections == 2 * 10**15 + 1
    assert total.unions == 4 * 10**15 - 1


def test_no_pairs_is_an_error():
    with pytest.raises(ValueError, match="at least one pair"):
        Sums().scores()

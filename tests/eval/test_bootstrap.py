"""Intervals: the same as a slow loop over the same draws, and right about 95 times in a hundred."""

import numpy as np
import pytest

from dit_jax.eval import bootstrap
from dit_jax.eval.bootstrap import draws, intervals
from dit_jax.eval.metrics import METRICS, measure
from dit_jax.eval.outcomes import Outcome, Outcomes
from dit_jax.eval.protocols import PROTOCOLS

CONVENTIONS = PROTOCOLS["gres"].conventions


def simulated(pictures: int, *, rng: np.random.Generator, empty: float = 0.2) -> Outcomes:
    """Three expressions a picture on average, whose IoUs are alike; some mean nothing."""
    picture = np.repeat(np.arange(pictures), rng.integers(1, 6, size=pictures))
    n = len(picture)
    quality = rng.beta(3, 2, size=pictures)[picture]
    union = rng.integers(2_000, 60_000, size=n)
    hit = np.clip(quality + rng.normal(0, 0.05, size=n), 0, 1)
    none = (rng.random(pictures) < empty)[picture]
    said = np.where(none, quality > 0.5, quality < 0.4)
    table = np.zeros((n, len(Outcome._fields)), np.int64)
    table[:, 0], table[:, 1] = np.arange(n), 7 * picture - 30
    table[:, 2] = np.where(none | said, 0, np.round(hit * union))
    table[:, 3] = np.where(none & said, 0, union)
    table[:, 4], table[:, 5], table[:, 6] = said, np.where(none, 0, union), 307_200
    return Outcomes(table)


def test_intervals_equal_a_slow_loop_over_the_same_draws():
    outcomes = simulated(40, rng=np.random.default_rng(0))
    ids = np.unique(outcomes["image_id"])
    scores = []
    for counts in np.concatenate(list(draws(len(ids), resamples=130, seed=3))):
        rows = [
            outcomes.table[outcomes["image_id"] == picture]
            for picture, count in zip(ids, counts, strict=True)
            for _ in range(count)
        ]
        scores.append(measure(Outcomes(np.concatenate(rows)), CONVENTIONS))
    found = intervals(outcomes, CONVENTIONS, resamples=130, seed=3)
    assert list(found) == list(METRICS)
    for name in METRICS:
        expected = np.quantile([score[name] for score in scores], [0.025, 0.975])
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-9)
        assert found[name][0] <= measure(outcomes, CONVENTIONS)[name] <= found[name][1]


def test_draws_are_with_replacement_and_cover_every_picture_alike():
    rows = np.concatenate(list(draws(50, resamples=2050, seed=0)))
    assert rows.shape == (2050, 50)
    assert (rows.sum(axis=1) == 50).all()
    assert abs((rows == 0).mean() - (1 - 1 / 50) ** 50) < 0.005
    np.testing.assert_allclose(rows.mean(axis=0), 1, atol=0.12)
    assert len(np.unique(rows, axis=0)) == 2050


def test_intervals_do_not_depend_on_order_or_chunks(monkeypatch):
    outcomes = simulated(30, rng=np.random.default_rng(1))
    found = intervals(outcomes, CONVENTIONS, resamples=70)
    shuffled = np.random.default_rng(0).permutation(outcomes.table)
    assert intervals(Outcomes(shuffled), CONVENTIONS, resamples=70) == found
    monkeypatch.setattr(bootstrap, "CHUNK", 32)
    assert intervals(outcomes, CONVENTIONS, resamples=70) == found
    assert intervals(outcomes, CONVENTIONS, resamples=70, seed=1) != found


@pytest.mark.parametrize("metric", ["oIoU", "gIoU", "mIoU", "P@0.7", "N-acc", "T-acc"])
def test_intervals_cover_the_truth(metric):
    rng = np.random.default_rng(2)
    truth = measure(simulated(60_000, rng=rng), CONVENTIONS)[metric]
    trials = 250
    inside = 0
    for _ in range(trials):
        low, high = intervals(simulated(150, rng=rng), CONVENTIONS, resamples=200)[metric]
        inside += low <= truth <= high
    # 95 % of 250, give or take three standard deviations, and a little less in small samples.
    assert 0.895 <= inside / trials <= 0.995


def test_expressions_of_one_picture_are_not_independent():
    """The interval is wider than one that draws expressions, which would be too sure."""
    outcomes = simulated(150, rng=np.random.default_rng(3))
    alone = outcomes.table.copy()
    alone[:, 1] = np.arange(len(alone))
    widths = [
        np.diff(intervals(Outcomes(table), CONVENTIONS, resamples=400)["gIoU"]).item()
        for table in (outcomes.table, alone)
    ]
    assert widths[0] > 1.3 * widths[1]


def test_metrics_that_no_draw_defines_have_no_interval():
    outcomes = simulated(20, rng=np.random.default_rng(4), empty=0.0)
    found = intervals(outcomes, CONVENTIONS, resamples=50)
    assert found["N-acc"] is found["T-acc"] is None
    assert found["oIoU"] is not None


def test_one_picture_has_an_interval_without_width():
    outcomes = simulated(1, rng=np.random.default_rng(5), empty=0.0)
    low, high = intervals(outcomes, CONVENTIONS, resamples=50)["oIoU"]
    assert low == high == measure(outcomes, CONVENTIONS)["oIoU"]

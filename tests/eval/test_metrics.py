"""Outcomes and scores: exact, additive, and equal to the definitions computed pair by pair."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest

from dit_jax.eval.metrics import (
    METRICS,
    ONE,
    PRECISION,
    RANKING,
    SUMS,
    THRESHOLDS,
    addends,
    iou,
    measure,
    ranking,
    ratios,
)
from dit_jax.eval.outcomes import Outcome, Outcomes, about, count_words, join, outcome
from dit_jax.eval.protocols import PROTOCOLS
from dit_jax.eval.relations import CLASSES

STRICT = PROTOCOLS["original"].conventions


def pairs_of(seed: int, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mask pairs of all sizes and qualities; some truths and some predictions are empty."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(number):
        truth = rng.random(rng.integers(1, 12, size=2)) < rng.choice([0, 0.3, 0.6, 0.9])
        wrong = rng.random(truth.shape) < rng.choice([0, 0.05, 0.3, 0.5])
        pairs.append((truth ^ wrong, truth))
    return pairs


def outcomes_of(pairs, *, nothing=lambda predicted: not predicted.any()) -> Outcomes:
    rows = []
    for index, (predicted, truth) in enumerate(pairs):
        common = about("a dog", truth, index=index, image_id=index // 3, target=int(truth.sum()))
        rows.append(outcome(predicted, truth, nothing=nothing(predicted), about=common))
    return Outcomes.of(rows)


def made(intersection: int, union: int, *, index: int = 0, **changes) -> Outcome:
    row = Outcome(index, 0, intersection, union, 0, union, 10**6, 3, 1)
    return row._replace(**changes)


def test_scores_equal_the_definitions():
    pairs = pairs_of(seed=0, number=300)
    scores = measure(outcomes_of(pairs), STRICT)
    ious = np.array([np.sum(p & t) / np.sum(p | t) if (p | t).any() else 1.0 for p, t in pairs])
    intersections, unions = (
        sum(int(np.sum(f(p, t))) for p, t in pairs) for f in (np.logical_and, np.logical_or)
    )
    silent, empty = (np.array([not m[i].any() for m in pairs]) for i in (0, 1))
    assert scores["n"] == 300
    assert 20 < empty.sum() < 150
    assert scores["oIoU"] == pytest.approx(100 * intersections / unions, abs=1e-9)
    assert scores["mIoU"] == scores["gIoU"] == pytest.approx(100 * ious.mean(), abs=1e-9)
    for x in (0.5, 0.6, 0.7, 0.8, 0.9):
        assert scores[f"P@{x}"] == pytest.approx(100 * np.mean(ious > x), abs=1e-9)
    assert scores["N-acc"] == pytest.approx(100 * silent[empty].mean(), abs=1e-9)
    assert scores["T-acc"] == pytest.approx(100 * (1 - silent[~empty].mean()), abs=1e-9)
    assert list(scores) == [*METRICS, "n"]


def test_targets_only_leaves_empty_truths_out_of_some_metrics():
    pairs = pairs_of(seed=4, number=200)
    targets = [pair for pair in pairs if pair[1].any()]
    counts = dataclasses.replace(STRICT, targets_only=True)
    all_of_them, some = measure(outcomes_of(pairs), counts), measure(outcomes_of(targets), STRICT)
    for name in ("mIoU", *PRECISION):
        assert all_of_them[name] == some[name]
    assert all_of_them["gIoU"] == measure(outcomes_of(pairs), STRICT)["gIoU"] != some["gIoU"]


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("percent", [50, 60, 70, 80, 90])
def test_an_iou_equal_to_the_threshold(percent, strict):
    conventions = dataclasses.replace(STRICT, strict=strict)
    for scale in (1, 7, 10_000):
        for more, expected in ((-1, 0), (0, 0 if strict else 100), (1, 100)):
            row = made(percent * scale + more, 100 * scale)
            assert measure(Outcomes.of([row]), conventions)[f"P@{percent / 100}"] == expected


def test_empty_masks():
    nothing, something = np.zeros((3, 4), bool), np.ones((3, 4), bool)
    assert iou(nothing, nothing) == 1
    assert iou(nothing, something) == iou(something, nothing) == 0
    right, wrong = outcomes_of([(nothing, nothing)]), outcomes_of([(something, nothing)])
    scores = measure(right, STRICT)
    assert all(scores[name] == 100 for name in METRICS if name != "T-acc")
    assert scores["T-acc"] is None  # there is no target
    scores = measure(right, dataclasses.replace(STRICT, empty_iou=0, empty_overall=0.0))
    assert all(scores[name] == 0 for name in ("oIoU", "mIoU", "gIoU", *PRECISION))
    assert scores["N-acc"] == 100
    scores = measure(wrong, STRICT)
    assert all(scores[name] == 0 for name in ("oIoU", "mIoU", "gIoU", "P@0.5", "N-acc"))
    scores = measure(right, dataclasses.replace(STRICT, targets_only=True))
    assert scores["mIoU"] is None and scores["P@0.5"] is None and scores["gIoU"] == 100


def test_who_says_nothing_hits_nothing():
    """ReLA: a wrong "nothing" keeps the union of its mask; a right one adds to neither sum."""
    truth, none = np.eye(4, dtype=bool), np.zeros((4, 4), bool)
    predicted = np.ones((4, 4), bool)
    both = outcomes_of([(predicted, truth), (predicted, none)], nothing=lambda _: True)
    assert both["intersection"].tolist() == [0, 0]
    assert both["union"].tolist() == [16, 0]
    scores = measure(both, STRICT)
    assert (scores["gIoU"], scores["oIoU"]) == (50, 0)
    assert (scores["N-acc"], scores["T-acc"]) == (100, 0)
    silent = outcomes_of([(none, none)], nothing=lambda _: False)  # an empty mask that is meant
    assert measure(silent, STRICT)["gIoU"] == measure(silent, STRICT)["N-acc"] == 0


def test_without_an_empty_truth_nothing_is_said_about_nothing():
    scores = measure(outcomes_of([(np.ones((2, 2), bool), np.eye(2, dtype=bool))]), STRICT)
    assert scores["N-acc"] is scores["T-acc"] is None
    assert scores["mIoU"] == scores["gIoU"] == 50


def test_an_iou_is_as_exact_as_its_sum_needs_and_its_side_of_a_threshold_is_exact():
    """Also one pixel beside a threshold, in pictures of up to 2**40 pixels."""
    rng = np.random.default_rng(0)
    bottom = np.concatenate([rng.integers(1, 10**6, 3000), rng.integers(1, 2**40, 3000), [1, 2, 3]])
    top = np.concatenate([(rng.random(6000) * (bottom[:-3] + 1)).astype(np.int64), [1, 1, 0]])
    near = [
        (x * scale + more, 10 * scale)
        for x in range(5, 10)
        for scale in (1, 7, 10**4, 10**10)
        for more in (-1, 0, 1)
    ]
    pairs = [*zip(top.tolist(), bottom.tolist(), strict=True), *near]
    found = Outcomes.of([made(a, b, index=i) for i, (a, b) in enumerate(pairs)])
    sums = dict(zip(SUMS, addends(found, STRICT).T.tolist(), strict=True))
    exact = [Fraction(a, b) for a, b in pairs]
    for value, unit in zip(exact, sums["iou"], strict=True):
        assert abs(value * ONE - unit) <= Fraction(1, 2) + Fraction(1, 2**12)
    for x in THRESHOLDS:
        assert sums[f"above {x}"] == [value > Fraction(str(x)) for value in exact]


def slow_ranking(scores, ious):
    """AURC as the mean over all orders of equal scores would have it, and the ECE, in float64."""
    scores, risks = np.asarray(scores, float), 1 - np.asarray(ious, float)
    areas = []
    for seed in range(400 if len(set(scores)) < len(scores) else 1):
        luck = np.random.default_rng(seed).random(len(scores))
        order = np.lexsort((luck, -scores))
        areas.append(np.mean([risks[order[:k]].mean() for k in range(1, len(order) + 1)]))
    shares, error = np.clip(scores, 0, 1), 0.0
    for low in np.arange(10) / 10:
        inside = (shares >= low) & ((shares < low + 0.1) | (low == 0.9))
        if inside.any():
            gap = np.mean(1 - risks[inside]) - np.mean(shares[inside])
            error += inside.mean() * abs(gap)
    return 100 * np.mean(areas), 100 * error


def scored(scores, ious) -> Outcomes:
    unions = [100_000] * len(ious)
    rows = zip(scores, ious, unions, strict=True)
    return Outcomes.of(
        [made(round(i * u), u, index=n, score=round(s * ONE)) for n, (s, i, u) in enumerate(rows)]
    )


def test_how_scores_rank_and_fit():
    rng = np.random.default_rng(0)
    ious = np.round(rng.random(200), 3)
    scores = ious + rng.normal(0, 0.3, 200)
    assert scores.min() < 0 and scores.max() > 1
    found = ranking(scored(scores, ious), STRICT)
    assert list(found) == list(RANKING)
    assert list(found.values()) == pytest.approx(slow_ranking(scores, ious), abs=1e-8)
    # Perfect, reversed and blind scores, and those that are the IoU itself.
    best, worst = (ranking(scored(s, ious), STRICT) for s in (ious, 1 - ious))
    blind = ranking(scored(np.full(200, 0.5), ious), STRICT)
    assert best["AURC"] < found["AURC"] < blind["AURC"] < worst["AURC"]
    assert blind["AURC"] == pytest.approx(100 - 100 * ious.mean(), abs=1e-9)
    assert best["ECE"] == pytest.approx(0, abs=1e-6)
    assert blind["ECE"] == pytest.approx(100 * abs(ious.mean() - 0.5), abs=1e-6)


def test_equal_scores_have_no_order():
    ious, scores = [1.0, 0.0, 0.6, 0.2, 0.9], [0.9, 0.5, 0.5, 0.5, 0.1]
    found = ranking(scored(scores, ious), STRICT)
    assert found["AURC"] == pytest.approx(slow_ranking(scores, ious)[0], abs=1.0)  # of 400 orders
    risks = np.array([0.0, *[2.2 / 3] * 3, 0.1])
    assert found["AURC"] == pytest.approx(100 * np.mean(np.cumsum(risks) / np.arange(1, 6)))
    again = ranking(scored(scores[::-1], ious[::-1]), STRICT)
    assert again == pytest.approx(found, abs=1e-12)


def test_ranking_counts_what_miou_counts_and_needs_every_score():
    targets = scored([0.9, 0.2], [0.8, 0.3])
    nothing = made(0, 50, index=2, target=0, score=ONE)
    both = Outcomes(np.concatenate([targets.table, Outcomes.of([nothing]).table]))
    gres = PROTOCOLS["gres"].conventions
    assert ranking(both, gres) == ranking(targets, gres) != ranking(both, STRICT)
    silent = Outcomes(np.concatenate([targets.table, Outcomes.of([made(1, 2, index=3)]).table]))
    assert ranking(silent, STRICT) == dict.fromkeys(RANKING)
    assert ranking(Outcomes.of([nothing]), gres) == dict.fromkeys(RANKING)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -2e6])
def test_a_score_is_a_number(score):
    one = np.ones((2, 2), bool)
    known = about("a dog", one, index=0, image_id=0, target=4)
    with pytest.raises(ValueError, match="a score is .*; expected a number"):
        outcome(one, one, nothing=False, about=known, score=score)


def test_any_grouping_and_order_gives_the_same_sums():
    rows = addends(outcomes_of(pairs_of(seed=1, number=60)), STRICT)
    assert rows.dtype == np.int64 and rows.shape == (60, len(SUMS))
    whole = rows.sum(axis=0)
    np.testing.assert_array_equal(rows[::-1].sum(axis=0), whole)
    for group in (1, 3, 8, 60):
        lots = [rows[i : i + group].sum(axis=0) for i in range(0, 60, group)]
        np.testing.assert_array_equal(np.sum(lots, axis=0), whole)


def test_sums_of_a_large_split_stay_exact():
    rows = [made(10**9 - 1, 10**9, index=i) for i in range(1000)]
    total = addends(Outcomes.of(rows), STRICT).sum(axis=0, keepdims=True)
    sums = dict(zip(SUMS, total[0].tolist(), strict=True))
    assert sums["intersection"] == 1000 * (10**9 - 1)
    assert sums["union"] == 10**12
    assert ratios(total, STRICT)["mIoU"] == pytest.approx(100 * (1 - 1e-9), abs=1e-10)


def test_join_sorts_and_refuses_what_comes_twice():
    whole = outcomes_of(pairs_of(seed=2, number=10))
    parts = [Outcomes(whole.table[start::3]) for start in (2, 0, 1)]
    np.testing.assert_array_equal(join(parts).table, whole.table)
    with pytest.raises(ValueError, match="expression 4 was scored more than once"):
        join([whole, Outcomes(whole.table[4:5])])


def test_no_outcome_is_an_error():
    with pytest.raises(ValueError, match="at least one expression"):
        measure(Outcomes.of([]), STRICT)


def test_what_an_outcome_knows_of_its_expression():
    truth = np.eye(5, 7, dtype=bool)
    known = about("lady ' s red hat on the left .", truth, index=3, image_id=-7, target=5)
    assert (known.index, known.image_id, known.target, known.picture) == (3, -7, 5, 35)
    assert known.words == 7
    bits = [name for i, name in enumerate(CLASSES) if known.relations >> i & 1]
    assert bits == ["side", "colour"]
    assert count_words("t-shirt") == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_protocols_report_metrics_that_exist(protocol):
    reported = PROTOCOLS[protocol].conventions.reported
    assert set(reported) <= set(METRICS) and len(set(reported)) == len(reported)

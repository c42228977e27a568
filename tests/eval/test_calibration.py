"""The presence threshold: brute force, its guarantee, and the interval beside what came out."""

import math
from fractions import Fraction

import numpy as np
import pytest

from dit_jax.eval.calibration import allowed, check, interval, threshold
from dit_jax.eval.outcomes import Outcome, Outcomes
from dit_jax.eval.protocols import logit


def with_masks(presence, chosen):
    """Which get a mask, as `Segmenter` decides it."""
    return ~(np.asarray(presence, np.float64) < logit(chosen))


@pytest.mark.parametrize("alarm", [0.05, 0.07, 0.29, 0.5, 0.9])
@pytest.mark.parametrize("digits", [0, 1, 6])  # with many ties, some, none
@pytest.mark.parametrize("most", [1, 4])  # expressions a picture
def test_it_is_the_smallest_that_the_bound_allows(alarm, digits, most):
    rng = np.random.default_rng(digits)
    for n in (19, 20, 39, 99):
        pictures = rng.permutation(np.repeat(7 * np.arange(n), rng.integers(1, most + 1, n)))
        presence = np.round(rng.normal(0, 4, len(pictures)), digits).astype(np.float32)
        kept = [
            presence >= level
            for level in (-np.inf, *np.nextafter(np.unique(presence), np.float32(np.inf)))
        ]
        small = [(n * share(k, pictures) + 1) / (n + 1) for k in kept]
        first = next(i for i, risk in enumerate(small) if risk <= Fraction(str(alarm)))
        found = with_masks(presence, threshold(presence, pictures, false_alarm=alarm))
        np.testing.assert_array_equal(found, kept[first])


def share(masks, pictures):
    """Mean over pictures of the share of their expressions that get a mask."""
    own = [masks[pictures == picture] for picture in np.unique(pictures)]
    return sum(Fraction(int(one.sum()), len(one)) for one in own) / len(own)


def above(level, *, scale):
    """How often a normal draw is at or above a level."""
    return 0.5 * math.erfc(level / scale / math.sqrt(2))


@pytest.mark.parametrize(("n", "alarm"), [(19, 0.05), (30, 0.1), (50, 0.25)])
def test_the_promise_holds_over_many_draws(n, alarm):
    """Of a new expression, drawn as the others: floor(α (n + 1)) / (n + 1); less with ties."""
    draws = np.random.default_rng(0).normal(0, 3, (400, n)).astype(np.float32)
    alone = np.arange(n)
    limits = [logit(threshold(row, alone, false_alarm=alarm)) for row in draws]
    alarms = [above(limit, scale=3) for limit in limits]
    expected = math.floor(alarm * (n + 1)) / (n + 1)
    assert abs(np.mean(alarms) - expected) < 4 * np.std(alarms) / math.sqrt(len(draws))
    limits = [logit(threshold(row, alone, false_alarm=alarm)) for row in np.round(draws / 3)]
    alarms = [above(math.ceil(limit) - 0.5, scale=1) for limit in limits]
    assert 0 < np.mean(alarms) < expected / 1.2


def test_expressions_about_one_picture_do_not_break_the_promise():
    """Ten each, nearly the same: as independent ones they would give 11 % instead of 5."""
    rng = np.random.default_rng(0)
    pictures, alarms = np.repeat(np.arange(20), 10), []
    for _ in range(400):
        of_pictures, of_expressions = rng.normal(0, 3, (20, 1)), rng.normal(0, 1, (20, 10))
        presence = np.float32(of_pictures + of_expressions).ravel()
        limit = logit(threshold(presence, pictures, false_alarm=0.1))
        alarms.append(above(limit, scale=math.sqrt(10)))
    error = np.std(alarms) / math.sqrt(len(alarms))
    assert 0.05 < np.mean(alarms) < 0.1 + 2 * error


@pytest.mark.parametrize("last", [-800.0, -30.0, -1e-20, 0.0, 1e-20, 3.0, 17.5, 30.0])
def test_a_threshold_just_above_a_logit(last):
    """Above it in float32, as programs compare, and below the next one that is well apart."""
    found = threshold(np.full(20, last, np.float32), np.arange(20), false_alarm=0.05)
    assert np.float32(last) < np.float32(logit(found))
    assert last < -700 or logit(found) < last + 1e-3 + 1e-6 * abs(last)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"=0.05 needs at least 19 pict.*, and there are 18\.$"):
        threshold(np.zeros(36, np.float32), np.arange(36) // 2, false_alarm=0.05)
    assert (allowed(19, false_alarm=0.05), allowed(99, false_alarm=0.29)) == (0, 28)
    with pytest.raises(ValueError, match="sure that 19 of 20 absent expressions are there"):
        presence = np.array([60] * 19 + [1], np.float32)
        threshold(presence, np.arange(20), false_alarm=0.05)


def binomial(k, n, p):
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))


@pytest.mark.parametrize(("count", "n"), [(0, 20), (1, 20), (10, 20), (20, 20), (3, 400)])
def test_the_interval_is_exact(count, n):
    low, high = interval(count, n)
    assert 0 <= low <= count / n <= high <= 1
    assert low == 0 if count == 0 else 1 - binomial(count - 1, n, low) == pytest.approx(0.025)
    assert high == 1 if count == n else binomial(count, n, high) == pytest.approx(0.025)
    if (count, n) == (10, 20):  # R's binom.test
        assert (low, high) == pytest.approx((0.2719578, 0.7280422), abs=1e-7)


def outcomes(*rows):
    """Rows of (intersection, union, nothing, target)."""
    about = dict(image_id=0, picture=100, words=1, relations=0)
    names = ("intersection", "union", "nothing", "target")
    found = [dict(zip(names, row, strict=True), index=i) for i, row in enumerate(rows)]
    return Outcomes.of([Outcome(**row, **about) for row in found])


def test_what_is_said_of_another_split():
    """Two absent expressions, of which one keeps its mask; three present ones, one of them lost."""
    present = [(5, 10, 0, 10), (10, 12, 0, 10)]
    before = outcomes((0, 7, 0, 0), (0, 9, 0, 0), *present, (15, 30, 0, 20))
    after = outcomes((0, 0, 1, 0), (0, 9, 0, 0), *present, (0, 30, 1, 20))
    said = check(before, after)
    assert said.pop("T-acc") == [100.0, pytest.approx(200 / 3)]
    assert said.pop("oIoU") == [pytest.approx(3000 / 52), pytest.approx(1500 / 52)]
    around = [100 * end for end in interval(1, 2)]
    assert said == {"absent": 2, "masks": 1, "share": 50.0, "interval": around, "present": 3}

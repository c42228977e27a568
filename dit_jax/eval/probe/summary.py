"""Probes: means with intervals for each relation class, and verdicts.

Intervals are 95 % percentile bootstraps over pictures, because what is said of one picture is not
independent. All figures are in percent.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dit_jax.eval.bootstrap import LEVEL, draws
from dit_jax.eval.calibration import interval
from dit_jax.eval.probe.measures import PROBES, Values
from dit_jax.eval.relations import CLASSES

ALL = "all"
LITTLE = 10.0  # percent; a model that surely reacts no more often than this does not read
FEWEST_PICTURES = 30  # no reaction in 30 pictures bounds its frequency by 3 / 30 (rule of three)
UNDECIDED = "undecided"


@dataclass(frozen=True)
class Outcome:
    """What one question showed."""

    probe: str
    classes: tuple[str, ...]  # of `relations.CLASSES`
    dropped: tuple[str, ...]  # kinds of the missing word, in the probe "drop"
    image_id: int
    values: Values


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval; the bounds are None where only one picture counts."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Group:
    """One probe over expressions of one kind; a measure that none of them has is left out."""

    n: int
    pictures: int
    measures: dict[str, Interval]


@dataclass(frozen=True)
class Rule:
    """`reads` where the lower bound of the first measure is above `LITTLE`; otherwise `blind`
    where the upper bound of one of the measures is at most `LITTLE`; otherwise undecided.

    Near 0 the bootstrap's upper bound is too low, so the exact one of a share counts as well, which
    is wrong in 5 % of the cases at most. Measures of fewer than `FEWEST_PICTURES` decide nothing.
    """

    measures: tuple[tuple[str, str], ...]  # (probe, measure)
    reads: str
    blind: str


RULES = {
    "text": Rule((("other", "gain"), ("absent", "changed")), "follows the words", "text-blind"),
    "sides": Rule((("mirror-only", "gain"),), "reads left and right", "side-blind"),
    "absence": Rule((("absent", "gain"),), "knows what is not there", "answers anything"),
}


def by_class(
    outcomes: Sequence[Outcome], *, resamples: int, seed: int
) -> dict[str, dict[str, Group]]:
    """Probe → relation class → group, in the tables' order; "all" comes first."""
    groups = {}
    for probe, row in PROBES.items():
        mine = [outcome for outcome in outcomes if outcome.probe == probe]
        parts = {name: [o for o in mine if name in (ALL, *o.classes)] for name in (ALL, *CLASSES)}
        groups[probe] = {
            name: _group(part, row.measures, resamples=resamples, seed=seed)
            for name, part in parts.items()
            if part
        }
    return groups


def by_dropped_word(outcomes: Sequence[Outcome], *, resamples: int, seed: int) -> dict[str, Group]:
    """The probe "drop" by the kind of the word that is missing."""
    parts = defaultdict(list)
    for outcome in outcomes:
        for kind in outcome.dropped:
            parts[kind].append(outcome)
    measures = PROBES["drop"].measures
    return {
        kind: _group(parts[kind], measures, resamples=resamples, seed=seed)
        for kind in sorted(parts)
    }


def verdicts(groups: Mapping[str, Mapping[str, Group]]) -> dict[str, str]:
    """What each of `RULES` says."""
    return {name: _verdict(rule, groups) for name, rule in RULES.items()}


def _verdict(rule: Rule, groups: Mapping[str, Mapping[str, Group]]) -> str:
    bounds = [_bounds(groups[probe].get(ALL), measure) for probe, measure in rule.measures]
    if bounds[0] and bounds[0][0] > LITTLE:
        return rule.reads
    return rule.blind if any(both and both[1] <= LITTLE for both in bounds) else UNDECIDED


def _bounds(group: Group | None, measure: str) -> tuple[float, float] | None:
    """The lower and the upper bound that a verdict may rest on."""
    if group is None or group.pictures < FEWEST_PICTURES:
        return None
    found = group.measures[measure]
    reacting = math.ceil(max(0.0, found.mean) * group.pictures / 100 - 1e-6)
    exact = 100 * interval(reacting, group.pictures, level=0.9)[1]  # 95 % on this side alone
    return found.low, max(found.high, exact)


def _group(
    outcomes: Sequence[Outcome], measures: Sequence[str], *, resamples: int, seed: int
) -> Group:
    """Means, and where they lie when as many pictures are drawn with replacement."""
    values = np.array([[outcome.values[name] for name in measures] for outcome in outcomes])
    _, picture = np.unique([outcome.image_id for outcome in outcomes], return_inverse=True)
    pictures = int(picture.max()) + 1
    sums, counts = (np.zeros((pictures, len(measures))) for _ in range(2))
    np.add.at(sums, picture, np.nan_to_num(values))
    np.add.at(counts, picture, ~np.isnan(values))
    resampled = [
        _ratio(drawn @ sums, drawn @ counts)
        for drawn in draws(pictures, resamples=resamples, seed=seed)
    ]
    means, spread = _ratio(sums.sum(axis=0), counts.sum(axis=0)), np.concatenate(resampled)
    found = {
        name: _interval(means[i], spread[:, i] if np.count_nonzero(counts[:, i]) > 1 else None)
        for i, name in enumerate(measures)
        if counts[:, i].any()
    }
    return Group(len(outcomes), pictures, found)


def _ratio(sums: Float[np.ndarray, "*n m"], counts: Float[np.ndarray, "*n m"]) -> np.ndarray:
    """In percent; NaN where nothing counts."""
    return np.divide(100 * sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


def _interval(mean: np.floating, resampled: Float[np.ndarray, " n"] | None) -> Interval:
    if resampled is None:
        return Interval(float(mean), None, None)
    low, high = np.nanquantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(mean), float(low), float(high))

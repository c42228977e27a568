"""Scores of parts of a split: by length of the expression, size of the target, relation words.

An expression has one length and one size, but may be in several relation classes.
"""

import math

import numpy as np
from jaxtyping import Bool

from dit_jax.eval.metrics import Conventions, Scores, measure
from dit_jax.eval.outcomes import Outcomes
from dit_jax.eval.relations import CLASSES

LENGTHS = {"1": 2, "2-3": 4, "4-6": 7, "7-10": 11, "11+": math.inf}  # words, below
# Percent of the picture, below. RefCOCO's objects cover at least about 4 %.
AREAS = {"<5%": 5, "5-10%": 10, "10-20%": 20, "20-40%": 40, ">=40%": math.inf}
NOTHING = "none"  # no target
SHOWN = ("n", "oIoU", "mIoU", "gIoU", "P@0.5")

Parts = dict[str, Bool[np.ndarray, " n"]]


def breakdown(outcomes: Outcomes, conventions: Conventions) -> dict[str, dict[str, Scores]]:
    """{"length" | "area" | "relation": {class: its scores}}, without classes that are empty."""
    return {
        kind: {
            name: _scores(outcomes, rows, conventions) for name, rows in parts.items() if rows.any()
        }
        for kind, parts in classes(outcomes).items()
    }


def classes(outcomes: Outcomes) -> dict[str, Parts]:
    """Which rows are in which class."""
    target, picture = outcomes["target"], outcomes["picture"]
    percent = 100 * target / picture
    bits = outcomes["relations"]
    return {
        "length": _below(outcomes["words"], LENGTHS),
        "area": {NOTHING: target == 0}
        | {name: rows & (target > 0) for name, rows in _below(percent, AREAS).items()},
        "relation": {name: (bits >> i) & 1 == 1 for i, name in enumerate(CLASSES)},
    }


def _below(values: np.ndarray, limits: dict[str, int | float]) -> Parts:
    """Each row in the first class whose limit is above its value."""
    which = np.searchsorted(list(limits.values()), values, side="right")
    return {name: which == i for i, name in enumerate(limits)}


def _scores(outcomes: Outcomes, rows: np.ndarray, conventions: Conventions) -> Scores:
    scores = measure(Outcomes(outcomes.table[rows]), conventions)
    return {name: scores[name] for name in SHOWN}

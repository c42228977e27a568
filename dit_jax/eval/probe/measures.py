"""Probes: how the answer to a changed question is compared with the original one.

An answer is a mask at the picture's own size; answers to a mirrored picture are mirrored back.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from dit_jax.eval.metrics import iou
from dit_jax.eval.protocols import FEW_PIXELS

SAME = 0.5  # two answers with a larger IoU mean the same object

Mask = Bool[np.ndarray, "H W"]
Values = dict[str, float]  # measure → 0 to 1, or a difference of two such; NaN where it has none


@dataclass(frozen=True)
class AnswerPair:
    """The answers to an expression and to a change of it, and what there is to find."""

    before: Mask
    after: Mask
    truth: Mask
    other: Mask | None  # of the other object, where the picture has one
    mirrored: Mask  # the answer to the mirrored picture with left and right exchanged
    scores: tuple[float, float] = (float("nan"), float("nan"))  # of the two answers


def compare(pair: AnswerPair) -> Values:
    """Whether two answers are the same object, and how well each fits the original's truth."""
    overlap = iou(pair.before, pair.after)
    before, after = iou(pair.before, pair.truth), iou(pair.after, pair.truth)
    return {
        "consistent": float(overlap > SAME),
        "changed": float(overlap <= SAME),
        "overlap": overlap,
        "IoU before": before,
        "IoU after": after,
        "IoU lost": before - after,
    }


def turn(pair: AnswerPair) -> Values:
    """Whether the answer changes where the side words no longer fit, beyond how often it changes
    where they do: a model that any mirroring upsets does not read sides for that."""
    after, before = (iou(pair.before, m) <= SAME for m in (pair.after, pair.mirrored))
    found = _beyond({"changed": after, "changed by mirror": before})
    return found | {"overlap": iou(pair.before, pair.after)}


def follow(pair: AnswerPair) -> Values:
    """Whether the answer goes over to the other object.

    An answer that the words do not move is as near to that object after as before: "gain" is 0 for
    any model that reads no text, whatever it answers and however large the objects are.
    """
    before, after = (iou(m, pair.other) > iou(m, pair.truth) for m in (pair.before, pair.after))
    found = _beyond({"follows": after, "follows before": before})
    fit = {"overlap": iou(pair.before, pair.after), "IoU after": iou(pair.after, pair.other)}
    return found | fit


def refuse(pair: AnswerPair) -> Values:
    """Whether the answer is nothing, beyond how often it is nothing for words that do fit."""
    before, after = (np.count_nonzero(m) < FEW_PIXELS for m in (pair.before, pair.after))
    return _beyond({"nothing": after, "nothing before": before}) | {
        "changed": float(before != after or iou(pair.before, pair.after) <= SAME),
        "covered": float("nan") if after else float(pair.after.mean()),
        "score": pair.scores[1],
        "score before": pair.scores[0],
    }


def _beyond(found: dict[str, bool | np.bool_]) -> Values:
    """A measure, the same without reading, and by how much it is more."""
    values = {name: float(value) for name, value in found.items()}
    first, without = values.values()
    return values | {"gain": first - without}


@dataclass(frozen=True)
class Probe:
    """How one kind of change is measured; the first of its measures is the one that is drawn."""

    title: str
    expected: str  # of a model that understands what it is asked
    measure: Callable[[AnswerPair], Values]
    measures: tuple[str, ...]  # that are reported
    baseline: str | None = None  # what the first measure is without reading; drawn too
    asked: bool = False  # grouped by the words that are asked, not by the original ones


_CHANGE = dict(
    measure=compare, measures=("consistent", "overlap", "IoU before", "IoU after", "IoU lost")
)
PROBES = {
    "mirror": Probe("picture mirrored, left and right swapped", "100 %", **_CHANGE),
    "mirror-only": Probe(
        "picture mirrored, words unchanged",
        "100 % where sides decide",
        measure=turn,
        measures=("changed", "changed by mirror", "gain", "overlap"),
        baseline="changed by mirror",
    ),
    "shuffle": Probe("words shuffled", "no right answer", **_CHANGE),
    "drop": Probe("one word dropped", "no right answer", **_CHANGE),
    "other": Probe(
        "words for another object",
        "100 %",
        measure=follow,
        measures=("follows", "follows before", "gain", "overlap", "IoU after"),
        baseline="follows before",
        asked=True,
    ),
    "absent": Probe(
        "words for what is not there",
        "100 %",
        measure=refuse,
        measures=(
            *("nothing", "nothing before", "gain", "changed", "covered"),
            *("score", "score before"),
        ),
        baseline="nothing before",
        asked=True,
    ),
}

# measure → what it is, for readers of the report
MEASURES = {
    "consistent": f"answers that are the same object: their IoU is above {SAME}",
    "changed": f"answers that are not: their IoU is at most {SAME}, or one of them is nothing",
    "changed by mirror": "the same where left and right are exchanged in the words as well",
    "overlap": "mean IoU of the two answers",
    "IoU before": "mean IoU of the original answer and the original object",
    "IoU after": "mean IoU of the changed question's answer and the object that it means",
    "IoU lost": "IoU before minus IoU after",
    "follows": "answers that are nearer to the other object than to the original one",
    "follows before": "the same of the answers to the original words",
    "nothing": f"answers of fewer than {FEW_PIXELS} pixels, or that the model calls nothing",
    "nothing before": "the same of the answers to the original words, which do mean something",
    "gain": "the probe's first measure minus its second: 0 for a model that does not read",
    "covered": "mean share of the picture that the other answers cover",
    "score": "mean score of the answers, by which they could be told from those that fit",
    "score before": "the same of the answers to the original words",
}

"""Probes: which questions an expression leads to, as a `Source` of their own.

    mirror       the picture mirrored, left and right exchanged in the words
    mirror-only  the picture mirrored, the words as they are; for expressions of left and right
    shuffle      the words in another order
    drop         the words without one of them
    other        the words for another object of the same picture
    absent       words from another picture, none of which is said of this one

All are drawn from (seed, number of the expression), so a larger sample keeps its questions.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeVar

import numpy as np
from jaxtyping import Int

from dit_jax.data.pipeline import expression_table
from dit_jax.data.pixels import swap_left_right
from dit_jax.data.referent import Referent, Source, Truth
from dit_jax.eval.metrics import iou
from dit_jax.eval.probe.words import content_words, names_something, shortened, shuffled

ORIGINAL = "original"
DIFFERENT = 0.5  # two referents with a larger IoU are not told apart
TRIES = 1000  # expressions that are looked at for one that fits nothing in a picture

# probe → why an expression has no such question
LEFT_OUT = {
    "mirror-only": "without left or right",
    "shuffle": "of words that have one order",
    "drop": "of one word",
    "other": "in pictures without another described object",
    "absent": "in pictures for which no foreign expression was found",
}
NOTHING_MEANT = "that mean nothing in their picture"

Item = TypeVar("Item")


@dataclass(frozen=True)
class Question:
    """What the model is shown and asked."""

    referent: int  # its picture is shown
    text: str
    mirrored: bool = False
    dropped: tuple[str, ...] = ()  # what kind of word is missing


@dataclass(frozen=True)
class Case:
    """One expression and all that is asked because of it; "original" is the expression itself."""

    questions: dict[str, Question]
    image_id: int
    other: int | None  # the referent whose words "other" asks for

    @property
    def referent(self) -> int:
        return self.questions[ORIGINAL].referent


@dataclass(frozen=True)
class Plan:
    """Everything that is asked about one split."""

    cases: tuple[Case, ...]
    left_out: dict[str, dict[str, int]]  # probe → reason → expressions of the sample

    def questions(self) -> list[Question]:
        return [question for case in self.cases for question in case.questions.values()]


class Questions:
    """A `Source` of one referent a question, with the question's words as its only expression."""

    def __init__(self, source: Source, questions: Sequence[Question]):
        self._source, self._questions = source, tuple(questions)

    def __len__(self) -> int:
        return len(self._questions)

    def __getitem__(self, index: int) -> Referent:
        question = self._questions[index]
        found = self._source[question.referent]
        image, mask = found.image, found.mask
        if question.mirrored:
            image, mask = np.ascontiguousarray(image[:, ::-1]), mask[:, ::-1]
        return Referent(image, mask, (question.text,), found.id, found.image_id)

    def truth(self, index: int) -> Truth:
        question = self._questions[index]
        found = self._source.truth(question.referent)
        mask = found.mask[:, ::-1] if question.mirrored else found.mask
        return Truth(mask, (question.text,), found.id, found.image_id)

    def expression_counts(self) -> Int[np.ndarray, " n"]:
        return np.ones(len(self), np.int64)

    def image_ids(self) -> Int[np.ndarray, " n"]:
        return self._source.image_ids()[[question.referent for question in self._questions]]


def plan(source: Source, *, limit: int, seed: int) -> Plan:
    """The cases of `limit` expressions, spread evenly over the source (0 = all of them).

    Raises ValueError where no expression of the sample means anything.
    """
    table = expression_table(source)
    count = min(limit or len(table), len(table))
    sample = np.linspace(0, len(table) - 1, count).astype(int).tolist()
    planner = _Planner(source, table[sample])
    cases, left_out = [], Counter()
    for number, (referent, expression) in zip(sample, table[sample].tolist(), strict=True):
        rng = np.random.default_rng([seed, number])
        truth = planner.truth(referent)
        if not truth.mask.any():
            left_out[ORIGINAL] += 1
            continue
        case = planner.case(referent, truth.expressions[expression], rng=rng)
        cases.append(case)
        left_out.update(probe for probe in LEFT_OUT if probe not in case.questions)
    if not cases:
        raise ValueError(f"there is nothing to probe: none of {count} expressions means anything.")
    reasons = {ORIGINAL: NOTHING_MEANT} | LEFT_OUT
    return Plan(tuple(cases), {probe: {reasons[probe]: n} for probe, n in left_out.items()})


class _Planner:
    """Looks up what else is said, of the same picture and of others."""

    def __init__(self, source: Source, sample: Int[np.ndarray, "n 2"]):
        self._source, self._sample = source, sample
        self._image_ids = source.image_ids()
        self._by_picture = np.argsort(self._image_ids, kind="stable")
        self._sorted_ids = self._image_ids[self._by_picture]
        self.truth = lru_cache(maxsize=64)(source.truth)  # those of one picture come up together

    def case(self, referent: int, text: str, *, rng: np.random.Generator) -> Case:
        short, other = shortened(text, rng=rng), self._other(referent, rng=rng)
        theirs = () if other is None else self.truth(other).expressions
        texts = {
            "shuffle": shuffled(text, rng=rng),
            "other": _any(theirs, rng=rng) if theirs else None,
            "absent": self._absent(referent, rng=rng),
        }
        mirrored = swap_left_right(text)
        questions = {
            ORIGINAL: Question(referent, text),
            "mirror": Question(referent, mirrored, mirrored=True),
        }
        if mirrored != text:
            questions["mirror-only"] = Question(referent, text, mirrored=True)
        if short:
            questions["drop"] = Question(referent, short.text, dropped=short.dropped)
        questions |= {probe: Question(referent, new) for probe, new in texts.items() if new}
        return Case(questions, image_id=int(self._image_ids[referent]), other=other)

    def _of_picture(self, referent: int) -> list[int]:
        """The referents of the same photograph, this one too."""
        image = self._image_ids[referent]
        first, last = (np.searchsorted(self._sorted_ids, image, side) for side in ("left", "right"))
        return self._by_picture[first:last].tolist()

    def _other(self, referent: int, *, rng: np.random.Generator) -> int | None:
        """Another referent of the photograph, clearly of another mask."""
        mask = self.truth(referent).mask
        others = [(i, self.truth(i).mask) for i in self._of_picture(referent) if i != referent]
        fitting = [i for i, m in others if m.any() and iou(mask, m) <= DIFFERENT]
        return _any(fitting, rng=rng) if fitting else None

    def _absent(self, referent: int, *, rng: np.random.Generator) -> str | None:
        """An expression from another photograph that names something and shares no word with any
        expression of this one."""
        ours = self._of_picture(referent)
        said = [content_words(text) for i in ours for text in self.truth(i).expressions]
        known = frozenset().union(*said)
        if not known:  # "left one": who knows what is there
            return None
        for i in rng.permutation(len(self._naming))[:TRIES]:
            text, words, image = self._naming[i]
            if image != self._image_ids[referent] and not words & known:
                return text
        return None

    @cached_property
    def _naming(self) -> list[tuple[str, frozenset[str], int]]:
        """Expressions of the sample that name something: text, content words, photograph."""
        found = (
            (self.truth(referent).expressions[expression], int(self._image_ids[referent]))
            for referent, expression in self._sample.tolist()
        )
        return [(text, content_words(text), i) for text, i in found if names_something(text)]


def _any(items: Sequence[Item], *, rng: np.random.Generator) -> Item:
    return items[int(rng.integers(len(items)))]

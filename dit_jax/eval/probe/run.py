"""Probes: ask a model all questions of a split, and summarise its answers.

An answer is made as the protocol `original` makes a mask, and is empty where the model says that
nothing is meant. All questions of a split are one `Source`, so one compiled program answers them
in full batches.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from dit_jax.data.pipeline import AHEAD, eval_batches
from dit_jax.data.referent import Source, Truth
from dit_jax.data.tokenizer import Tokenizer
from dit_jax.eval.collect import Sample, Thresholds
from dit_jax.eval.metrics import iou
from dit_jax.eval.predictions import Predict, Prediction, predictions
from dit_jax.eval.probe.cases import ORIGINAL, Case, Plan, Questions, plan
from dit_jax.eval.probe.measures import PROBES, AnswerPair, Mask
from dit_jax.eval.probe.summary import Group, Outcome, by_class, by_dropped_word, verdicts
from dit_jax.eval.protocols import PRESENCE_THRESHOLD, PROTOCOLS, THRESHOLD, Answer
from dit_jax.eval.relations import relation_classes

SHOWN = 6  # answers that another object's words did not move


@dataclass(frozen=True)
class Result:
    """What the probes of one split showed; measures in percent."""

    plan: Plan
    groups: dict[str, dict[str, Group]]  # probe → "all" and relation classes
    dropped: dict[str, Group]  # the probe "drop" again, by the kind of the missing word
    verdicts: dict[str, str]  # see ``summary.RULES``
    stuck: tuple[Sample, ...]  # right at first, and not moved by another object's words; the worst


@dataclass(frozen=True)
class _Answered:
    """A case and the masks that the model gave to its questions, on the unmirrored picture."""

    case: Case
    masks: dict[str, Mask]
    truth: Truth
    other: Truth | None

    def pair(self, probe: str) -> AnswerPair:
        other = None if self.other is None else self.other.mask
        return AnswerPair(
            before=self.masks[ORIGINAL],
            after=self.masks[probe],
            truth=self.truth.mask,
            other=other,
            mirrored=self.masks["mirror"],
        )


def probe(
    predict_fn: Predict,
    source: Source,
    tokenizer: Tokenizer,
    *,
    size: int,
    batch_size: int,
    limit: int,
    seed: int,
    threshold: float = THRESHOLD,
    presence_threshold: float = PRESENCE_THRESHOLD,
    resamples: int = 1000,
    ahead_bytes: int = AHEAD,
    progress: bool = True,
) -> Result:
    """Probe `limit` expressions, spread evenly over a source; 0 = all of them.

    Raises ValueError where the source has nothing to probe or an answer is no number.
    """
    planned = plan(source, limit=limit, seed=seed)
    asked = Questions(source, planned.questions())
    how = dict(size=size, batch_size=batch_size, ahead_bytes=ahead_bytes)
    batches = iter(eval_batches(asked, tokenizer, **how))
    thresholds = Thresholds(threshold, presence_threshold)
    outcomes, stuck = [], []
    with closing(predictions(predict_fn, batches, count=len(asked))) as stream:
        bar = tqdm(
            stream,
            total=len(asked),
            unit="question",
            disable=None if progress else True,
            leave=False,
        )
        for answered in _answers(iter(bar), planned, source, thresholds=thresholds):
            outcomes += _outcomes(answered)
            stuck = _most_stuck([*stuck, (_stuckness(answered), answered)])
    groups = by_class(outcomes, resamples=resamples, seed=seed)
    return Result(
        planned,
        groups,
        by_dropped_word(outcomes, resamples=resamples, seed=seed),
        verdicts(groups),
        tuple(_sample(one, source) for _, one in stuck),
    )


def _answers(
    stream: Iterator[Prediction], planned: Plan, source: Source, *, thresholds: Thresholds
) -> Iterator[_Answered]:
    """Put together what belongs to one case; the stream is in the order of its questions."""
    for case in planned.cases:
        truth = source.truth(case.referent)
        other = None if case.other is None else source.truth(case.other)
        masks = {}
        for name, question in case.questions.items():
            mask = _mask(next(stream), truth, text=question.text, thresholds=thresholds)
            masks[name] = mask[:, ::-1] if question.mirrored else mask
        yield _Answered(case, masks, truth, other)


def _mask(seen: Prediction, truth: Truth, *, text: str, thresholds: Thresholds) -> Mask:
    """The answer at the picture's own size."""
    there = 0.0 if seen.presence is None else seen.presence
    if not (np.isfinite(seen.logits).all() and np.isfinite(there)):
        raise ValueError(f"{truth.id}: the answer to {text!r} is not finite, expected numbers.")
    answer = Answer(
        logits=seen.logits,
        content=seen.content,
        truth=truth.mask,
        presence=seen.presence,
        threshold=thresholds.threshold,
        presence_threshold=thresholds.presence_threshold,
    )
    if answer.nothing:
        return np.zeros_like(truth.mask)
    return PROTOCOLS["original"].mask(answer)


def _outcomes(answered: _Answered) -> list[Outcome]:
    case = answered.case
    found = []
    for name, question in case.questions.items():
        if name != ORIGINAL:
            row = PROBES[name]
            text = question.text if row.asked else case.questions[ORIGINAL].text
            values = row.measure(answered.pair(name))
            classes = relation_classes(text)
            found.append(Outcome(name, classes, question.dropped, case.image_id, values))
    return found


def _stuckness(answered: _Answered) -> float:
    """Up to 1, where the answer was right and stayed although another object was asked for."""
    if "other" not in answered.masks:
        return 0.0
    pair = answered.pair("other")
    return iou(pair.before, pair.truth) * iou(pair.before, pair.after) - iou(pair.after, pair.other)


def _most_stuck(cases: list[tuple[float, _Answered]]) -> list[tuple[float, _Answered]]:
    """The `SHOWN` worst, at most one a picture."""
    ranked = sorted((one for one in cases if one[0] > 0), key=lambda one: one[0])
    worst = {answered.case.image_id: (score, answered) for score, answered in ranked}
    return sorted(worst.values(), key=lambda one: -one[0])[:SHOWN]


def _sample(answered: _Answered, source: Source) -> Sample:
    """The other object's words, what they mean and what the model answered."""
    pair = answered.pair("other")
    return Sample(
        image=source[answered.case.referent].image,
        truth=pair.other,
        predicted=pair.after,
        expression=answered.case.questions["other"].text,
        iou=iou(pair.after, pair.other),
        id=answered.truth.id,
    )

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
from dit_jax.eval.predictions import Predict, Prediction, check_finite, predictions
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
    score_kind: str  # what the measure "score" is: "predicted_iou" or "confidence"


@dataclass(frozen=True)
class _Answered:
    """A case and the masks that the model gave to its questions, on the unmirrored picture."""

    case: Case
    masks: dict[str, Mask]
    scores: dict[str, float]
    truth: Truth
    other: Truth | None
    score_kind: str

    def pair(self, probe: str) -> AnswerPair:
        other = None if self.other is None else self.other.mask
        return AnswerPair(
            before=self.masks[ORIGINAL],
            after=self.masks[probe],
            truth=self.truth.mask,
            other=other,
            mirrored=self.masks["mirror"],
            scores=(self.scores[ORIGINAL], self.scores[probe]),
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
    outcomes, stuck, kind = [], [], ""
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
            kind = answered.score_kind
            stuck = _most_stuck([*stuck, (_stuckness(answered), answered)])
    groups = by_class(outcomes, resamples=resamples, seed=seed)
    return Result(
        planned,
        groups,
        by_dropped_word(outcomes, resamples=resamples, seed=seed),
        verdicts(groups),
        tuple(_sample(one, source) for _, one in stuck),
        kind,
    )


def _answers(
    stream: Iterator[Prediction], planned: Plan, source: Source, *, thresholds: Thresholds
) -> Iterator[_Answered]:
    """Put together what belongs to one case; the stream is in the order of its questions."""
    for case in planned.cases:
        truth = source.truth(case.referent)
        other = None if case.other is None else source.truth(case.other)
        masks, scores = {}, {}
        for name, question in case.questions.items():
            answer = _answer(next(stream), truth, text=question.text, thresholds=thresholds)
            mask = _mask(answer)
            masks[name] = mask[:, ::-1] if question.mirrored else mask
            scores[name] = answer.score
        yield _Answered(case, masks, scores, truth, other, answer.score_kind)


def _answer(seen: Prediction, truth: Truth, *, text: str, thresholds: Thresholds) -> Answer:
    check_finite(seen, name=truth.id, what=f"the answer to {text!r} is")
    return Answer(
        logits=seen.logits,
        content=seen.content,
        truth=truth.mask,
        presence=seen.presence,
        predicted_iou=seen.predicted_iou,
        threshold=thresholds.threshold,
        presence_threshold=thresholds.presence_threshold,
    )


def _mask(answer: Answer) -> Mask:
    """At the picture's own size."""
    if answer.nothing:
        return np.zeros_like(answer.truth)
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

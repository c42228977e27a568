"""One pass over a model's answers: each becomes an outcome in every protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from dit_jax.data.pipeline import expression_table
from dit_jax.data.referent import Source, Truth
from dit_jax.eval.metrics import iou
from dit_jax.eval.outcomes import Outcome, Outcomes, about, outcome
from dit_jax.eval.prediction_files import Writer, encoded
from dit_jax.eval.predictions import Prediction, check_finite
from dit_jax.eval.protocols import PROTOCOLS, Answer, Pair, Protocol


@dataclass(frozen=True)
class Sample:
    """One scored expression to look at; `predicted`, `truth` and `iou` are the first protocol's."""

    image: UInt8[np.ndarray, "H W 3"]
    truth: Bool[np.ndarray, "h w"]
    predicted: Bool[np.ndarray, "h w"]
    expression: str
    iou: float  # 0 to 1
    id: str


@dataclass(frozen=True)
class Thresholds:
    threshold: float  # on the probability of a pixel, in protocols that leave it open
    presence_threshold: float  # on the probability that something is meant


class Collector:
    """Takes answers with `add`; has `samples`, `outcomes()`, `says_nothing` and `score_kind`."""

    def __init__(
        self,
        source: Source,
        protocols: Mapping[str, Protocol],
        *,
        thresholds: Thresholds,
        shown: frozenset[int],
        lines: Writer | None,
    ):
        self.samples: list[Sample] = []
        self.says_nothing = False  # whether the model has an answer of its own for "nothing"
        self.score_kind: str | None = None  # what its scores are; None before the first answer
        self._source, self._protocols = source, protocols
        self._where = expression_table(source)
        self._thresholds, self._shown, self._lines = thresholds, shown, lines
        self._rows: dict[str, list[Outcome]] = {name: [] for name in protocols}
        self._known = lru_cache(maxsize=1)(self._look_up)  # neighbours share their referent

    def add(self, seen: Prediction) -> None:
        referent, number = (int(n) for n in self._where[seen.index])
        known = self._known(referent)
        text = known.truth.expressions[number]
        check_finite(seen, name=known.truth.id, what=f"the logits for {text!r} are")
        answer = Answer(
            logits=seen.logits,
            content=seen.content,
            truth=known.truth.mask,
            presence=seen.presence,
            predicted_iou=seen.predicted_iou,
            threshold=self._thresholds.threshold,
            presence_threshold=self._thresholds.presence_threshold,
        )
        pairs = {name: protocol.pair(answer) for name, protocol in self._protocols.items()}
        self.says_nothing |= seen.presence is not None
        self.score_kind = answer.score_kind
        self._count(pairs, known, text=text, index=seen.index, score=answer.score)
        if seen.index in self._shown:
            image = self._source[referent].image
            self.samples.append(_sample(image, known.truth, text, next(iter(pairs.values()))))
        if self._lines is not None:
            self._lines.write(_line(answer, known, number=number, index=seen.index))

    def outcomes(self) -> dict[str, Outcomes]:
        return {name: Outcomes.of(rows) for name, rows in self._rows.items()}

    def _count(
        self, pairs: Mapping[str, Pair], known: "_Known", *, text: str, index: int, score: float
    ) -> None:
        truth = known.truth
        common = about(text, truth.mask, index=index, image_id=truth.image_id, target=known.area)
        for name, pair in pairs.items():
            how = dict(nothing=pair.nothing, about=common, score=score)
            row = outcome(pair.predicted, pair.truth, **how)
            self._rows[name].append(row)

    def _look_up(self, referent: int) -> "_Known":
        truth, source = self._source.truth(referent), self._source
        ids = source.record_ids(referent)["sent_ids"] if hasattr(source, "record_ids") else None
        area = int(np.count_nonzero(truth.mask))
        return _Known(truth, area, ids or [None] * len(truth.expressions))


@dataclass(frozen=True)
class _Known:
    """A referent's truth, and what is worked out of it once for all its expressions."""

    truth: Truth
    area: int  # pixels that are meant
    sent_ids: Sequence[int | None]  # of its expressions, where the source knows them

    @cached_property
    def runs(self) -> dict[str, Any]:
        return encoded(self.truth.mask)


def _line(answer: Answer, known: _Known, *, number: int, index: int) -> dict[str, Any]:
    """See `prediction_files`; the mask is that of the protocol `original`."""
    truth, sent_id = known.truth, known.sent_ids[number]
    return {
        "index": index,
        "image_id": truth.image_id,
        "id": truth.id,
        **({} if sent_id is None else {"sent_id": sent_id}),
        "text": truth.expressions[number],
        "size": list(truth.mask.shape),
        "nothing": answer.nothing,
        "score": answer.score,
        "score_kind": answer.score_kind,
        "mask": encoded(PROTOCOLS["original"].mask(answer)),
        "truth": known.runs,
    }


def _sample(image: UInt8[np.ndarray, "H W 3"], truth: Truth, expression: str, pair: Pair) -> Sample:
    return Sample(
        image=image,
        truth=pair.truth,
        predicted=pair.predicted,
        expression=expression,
        iou=iou(pair.predicted, pair.truth),
        id=truth.id,
    )

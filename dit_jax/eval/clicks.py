"""Scores of points and boxes: what a model answers after so many clicks, or to a box.

Clicks stand where RITM's evaluation puts them (Sofiiuk et al. 2022): in the middle of the largest
error, which is the pixel farthest from where the answer is right, outside the picture counting as
right. The answer before goes along as a mask. Boxes are the tight ones.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int32
from tqdm import tqdm

from dit_jax.data.pipeline import AHEAD, Batch, eval_batches, expression_table
from dit_jax.data.pixels import Content, restore
from dit_jax.data.referent import Source, Stated, Truth
from dit_jax.data.tokenizer import Words
from dit_jax.eval.collect import Sample
from dit_jax.eval.evaluate import Evaluation, Gather, count_of, gathered, spread, summarise
from dit_jax.eval.metrics import iou
from dit_jax.eval.outcomes import Outcome, Outcomes, about, outcome
from dit_jax.eval.protocols import CLICKS

MOST = max(CLICKS.values())
Mask = Bool[np.ndarray, "H W"]


@dataclass(frozen=True)
class Prompts:
    """What is pointed at in each picture of a batch, on its canvas; arrays that are written to."""

    points: Float32[np.ndarray, "b p 2"]
    labels: Int32[np.ndarray, "b p"]
    given: Bool[np.ndarray, "b p"]  # which of the points there are
    boxes: Float32[np.ndarray, "b 4"]
    boxed: Bool[np.ndarray, " b"]

    @staticmethod
    def none(rows: int) -> "Prompts":
        points = np.zeros((rows, MOST, 2), np.float32)
        labels, given = np.zeros((rows, MOST), np.int32), np.zeros((rows, MOST), bool)
        return Prompts(points, labels, given, np.zeros((rows, 4), np.float32), np.zeros(rows, bool))

    @staticmethod
    def around(boxes: Sequence[Sequence[float]]) -> "Prompts":
        """A box in each row."""
        empty = Prompts.none(len(boxes))
        return replace(empty, boxes=np.float32(boxes), boxed=np.ones(len(boxes), bool))


@dataclass(frozen=True)
class Reply:
    """Logits on the canvas, `[b,S,S]`, or `[b,3,S,S]` where several were wanted; which of those the
    model takes for the best; and whatever `Pointable.ask` takes as `before`."""

    logits: Any
    chosen: Any
    small: Any


@dataclass(frozen=True)
class Pointable:
    """A model that can be pointed at; its embeddings are computed once a batch."""

    embed: Callable[[Batch], Any]
    # (embeddings, prompts, before, several) → Reply
    ask: Callable[[Any, Prompts, Any, bool], Reply]
    # what a text is answered, where clicks correct that
    read: Callable[[Any], Reply] | None
    threshold: float  # on logits


@dataclass
class Row:
    """One object of a batch while it is pointed at."""

    index: int
    truth: Truth
    text: str
    content: Content
    answer: Mask
    clicked: Mask


def evaluate(
    model: Pointable,
    source: Source,
    tokenizer: Words,
    *,
    size: int,
    batch_size: int,
    names: Sequence[str],
    bootstrap: int = 0,
    limit: int = 0,
    keep: int = 8,
    progress: bool = True,
    shard_index: int = 0,
    shard_count: int = 1,
    gather: Gather | None = None,
    ahead_bytes: int = AHEAD,
) -> Evaluation:
    """Scores of the named ways of pointing (`protocols.CLICKS`) at every object of a split.

    Where clicks correct texts, at every expression. What fits nothing in its picture is left out.
    For the other arguments see `evaluate.evaluate`.
    """
    objects = model.read is None
    count = count_of(len(expression_table(source, objects=objects)), limit)
    share = range(shard_index, count, shard_count)
    how = dict(shard_index=shard_index, shard_count=shard_count, ahead_bytes=ahead_bytes)
    how |= dict(size=size, batch_size=batch_size, objects=objects, corner=objects)
    batches = iter(eval_batches(source, tokenizer, **how))
    pointing = Pointing(model, source, names, objects=objects, shown=spread(share, keep))
    steps = -(-count // (batch_size * shard_count))
    with closing(batches):
        shown = tqdm(range(steps), unit="batch", disable=None if progress else True, leave=False)
        for _ in shown:
            pointing.add(next(batches), count=count)
    outcomes = pointing.outcomes()
    if gather is not None:
        rows = -(-count // shard_count)
        outcomes = gathered(outcomes, gather, count=None, rows=rows)
    remarks = source.remarks() if isinstance(source, Stated) else {}
    remarks |= {"limit": count} if limit else {}
    about = dict(bootstrap=bootstrap, remarks=remarks)
    scores = {name: summarise(name, table, **about) for name, table in outcomes.items()}
    return Evaluation(scores, pointing.samples, outcomes)


class Pointing:
    """Points at the objects of batches; has `samples` and `outcomes()`."""

    def __init__(
        self,
        model: Pointable,
        source: Source,
        names: Sequence[str],
        *,
        objects: bool,
        shown: frozenset[int],
    ):
        self.samples: list[Sample] = []
        self._model, self._source, self._shown = model, source, shown
        self._rows: dict[str, list[Outcome]] = {name: [] for name in names}
        self._where = expression_table(source, objects=objects)
        self._last = max(CLICKS[name] for name in names)

    def outcomes(self) -> dict[str, Outcomes]:
        return {name: Outcomes.of(rows) for name, rows in self._rows.items()}

    def add(self, batch: Batch, *, count: int) -> None:
        """Every row of a batch with an `index` below `count` that is `valid`."""
        rows = [self._row(batch, place) for place in range(len(batch["index"]))]
        used = [
            bool(batch["valid"][place]) and row.index < count and bool(row.truth.mask.any())
            for place, row in enumerate(rows)
        ]
        embedded = self._model.embed(batch)
        if "box" in self._rows:
            prompts = Prompts.around([_box(row) for row in rows])
            reply = self._model.ask(embedded, prompts, None, False)
            self._note("box", rows, used, _masks(reply.logits, rows, self._model.threshold))
        before = None
        if self._model.read is not None:
            reply = self._model.read(embedded)
            before = reply.small
            self._look(rows, reply)
        prompts = Prompts.none(len(rows))
        for click in range(1, self._last + 1):
            for place, row in enumerate(rows):
                _click(prompts, row, place=place, number=click - 1)
            several = click == 1 and self._model.read is None
            reply = self._model.ask(embedded, prompts, before, several)
            before = reply.small
            self._look(rows, reply, best=f"click{click}_oracle", used=used)
            self._note(f"click{click}", rows, used, [row.answer for row in rows])
        for row, counts in zip(rows, used, strict=True):
            if counts and row.index in self._shown:
                self.samples.append(self._sample(row))

    def _row(self, batch: Batch, place: int) -> Row:
        index = int(batch["index"][place])
        referent, number = (int(n) for n in self._where[index])
        truth = self._source.truth(referent)
        content = tuple(int(side) for side in batch["content"][place])
        blank = np.zeros(truth.mask.shape, bool)
        text = truth.expressions[number]
        return Row(index, truth, text, content, blank, blank.copy())

    def _look(
        self, rows: Sequence[Row], reply: Reply, *, best: str = "", used: Sequence[bool] = ()
    ) -> None:
        """Take the answers; where several were wanted, the one that the model chose."""
        logits, threshold = np.asarray(reply.logits, np.float32), self._model.threshold
        if logits.ndim == 3:
            answers = _masks(logits, rows, threshold)
        else:
            each = [_masks(one, rows, threshold) for one in logits.swapaxes(0, 1)]
            chosen = np.asarray(reply.chosen)
            answers = [each[chosen[place]][place] for place in range(len(rows))]
            if best in self._rows:
                options = zip(*each, strict=True)
                oracle = [
                    max(masks, key=lambda mask: iou(mask, row.truth.mask))
                    for masks, row in zip(options, rows, strict=True)
                ]
                self._note(best, rows, used, oracle)
        for row, answer in zip(rows, answers, strict=True):
            row.answer = answer

    def _note(
        self, name: str, rows: Sequence[Row], used: Sequence[bool], masks: Sequence[np.ndarray]
    ) -> None:
        if name not in self._rows:
            return
        for row, counts, mask in zip(rows, used, masks, strict=True):
            if counts:
                truth = row.truth
                known = dict(index=row.index, image_id=truth.image_id)
                common = about(row.text, truth.mask, **known, target=int(truth.mask.sum()))
                said = outcome(mask, truth.mask, nothing=not mask.any(), about=common)
                self._rows[name].append(said)

    def _sample(self, row: Row) -> Sample:
        image = self._source[int(self._where[row.index][0])].image
        truth = row.truth
        said = f"{row.text}, {self._last} clicks"
        return Sample(image, truth.mask, row.answer, said, iou(row.answer, truth.mask), truth.id)


def middle_of_error(truth: Mask, answer: Mask, clicked: Mask) -> tuple[int, int, bool]:
    """x, y of the next click, and whether it says "object"; pixels `clicked` before do not count.

    Where nothing is wrong but what was clicked, the middle of the rest of the object.
    """
    missing, too_much = truth & ~answer, answer & ~truth
    if not ((missing | too_much) & ~clicked).any():
        missing, too_much = truth, truth & False
        clicked = clicked & ~truth if clicked[truth].all() else clicked  # every one was: again
    depths = [_depth(region) * ~clicked for region in (missing, too_much)]
    positive = bool(depths[0].max() > depths[1].max())
    y, x = np.unravel_index(np.argmax(depths[not positive]), truth.shape)
    return int(x), int(y), positive


def _depth(region: Mask) -> Float32[np.ndarray, "H W"]:
    """How far each pixel is from the region's border; the picture's border is one."""
    padded = np.pad(region.astype(np.uint8), 1)
    return cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]


def _click(prompts: Prompts, row: Row, *, place: int, number: int) -> None:
    """Put the next click of a row into its prompts."""
    x, y, positive = middle_of_error(row.truth.mask, row.answer, row.clicked)
    row.clicked[y, x] = True
    prompts.points[place, number] = _on_canvas([x, y], row)
    prompts.labels[place, number] = positive
    prompts.given[place, number] = True


def _box(row: Row) -> list[float]:
    """x0, y0, x1, y1 of the object on the canvas."""
    ys, xs = np.nonzero(row.truth.mask)
    if not len(xs):
        return [0.0, 0.0, 1.0, 1.0]  # nothing is there to be pointed at
    ends = (
        _on_canvas([xs.min() - 0.5, ys.min() - 0.5], row),
        _on_canvas([xs.max() + 0.5, ys.max() + 0.5], row),
    )
    return [number + 0.5 for end in ends for number in end]


def _on_canvas(point: Sequence[int] | Sequence[float], row: Row) -> list[float]:
    """Pixel centres onto pixel centres."""
    top, left, height, width = row.content
    sides = row.truth.mask.shape[::-1]
    scaled = (np.float64(point) + 0.5) * (np.array([width, height]) / sides) - 0.5
    return (scaled + [left, top]).tolist()


def _masks(logits: Any, rows: Sequence[Row], threshold: float) -> list[Mask]:
    """At the pictures' own sizes."""
    return [
        restore(one, row.content, height=row.truth.mask.shape[0], width=row.truth.mask.shape[1])
        > threshold
        for one, row in zip(np.asarray(logits, np.float32), rows, strict=True)
    ]

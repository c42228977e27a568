"""Score a model on every expression of a split, and write what came out.

`evaluate` runs the model one batch ahead of the scoring: JAX returns from `predict_fn` before the
device is done, so the device works on the next batch while the host resizes and compares masks.
"""

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from tqdm import tqdm

from dit_jax.data.pipeline import Batch, eval_batches, expression_table
from dit_jax.data.referent import Referent, Source
from dit_jax.data.tokenizer import Tokenizer
from dit_jax.data.transforms import Content
from dit_jax.eval.metrics import Scores, Sums, iou
from dit_jax.eval.protocols import THRESHOLD, Pair, Protocol, rows

# A batch to its logits [b,S,S]: a NumPy array, or a JAX array that is still being computed.
Predict = Callable[[Batch], Any]

COLUMNS = ("oIoU", "mIoU", "P@0.5", "P@0.6", "P@0.7", "P@0.8", "P@0.9")


@dataclass(frozen=True)
class Sample:
    """One scored expression to look at; `predicted`, `truth` and `iou` are the first protocol's."""

    image: UInt8[np.ndarray, "H W 3"]
    truth: Bool[np.ndarray, "h w"]
    predicted: Bool[np.ndarray, "h w"]
    expression: str
    iou: float  # 0 to 1
    id: str


def evaluate(
    predict_fn: Predict,
    source: Source,
    tokenizer: Tokenizer,
    *,
    size: int,
    batch_size: int,
    protocols: Sequence[str],
    threshold: float = THRESHOLD,
    limit: int = 0,
    progress: bool = True,
    keep: int = 8,
) -> tuple[dict[str, Scores], list[Sample]]:
    """Scores (percent) of each protocol over all expressions, and `keep` samples spread over them.

    `limit` > 0 scores the first `limit` expressions only; scores that this cut short say so under
    "limit", and those of another threshold than the protocols' own under "threshold".
    """
    functions = rows(protocols, threshold=threshold)
    where = expression_table(source)
    count = _count(len(where), limit)
    shown = _spread(count, keep)
    referent_at = lru_cache(maxsize=1)(source.__getitem__)  # neighbours share their referent
    batches = iter(eval_batches(source, tokenizer, size=size, batch_size=batch_size))
    sums = dict.fromkeys(functions, Sums())
    samples = []
    with closing(_predictions(predict_fn, batches, count=count)) as predictions:
        for seen in tqdm(predictions, total=count, unit="expr", disable=not progress, leave=False):
            referent = referent_at(int(where[seen.index, 0]))
            text = referent.expressions[int(where[seen.index, 1])]
            pairs = _pairs(functions, seen, referent, text=text, threshold=threshold)
            sums = {name: sums[name] + Sums.of(p.predicted, p.truth) for name, p in pairs.items()}
            if seen.index in shown:
                samples.append(_sample(referent, text, pair=next(iter(pairs.values()))))
    remarks = {"limit": limit} if count < len(where) else {}
    if threshold != THRESHOLD:
        remarks["threshold"] = threshold
    return {n: {**sums[n].scores(), "protocol": n, **remarks} for n in functions}, samples


def write_scores(
    workdir: str | os.PathLike[str], dataset: str, split: str, scores: Mapping[str, Scores]
) -> list[Path]:
    """Write each protocol's scores to `<workdir>/eval/<dataset>-<split>-<protocol>.json`."""
    folder = Path(workdir) / "eval"
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for protocol, row in scores.items():
        path = folder / f"{dataset}-{split}-{protocol}.json"
        rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
        unfinished = path.with_suffix(".json.tmp")
        unfinished.write_text(json.dumps(rounded, indent=2) + "\n")
        unfinished.replace(path)  # a reader never meets half a file
        paths.append(path)
    return paths


def table(results: Mapping[str, Mapping[str, Scores]]) -> str:
    """An aligned text table of {split: {protocol: scores}}, one row for each pair of the two.

    An `n` with a star counts a part of the split: its evaluation was limited.
    """
    lines = [("split", "protocol", *COLUMNS, "n")]
    for split, scores in results.items():
        for protocol, row in scores.items():
            figures = (f"{row[column]:.2f}" for column in COLUMNS)
            lines.append((split, protocol, *figures, f"{row['n']}{'*' if 'limit' in row else ''}"))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(_aligned(line, widths) for line in lines)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Words to the left, figures to the right."""
    words = [c.ljust(w) for c, w in zip(cells[:2], widths[:2], strict=True)]
    figures = [c.rjust(w) for c, w in zip(cells[2:], widths[2:], strict=True)]
    return "  ".join([*words, *figures])


def _count(expressions: int, limit: int) -> int:
    if limit < 0:
        raise ValueError(f"limit is {limit}, expected 0 (all expressions) or more.")
    return min(limit or expressions, expressions)


def _spread(count: int, keep: int) -> frozenset[int]:
    """At most `keep` of the indices below `count`, evenly spaced."""
    return frozenset(np.linspace(0, count - 1, min(keep, count)).astype(int).tolist())


@dataclass(frozen=True)
class _Prediction:
    """The logits for one expression, on the canvas that the model saw."""

    index: int
    logits: Float32[np.ndarray, "S S"]
    content: Content


def _predictions(
    predict_fn: Predict, batches: Iterator[Batch], *, count: int
) -> Iterator[_Prediction]:
    """Predictions for the first `count` expressions, in order."""
    started: deque[tuple[Batch, Any]] = deque()
    try:
        for batch in batches:
            started.append((batch, predict_fn(batch)))
            if batch["index"].max() >= count - 1:  # the rest is beyond the limit
                break
            if len(started) > 1:
                yield from _unbatched(*started.popleft(), count=count)
        while started:
            yield from _unbatched(*started.popleft(), count=count)
    finally:
        batches.close()  # stops the threads that prepare batches beyond the limit


def _unbatched(batch: Batch, logits: Any, *, count: int) -> Iterator[_Prediction]:
    logits = np.asarray(logits, np.float32)  # waits for the device
    if logits.shape != batch["mask"].shape:
        raise ValueError(
            f"the logits have the shape {logits.shape}, expected {batch['mask'].shape}: one per"
            " pixel of the canvas."
        )
    for row in np.flatnonzero(batch["valid"] & (batch["index"] < count)):
        content = tuple(int(side) for side in batch["content"][row])
        yield _Prediction(int(batch["index"][row]), logits[row], content)


def _pairs(
    functions: Mapping[str, Protocol],
    seen: _Prediction,
    referent: Referent,
    *,
    text: str,
    threshold: float,
) -> dict[str, Pair]:
    if not np.isfinite(seen.logits).all():
        raise ValueError(
            f"{referent.id}: the logits for {text!r} are not finite, expected numbers."
        )
    return {
        name: function(seen.logits, referent.mask, content=seen.content, threshold=threshold)
        for name, function in functions.items()
    }


def _sample(referent: Referent, expression: str, *, pair: Pair) -> Sample:
    return Sample(
        image=referent.image,
        truth=pair.truth,
        predicted=pair.predicted,
        expression=expression,
        iou=iou(pair.predicted, pair.truth),
        id=referent.id,
    )

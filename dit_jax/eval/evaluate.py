"""Score a model on every expression of a split, under several protocols in one pass.

Hosts can share the work: each runs the batches of its own shard, `gather` brings the outcomes of
all of them together, and every host then computes the same scores.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from tqdm import tqdm

from dit_jax.data.pipeline import AHEAD, eval_batches
from dit_jax.data.referent import Source, Stated
from dit_jax.data.tokenizer import Tokenizer
from dit_jax.eval.bootstrap import intervals
from dit_jax.eval.breakdown import breakdown
from dit_jax.eval.collect import Collector, Sample, Thresholds
from dit_jax.eval.metrics import Scores, measure, ranking
from dit_jax.eval.outcomes import Outcomes, join
from dit_jax.eval.prediction_files import Writer
from dit_jax.eval.predictions import Predict, predictions
from dit_jax.eval.protocols import (
    FEW_PIXELS,
    PRESENCE_THRESHOLD,
    PROTOCOLS,
    THRESHOLD,
    conventions,
    rows,
)

# Rows [n,k] of one host → those of all hosts, in any order. All hosts bring equally many.
Gather = Callable[[Int64[np.ndarray, "n k"]], Int64[np.ndarray, "m k"]]


@dataclass(frozen=True)
class Evaluation:
    """What came out of one split; scores and outcomes by protocol."""

    scores: dict[str, Scores]
    samples: list[Sample]  # of this host
    outcomes: dict[str, Outcomes]


@dataclass(frozen=True)
class Shard:
    """Which part of the expressions one host scores: every `count`-th, from `index` on."""

    index: int = 0
    count: int = 1


def evaluate(
    predict_fn: Predict,
    source: Source,
    tokenizer: Tokenizer,
    *,
    size: int,
    batch_size: int,
    protocols: Sequence[str],
    threshold: float = THRESHOLD,
    presence_threshold: float = PRESENCE_THRESHOLD,
    bootstrap: int = 0,
    limit: int = 0,
    keep: int = 8,
    progress: bool = True,
    predictions_path: str | os.PathLike[str] | None = None,
    about: Mapping[str, Any] | None = None,
    shard_index: int = 0,
    shard_count: int = 1,
    gather: Gather | None = None,
    ahead_bytes: int = AHEAD,
) -> Evaluation:
    """Scores of each protocol over all expressions, and `keep` samples spread over them.

    Args:
      batch_size: expressions that this host runs together.
      threshold: on the probability of a pixel, in protocols that leave it open.
      presence_threshold: on the probability that something is meant.
      bootstrap: resamples of the pictures for the intervals; 0 = no intervals.
      limit: how many expressions are scored, the first ones; 0 = all.
      predictions_path: also write every mask of the protocol `original` there, see
        `prediction_files`; with several shards, each writes a file of its own beside it.
      about: what each of its lines says first, e.g. {"dataset": …, "split": …}.
      gather: brings the shards' outcomes together; without it, scores are those of this shard.
      ahead_bytes: memory for batches that are made before they are asked for.

    What the scores depend on beside the protocol, like a limit, is in their "remarks".
    """
    chosen = rows(protocols, threshold=threshold, presence_threshold=presence_threshold)
    thresholds, shard = Thresholds(threshold, presence_threshold), Shard(shard_index, shard_count)
    expressions = int(source.expression_counts().sum())
    count = count_of(expressions, limit)
    share = range(shard.index, count, shard.count)
    how = dict(size=size, batch_size=batch_size, ahead_bytes=ahead_bytes)
    how |= dict(shard_index=shard.index, shard_count=shard.count)
    batches = iter(eval_batches(source, tokenizer, **how))
    with ExitStack() as stack:
        answers = predictions(predict_fn, batches, count=count, shard_count=shard.count)
        stack.enter_context(closing(answers))
        lines = None
        if predictions_path is not None:
            lines = stack.enter_context(Writer(_path(predictions_path, shard), about=about or {}))
        shown = spread(share, keep)
        collector = Collector(source, chosen, thresholds=thresholds, shown=shown, lines=lines)
        for seen in tqdm(
            answers, total=len(share), unit="expr", disable=None if progress else True, leave=False
        ):
            collector.add(seen)
    outcomes = collector.outcomes()
    if gather is not None:
        outcomes = gathered(outcomes, gather, count=count, rows=-(-count // shard.count))
    remarks = {"limit": count} if count < expressions else {}
    remarks |= source.remarks() if isinstance(source, Stated) else {}
    scores = {}
    for name, table in outcomes.items():
        more = remarks | _remarks(name, thresholds, says_nothing=collector.says_nothing)
        about_it = dict(remarks=more, score_kind=collector.score_kind)
        scores[name] = summarise(name, table, bootstrap=bootstrap, **about_it)
    return Evaluation(scores, collector.samples, outcomes)


def summarise(
    protocol: str,
    outcomes: Outcomes,
    *,
    bootstrap: int,
    remarks: Mapping[str, Any] | None = None,
    score_kind: str | None = None,
) -> Scores:
    """Everything that is said about one protocol's outcomes on a split.

    METRICS, `n`, RANKING, `score_kind` (what RANKING is about), `protocol`, `reported` (metrics
    that its papers print), `intervals` where `bootstrap` asks for them, `breakdown` and `remarks`.
    """
    counted = conventions(protocol)
    scores = measure(outcomes, counted) | ranking(outcomes, counted)
    scores |= {"score_kind": score_kind, "protocol": protocol}
    scores["reported"] = list(counted.reported)
    if bootstrap:
        scores["intervals"] = intervals(outcomes, counted, resamples=bootstrap)
    scores["breakdown"] = breakdown(outcomes, counted)
    scores["remarks"] = dict(remarks or {})
    return scores


def count_of(expressions: int, limit: int) -> int:
    """How many of them are scored."""
    if limit < 0:
        raise ValueError(f"limit is {limit}, expected 0 (all expressions) or more.")
    return min(limit or expressions, expressions)


def spread(share: range, keep: int) -> frozenset[int]:
    """At most `keep` of the indices of a share, evenly spaced."""
    places = np.linspace(0, len(share) - 1, min(keep, len(share))).astype(int)
    return frozenset(share[place] for place in places.tolist())


def _path(path: str | os.PathLike[str], shard: Shard) -> Path:
    path = Path(path)
    if shard.count == 1:
        return path
    return path.with_name(f"{path.stem}-{shard.index:05d}-of-{shard.count:05d}{path.suffix}")


def gathered(
    parts: Mapping[str, Outcomes], gather: Gather, *, count: int | None, rows: int
) -> dict[str, Outcomes]:
    """The outcomes of all shards, each expression once.

    Hosts may have one expression more or less: `rows` each, filled up with an index below 0.
    `count` is how many there should be, where that is known.
    """
    whole = {}
    for name, part in parts.items():
        padded = np.pad(part.table, ((0, rows - len(part)), (0, 0)), constant_values=-1)
        table = gather(padded)
        whole[name] = join([Outcomes(table[table[:, 0] >= 0])])
        if count is not None and len(whole[name]) != count:
            raise ValueError(
                f"the hosts scored {len(whole[name])} expressions together, expected {count}."
            )
    return whole


def _remarks(name: str, thresholds: Thresholds, *, says_nothing: bool) -> dict[str, Any]:
    """What a protocol's scores depend on beside the protocol."""
    remarks: dict[str, Any] = {}
    if PROTOCOLS[name].open_threshold and thresholds.threshold != THRESHOLD:
        remarks["threshold"] = thresholds.threshold
    if name == "gres":
        presence = f"presence below {thresholds.presence_threshold}"
        remarks["nothing"] = presence if says_nothing else f"fewer than {FEW_PIXELS} pixels"
    return remarks

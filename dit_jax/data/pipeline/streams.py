"""Batches of NumPy arrays from a Source, with Grain (design: uint8 travels, the device normalises).

A batch is a dict: `image` uint8 `[b,S,S,3]`, `content` int32 `[b,4]` (top, left, height, width of
the picture in its canvas), `input_ids` and `attention_mask` int32 `[b,l]`, `mask` uint8 `[b,S,S]`
(soft, times 255), `present` bool `[b]` (False where the expression fits nothing in the picture),
`index` int64 `[b]` and `valid` bool `[b]`.

Everything is a function of (seed, position in the stream): the order from Grain's shuffle, the
augmentation from Grain's random_map. Threads, worker processes and hosts only decide who computes
a batch, so they change no byte of it.
"""

from collections.abc import Sequence

import grain
import numpy as np
from jaxtyping import Int

from dit_jax.data.pipeline.batches import EvalBatches, TrainBatches
from dit_jax.data.pipeline.items import Batch, Collate, EvaluationRow, Reader, Row, TrainingRow
from dit_jax.data.pixels import Augmentation
from dit_jax.data.referent import Source
from dit_jax.data.tokenizer import Words

__all__ = ["Batch", "TrainBatches", "eval_batches", "expression_table", "train_batches"]

AHEAD = 4_000_000_000  # bytes of batches that are made before they are asked for
# What to do about a broken record → how many records one row tries.
TRIES = {"stop": 1, "skip": 100}


def train_batches(
    source: Source,
    tokenizer: Words,
    *,
    size: int,
    batch_size: int,
    augmentation: Augmentation,
    seed: int,
    own: Int[np.ndarray, " rows"] | None = None,
    workers: int = 0,
    corner: bool = False,
    ahead_bytes: int = AHEAD,
    parts: Sequence[int] = (),
    weights: Sequence[float] = (),
    on_error: str = "stop",
) -> TrainBatches:
    """Endless batches of `batch_size` referents, one expression each, or one host's part of them.

    Every epoch is a new permutation of all referents. The stream is cut into batches across the
    ends of epochs: no batch is short and no referent is dropped. `index` is the referent's.
    `workers` = 0 prepares batches in threads, -1 as `batches.fitting` says of this host, otherwise
    in that many processes; at least one batch is made ahead, and no more than `ahead_bytes` hold.

    Args:
      own: the rows of each batch that this host makes, the same ones that a host alone would make
        there; None is all of them.
      parts: where the source is several data sets one after another, the length of each.
      weights: how often each part is seen an epoch, if an epoch is the sum of weights[i] * parts[i]
        rows: part i's share of the stream is weights[i] * parts[i] of that, to within 1 %. Each
        part is permuted and repeated by itself. () is one permutation of all referents.
      on_error: "stop" raises ValueError at a broken record, naming it. "skip" takes another record
        of the same part, logs what is wrong, and counts it; it stops where 100 fail in a row.
      corner: pictures lie where SAM has them, in the upper left corner of their canvases.
    """
    own = np.arange(batch_size) if own is None else own
    _check_rows(len(source), batch_size, own)
    if on_error not in TRIES:
        raise ValueError(f"on_error is {on_error!r}, expected {' or '.join(TRIES)}.")
    _check_parts(len(source), parts, weights)
    reader = Reader(source, tokenizer, size, corner)
    row = TrainingRow(
        reader,
        augmentation,
        parts=tuple(parts) if weights else (len(source),),
        tries=TRIES[on_error],
    )
    order = _mixed(parts, weights, seed) if weights else _permuted(0, len(source), seed)
    rows = order.random_map(row)
    if len(own) < batch_size:
        rows = grain.MapDataset.source(Portion(rows, batch_size=batch_size, own=own))
    mix = {"parts": [*parts], "weights": [*weights]} if weights else {}
    return TrainBatches(
        rows.batch(len(own), drop_remainder=True, batch_fn=Collate(size)),
        reader=reader,
        workers=workers,
        ahead=_ahead(ahead_bytes, rows=len(own), size=size),
        identity={
            "seed": seed,
            "referents": len(source),
            "global_batch_size": batch_size,
            **mix,
        },
    )


class Portion:
    """Of every batch of a stream, the rows that one host makes: a random-access source of them."""

    def __init__(self, rows: grain.MapDataset, *, batch_size: int, own: Int[np.ndarray, " rows"]):
        self._rows, self._batch_size, self._own = rows, batch_size, own.tolist()

    def __len__(self) -> int:
        return len(self._rows) // self._batch_size * len(self._own)

    def __getitem__(self, number: int) -> Row:
        batch, place = divmod(int(number), len(self._own))
        return self._rows[batch * self._batch_size + self._own[place]]


def eval_batches(
    source: Source,
    tokenizer: Words,
    *,
    size: int,
    batch_size: int,
    shard_index: int = 0,
    shard_count: int = 1,
    workers: int = 0,
    objects: bool = False,
    corner: bool = False,
    ahead_bytes: int = AHEAD,
) -> EvalBatches:
    """Every expression once, in order, or every object. A broken record raises ValueError, naming
    it.

    Row j of shard i's batch k is expression `(k * batch_size + j) * shard_count + i`, and `index`
    says so. All shards yield equally many batches; the rows that complete the last ones repeat
    the last expression with `valid` False.
    """
    table = expression_table(source, objects=objects)
    _check(len(table), batch_size, shard_index, shard_count)
    step = batch_size * shard_count
    reader = Reader(source, tokenizer, size, corner)
    rows = grain.MapDataset.range(-(-len(table) // step) * step).map(EvaluationRow(reader, table))
    rows = rows[shard_index::shard_count]
    batches = rows.batch(batch_size, drop_remainder=True, batch_fn=Collate(size))
    ahead = _ahead(ahead_bytes, rows=batch_size, size=size)
    return EvalBatches(batches, reader=reader, workers=workers, ahead=ahead)


def _ahead(bytes_: int, *, rows: int, size: int) -> int:
    """How many batches fit: a row is a picture of three channels, and a mask."""
    return max(1, bytes_ // (rows * size * size * 4))


def expression_table(source: Source, *, objects: bool = False) -> Int[np.ndarray, "n 2"]:
    """Which (referent, expression of it) each evaluation index means; of `objects`, the first."""
    counts = source.expression_counts()
    counts = np.minimum(counts, 1) if objects else counts
    referents = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum(counts) - counts
    return np.stack([referents, np.arange(len(referents)) - starts[referents]], axis=1)


def _permuted(start: int, stop: int, seed: int) -> grain.MapDataset:
    """Referents start … stop - 1, again and again, each time in another order."""
    return grain.MapDataset.range(start, stop).seed(seed).shuffle().repeat()


def _mixed(parts: Sequence[int], weights: Sequence[float], seed: int) -> grain.MapDataset:
    """Each part's own endless stream, interleaved evenly."""
    ends = np.cumsum(parts).tolist()
    seeds = np.random.SeedSequence(seed).generate_state(len(parts)).tolist()
    streams = [_permuted(end - n, end, s) for n, end, s in zip(parts, ends, seeds, strict=True)]
    shares = [weight * n for weight, n in zip(weights, parts, strict=True)]
    return grain.MapDataset.mix(streams, shares).seed(seed)


def _check_rows(items: int, batch_size: int, own: Int[np.ndarray, " rows"]) -> None:
    _check_sizes(items, batch_size)
    if not len(own) or own.min() < 0 or own.max() >= batch_size or np.any(np.diff(own) <= 0):
        raise ValueError(
            f"own is {own.tolist()}, expected ascending rows of a batch, 0 to {batch_size - 1}."
        )


def _check_sizes(items: int, batch_size: int) -> None:
    if items < 1:
        raise ValueError("the data set is empty, expected at least one expression.")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected at least 1.")


def _check(items: int, batch_size: int, shard_index: int, shard_count: int) -> None:
    _check_sizes(items, batch_size)
    if not 0 <= shard_index < shard_count:
        raise ValueError(
            f"shard_index is {shard_index}, expected 0 to {shard_count - 1} (shard_count - 1)."
        )


def _check_parts(items: int, parts: Sequence[int], weights: Sequence[float]) -> None:
    if (parts or weights) and (sum(parts) != items or min(parts, default=0) < 1):
        raise ValueError(
            f"parts is {tuple(parts)}, expected positive lengths of sum {items}, the data set's."
        )
    if weights and (len(weights) != len(parts) or min(weights) <= 0):
        raise ValueError(
            f"weights is {tuple(weights)}, expected a number above 0 for each of the {len(parts)}"
            " parts."
        )

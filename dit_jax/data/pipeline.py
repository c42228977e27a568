"""Batches of NumPy arrays from a Source, with Grain (design: uint8 travels, the device normalises).

A batch is a dict: `image` uint8 `[b,S,S,3]`, `content` int32 `[b,4]` (top, left, height, width of
the picture in its canvas), `input_ids` and `attention_mask` int32 `[b,l]`, `mask` uint8 `[b,S,S]`
(soft, times 255), `index` int64 `[b]` and `valid` bool `[b]`.

Everything is a function of (seed, position in the stream): the order from Grain's shuffle, the
augmentation from Grain's random_map. Threads, worker processes and hosts only decide who computes
a batch, so they change no byte of it.
"""

import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import grain
import numpy as np
from absl import flags
from jaxtyping import Int

from dit_jax.data.referent import Referent, Source
from dit_jax.data.tokenizer import Tokenizer
from dit_jax.data.transforms import UNCHANGED, Augmentation, Augmented, augment

Batch = dict[str, np.ndarray]


class TrainBatches(Iterator[Batch]):
    """An endless iterator over training batches that can be saved and restored.

    Its state is a small dict for JSON. It holds the number of the next batch and not Grain's own
    iterator state, because that depends on the number of worker processes.
    """

    def __init__(self, batches: grain.MapDataset, *, workers: int, identity: dict[str, int]):
        self._batches = batches
        self._workers = workers
        self._identity = identity
        self._next = 0
        self._iterator: grain.DatasetIterator | None = None  # started by the first batch

    def __next__(self) -> Batch:
        if self._iterator is None:
            self._iterator = iter(_prefetch(self._batches[self._next :], workers=self._workers))
        batch = next(self._iterator)
        self._next += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """The state after the batches that were taken so far."""
        return {"next_batch": self._next, **self._identity}

    def set_state(self, state: dict[str, int]) -> None:
        """Continue from a state; raises ValueError where the stream would not be the same one."""
        if state != {"next_batch": state.get("next_batch"), **self._identity}:
            raise ValueError(
                f"the saved data position {state} belongs to another stream than {self._identity}."
            )
        self.close()
        self._next = state["next_batch"]

    def close(self) -> None:
        """Stop the threads and worker processes; the next batch starts them again."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None


def train_batches(
    source: Source,
    tokenizer: Tokenizer,
    *,
    size: int,
    batch_size: int,
    augmentation: Augmentation,
    seed: int,
    shard_index: int = 0,
    shard_count: int = 1,
    workers: int = 0,
) -> TrainBatches:
    """Endless batches of `batch_size` referents for this shard (host), one expression each.

    Every epoch is a new permutation of all referents. The stream is cut into batches across the
    ends of epochs: no batch is short and no referent is dropped. The shards' batches together are
    the batch that one host with `shard_count * batch_size` rows would see. `index` is the
    referent's. `workers` = 0 prepares batches in threads, otherwise in that many processes.
    """
    _check(len(source), batch_size, shard_index, shard_count)
    item = partial(
        _training_item, source=source, tokenizer=tokenizer, size=size, augmentation=augmentation
    )
    referents = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
    items = referents.random_map(item)[shard_index::shard_count]
    return TrainBatches(
        items.batch(batch_size, drop_remainder=True),
        workers=workers,
        identity={
            "seed": seed,
            "referents": len(source),
            "global_batch_size": batch_size * shard_count,
        },
    )


def eval_batches(
    source: Source,
    tokenizer: Tokenizer,
    *,
    size: int,
    batch_size: int,
    shard_index: int = 0,
    shard_count: int = 1,
    workers: int = 0,
) -> grain.IterDataset:
    """Every expression once, in order; can be iterated over again.

    Row j of shard i's batch k is expression `(k * batch_size + j) * shard_count + i`, and `index`
    says so. All shards yield equally many batches; the rows that complete the last ones repeat
    the last expression with `valid` False.
    """
    table = expression_table(source)
    _check(len(table), batch_size, shard_index, shard_count)
    step = batch_size * shard_count
    item = partial(_evaluation_item, source=source, tokenizer=tokenizer, size=size, table=table)
    items = grain.MapDataset.range(-(-len(table) // step) * step).map(item)
    batches = items[shard_index::shard_count].batch(batch_size, drop_remainder=True)
    return _prefetch(batches, workers=workers)


def expression_table(source: Source) -> Int[np.ndarray, "n 2"]:
    """Which (referent, expression of it) each evaluation index means."""
    counts = source.expression_counts()
    referents = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum(counts) - counts
    return np.stack([referents, np.arange(len(referents)) - starts[referents]], axis=1)


def _training_item(
    index: int,
    rng: np.random.Generator,
    *,
    source: Source,
    tokenizer: Tokenizer,
    size: int,
    augmentation: Augmentation,
) -> dict[str, Any]:
    referent = source[int(index)]
    text = referent.expressions[int(rng.integers(len(referent.expressions)))]
    example = _augmented(referent, text, rng=rng, size=size, augmentation=augmentation)
    return _row(example, tokenizer, index=int(index), valid=True, name=referent.id)


def _evaluation_item(
    index: int, *, source: Source, tokenizer: Tokenizer, size: int, table: np.ndarray
) -> dict[str, Any]:
    last = len(table) - 1
    which, expression = (int(number) for number in table[min(index, last)])
    referent = source[which]
    # UNCHANGED draws numbers but uses none, so any generator does.
    rng = np.random.default_rng(0)
    text = referent.expressions[expression]
    example = _augmented(referent, text, rng=rng, size=size, augmentation=UNCHANGED)
    row = min(int(index), last)
    return _row(example, tokenizer, index=row, valid=index <= last, name=referent.id)


def _augmented(
    referent: Referent,
    text: str,
    *,
    rng: np.random.Generator,
    size: int,
    augmentation: Augmentation,
) -> Augmented:
    mask = referent.mask.astype(np.uint8) * 255
    return augment(referent.image, mask, text=text, rng=rng, size=size, augmentation=augmentation)


def _row(
    example: Augmented, tokenizer: Tokenizer, *, index: int, valid: bool, name: str
) -> dict[str, Any]:
    try:
        input_ids, attention_mask = tokenizer([example.text])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return {
        "image": example.image,
        "content": np.array(example.content, np.int32),
        "input_ids": input_ids[0],
        "attention_mask": attention_mask[0],
        "mask": example.mask,
        "index": np.int64(index),
        "valid": np.bool_(valid),
    }


def _prefetch(batches: grain.MapDataset, *, workers: int) -> grain.IterDataset:
    """Prepare batches ahead of time. Batching comes first, so that each worker process makes
    whole batches and their order does not depend on how many there are."""
    if workers:
        if not flags.FLAGS.is_parsed():  # Grain 0.2.18 reads its flags even where no app parsed any
            flags.FLAGS.mark_as_parsed()
        in_worker = batches.to_iter_dataset(grain.ReadOptions(0, 0))
        options = grain.MultiprocessingOptions(num_workers=workers)
        return in_worker.mp_prefetch(options).map(_own_memory)
    threads = min(16, os.cpu_count() or 1)
    return batches.to_iter_dataset(grain.ReadOptions(threads, threads + 1))


def _own_memory(batch: Batch) -> Batch:
    """Copy out of the shared memory that workers hand over: it goes away with its iterator."""
    return {key: np.array(value) for key, value in batch.items()}


def _check(items: int, batch_size: int, shard_index: int, shard_count: int) -> None:
    if items < 1:
        raise ValueError("the data set is empty, expected at least one expression.")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected at least 1.")
    if not 0 <= shard_index < shard_count:
        raise ValueError(
            f"shard_index is {shard_index}, expected 0 to {shard_count - 1} (shard_count - 1)."
        )

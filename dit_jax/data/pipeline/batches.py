"""Iterators over batches: prepared ahead in threads or processes, resumable, broken records named.

See `pipeline` for what is in a batch.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Any

import cv2
import grain
import numpy as np
from absl import flags, logging
from jaxtyping import Int, Int32, UInt8

from dit_jax.data.pipeline.items import NONE, Batch, Collate, EvaluationRow, Reader

MOST_FOR_THREADS = 64  # cores of a host; those of TPUs have 100 and more
HELD_BY_WORKER = 3  # batches: in the making, on the way, and taken before its turn


class TrainBatches(Iterator[Batch]):
    """An endless iterator over training batches that can be saved and restored.

    Its state is a small dict for JSON. It holds the number of the next batch and not Grain's own
    iterator state, because that depends on the number of worker processes.

    `skipped` says what was wrong with each broken record that was left out since this object was
    made, and `skipped_rows` how many rows hold another record for it.
    """

    def __init__(
        self,
        batches: grain.MapDataset,
        *,
        reader: Reader,
        workers: int,
        ahead: int,
        identity: dict[str, Any],
    ):
        """`ahead` is how many batches may be there before they are asked for, 1 or more."""
        self._batches = batches
        self._reader = reader
        self._how = dict(workers=workers, ahead=ahead)
        self._identity = identity
        self._next = 0
        self._iterator: grain.DatasetIterator | None = None  # started by the first batch
        self.skipped: dict[str, str] = {}  # id of the record → what is wrong with it
        self.skipped_rows = 0
        self._known: set[int] = set()  # indices of these

    def __next__(self) -> Batch:
        if self._iterator is None:
            self._iterator = iter(_prefetch(self._batches[self._next :], **self._how))
        batch = next(self._iterator)
        failed = batch.pop("failed")
        try:
            self._examine(failed)
        except ValueError:
            self.close()
            raise
        self._next += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """The state after the batches that were taken so far."""
        return {"next_batch": self._next, **self._identity}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a state; raises ValueError where the stream would not be the same one."""
        if state != {"next_batch": state.get("next_batch"), **self._identity}:
            raise ValueError(
                f"the saved data position {state} belongs to another stream than {self._identity}."
            )
        self.close()
        self._next = state["next_batch"]

    def name(self, index: int) -> str:
        """The id of a record, by its `index` in a batch."""
        return self._reader.name(index)

    def image_ids(self) -> Int[np.ndarray, " n"]:
        """The picture of each record."""
        return self._reader.source.image_ids()

    def unvaried(self, records: Int[np.ndarray, " n"], batch_size: int) -> "EvalBatches":
        """These records once, in order, each with its first expression."""
        table = np.stack([records, np.zeros_like(records)], axis=1)
        rows = grain.MapDataset.range(-(-len(table) // batch_size) * batch_size)
        rows = rows.map(EvaluationRow(self._reader, table))
        batches = rows.batch(batch_size, batch_fn=Collate(self._reader.size))
        return EvalBatches(batches, reader=self._reader, **self._how)

    def picture(self, record: int) -> tuple[UInt8[np.ndarray, "h w 3"], Int32[np.ndarray, "4"]]:
        """A record's picture as it is put onto its canvas, unvaried, and its content there.

        Raises ValueError, naming it, where it is broken.
        """
        row = EvaluationRow(self._reader, np.array([[record, 0]]))(0)
        _stop_where_all_failed(row["failed"][None], self._reader)
        return row["image"], row["content"]

    def close(self) -> None:
        """Stop the threads and worker processes; the next batch starts them again."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def _examine(self, failed: Int[np.ndarray, "b tries"]) -> None:
        """Log the records that rows of this batch left out; raise where a row found no good one."""
        _stop_where_all_failed(failed, self._reader)
        self.skipped_rows += int((failed[:, 0] != NONE).sum())
        for index in np.unique(failed[failed != NONE]).tolist():
            if index not in self._known:
                self._known.add(index)
                name, problem = self._reader.problem(index)
                self.skipped[name] = problem
                logging.warning("Left out of training: %s", problem)


class EvalBatches(Iterable[Batch]):
    """Batches that come to an end; can be iterated over again."""

    def __init__(self, batches: grain.MapDataset, *, reader: Reader, workers: int, ahead: int):
        self._batches = batches
        self._reader = reader
        self._how = dict(workers=workers, ahead=ahead)

    def __iter__(self) -> Iterator[Batch]:
        iterator = iter(_prefetch(self._batches, **self._how))
        try:
            for batch in iterator:
                _stop_where_all_failed(batch.pop("failed"), self._reader)
                yield batch
        finally:
            iterator.close()


def _stop_where_all_failed(failed: Int[np.ndarray, "b tries"], reader: Reader) -> None:
    """Raise ValueError for a row that found no good record, naming the last one it tried."""
    last = failed[failed[:, -1] != NONE, -1]
    if not len(last):
        return
    problem = reader.problem(int(last[0]))[1]
    if failed.shape[1] > 1:
        problem += f" It is the last of {failed.shape[1]} broken records in a row."
    raise ValueError(problem)


def _prefetch(batches: grain.MapDataset, *, workers: int, ahead: int) -> grain.IterDataset:
    """Prepare batches ahead of time. Batching comes first, so that each worker process makes
    whole batches and their order does not depend on how many there are."""
    most = max(1, ahead // HELD_BY_WORKER)
    if workers < 0:
        workers = min(fitting(cores()), most)
    if workers:
        if most < workers:
            logging.warning(
                "Of %d worker processes, %d start: memory is for as many.", workers, most
            )
        workers = min(workers, most)
        # Grain 0.2.18 reads this flag of its own even where no app parsed any.
        flags.FLAGS["grain_enable_multiprocess_worker_profiling"].present = 1
        in_worker = batches.to_iter_dataset(grain.ReadOptions(0, 0))
        options = grain.MultiprocessingOptions(num_workers=workers)
        return in_worker.mp_prefetch(options, worker_init_fn=_one_core).map(_own_memory)
    waiting = min(17, (os.cpu_count() or 1) + 1, ahead)
    return batches.to_iter_dataset(grain.ReadOptions(min(16, waiting), waiting))


def cores() -> int:
    """That this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def fitting(cores: int) -> int:
    """Worker processes for so many cores; 0, threads, is faster a core, as long as Python's lock
    does not stop them. Of more processes, a TPU's chips could not take what they make."""
    return 0 if cores <= MOST_FOR_THREADS else min(32, cores // 4)


def _one_core(*_: int) -> None:
    """Of a worker process: its parallelism are its siblings."""
    cv2.setNumThreads(1)


def _own_memory(batch: Batch) -> Batch:
    """Copy out of the shared memory that workers hand over: it goes away with its iterator."""
    return {key: np.array(value) for key, value in batch.items()}

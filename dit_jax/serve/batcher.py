"""Questions of many clients, answered together: what waits when the model is free is one batch.

What is rare is answered alone, so that no program for several such rows has to be compiled.
"""

import itertools
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from dit_jax.predict import Request, Segmentation, Segmenter

MOST_POINTS = 16  # of a row that others join; more of them are another program (`POINT_COUNTS`)


class Waiting(NamedTuple):
    segmenter: Segmenter
    row: Request
    future: Future[Segmentation]

    @property
    def joins(self) -> bool:
        prompt = self.row.prompt
        return prompt.mask is None and len(prompt.points) <= MOST_POINTS


class Batcher:
    """One thread that asks segmenters; `count` is told how many rows each batch has."""

    def __init__(self, count: Callable[[int], None] = lambda rows: None):
        self._count = count
        self._waiting: queue.SimpleQueue[Waiting] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True, name="batcher").start()

    def ask(self, segmenter: Segmenter, rows: Sequence[Request]) -> list[Future[Segmentation]]:
        """A future of each; one that is cancelled before its turn costs nothing."""
        asked = [Waiting(segmenter, row, Future()) for row in rows]
        for one in asked:
            self._waiting.put(one)
        return [one.future for one in asked]

    def _run(self) -> None:
        while True:
            batch = [self._waiting.get()]
            while len(batch) < batch[0].segmenter.batch_size and not self._waiting.empty():
                batch.append(self._waiting.get())
            wanted = [one for one in batch if one.future.set_running_or_notify_cancel()]
            # The model may have been swapped while they waited.
            for (segmenter, joins), alike in itertools.groupby(wanted, key=_kind):
                rows, most = list(alike), segmenter.batch_size if joins else 1
                for start in range(0, len(rows), most):
                    self._answer(rows[start : start + most])

    def _answer(self, batch: Sequence[Waiting]) -> None:
        """Where a batch fails, its rows are asked one by one: only those fail that fail alone."""
        try:
            found = batch[0].segmenter.answer([one.row for one in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
            else:
                for one in batch:
                    self._answer([one])
            return
        self._count(len(batch))
        for one, segmentation in zip(batch, found, strict=True):
            one.future.set_result(segmentation)


def _kind(waiting: Waiting) -> tuple[Segmenter, bool]:
    return waiting.segmenter, waiting.joins

"""Batches on the devices before they are needed: the copy of the next ones overlaps with a step.

The stream's state is that after the batches that were taken *out of the feed*: what waits on the
devices is prepared again after a resume, so exactness does not depend on `ahead`.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from dit_jax.data.pipeline import Batch, TrainBatches


class DeviceBatch(NamedTuple):
    """One batch, as the host made it and as the devices hold it."""

    host: Batch
    placed: Any


class Feed(Iterator[DeviceBatch]):
    """Wraps a stream of batches; `place` copies one to the devices without waiting for it."""

    def __init__(self, batches: TrainBatches, place: Callable[[Batch], Any], *, ahead: int = 1):
        """`ahead`: batches that wait on the devices besides the one that is in use."""
        if ahead < 0:
            raise ValueError(f"ahead is {ahead}; expected 0 or more batches.")
        self._batches, self._place, self._ahead = batches, place, ahead
        self._waiting: deque[tuple[DeviceBatch, dict[str, Any], int]] = deque()
        self._failed: ValueError | None = None  # what the stream said of the batch after these
        self._state = batches.get_state()
        self.skipped_rows = batches.skipped_rows  # among the batches that were taken

    def __next__(self) -> DeviceBatch:
        while len(self._waiting) <= self._ahead and self._failed is None:
            self._fetch()
        if not self._waiting:
            raise self._failed
        fed, self._state, self.skipped_rows = self._waiting.popleft()
        return fed

    def _fetch(self) -> None:
        try:
            batch = next(self._batches)
        except ValueError as error:  # raised when its turn comes, which may be never
            self._failed = error
            return
        about = (self._batches.get_state(), self._batches.skipped_rows)
        self._waiting.append((DeviceBatch(batch, self._place(batch)), *about))

    def get_state(self) -> dict[str, Any]:
        """The stream's state after the batches that were taken out."""
        return self._state

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a state; forgets what waits. Raises ValueError as the stream does."""
        self._batches.set_state(state)
        self._waiting.clear()
        self._failed = None
        self._state = self._batches.get_state()

    def close(self) -> None:
        """Stop the stream's threads and forget what waits; the stream stands where it was taken."""
        self._waiting.clear()
        self._failed = None
        self._batches.set_state(self._state)

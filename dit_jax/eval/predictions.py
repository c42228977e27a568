"""Run a model over every expression of a split, one batch ahead of whoever looks at its answers.

JAX returns from `predict_fn` before the device is done, so the device works on the next batch while
the host resizes and compares masks.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from dit_jax.data.pipeline import Batch
from dit_jax.data.pixels import Content


@dataclass(frozen=True)
class Answers:
    """What a model says to a batch: NumPy arrays, or JAX arrays that are still being computed.

    `logits` is `[b,S,S]`, one a pixel of the canvas. `presence` is `[b]`: the logit of "something
    in the picture is meant", or None where the model does not say. `predicted_iou` is `[b]`, or
    None where no training taught the model that.
    """

    logits: Any
    presence: Any = None
    predicted_iou: Any = None


Predict = Callable[[Batch], Answers]


@dataclass(frozen=True)
class Prediction:
    """The answer to one expression, on the canvas that the model saw."""

    index: int
    logits: Float32[np.ndarray, "S S"]
    content: Content
    presence: float | None
    predicted_iou: float | None


def predictions(
    predict_fn: Predict, batches: Iterator[Batch], *, count: int, shard_count: int = 1
) -> Iterator[Prediction]:
    """Predictions for the expressions with an `index` below `count`, in order.

    `batches` are those of one of `shard_count` shards; every shard runs the model equally often,
    as a program on several hosts must. Rows that only complete a batch (`valid` False) are left
    out. Raises ValueError where the logits do not fit the canvas. Close the iterator to stop the
    threads that prepare batches.
    """
    started: deque[tuple[Batch, Answers]] = deque()
    try:
        for batch in batches:
            started.append((batch, predict_fn(batch)))
            first = batch["index"][0] // shard_count * shard_count  # of all shards
            if first + len(batch["index"]) * shard_count >= count:  # the rest is beyond the limit
                break
            if len(started) > 1:
                yield from _unbatched(*started.popleft(), count=count)
        while started:
            yield from _unbatched(*started.popleft(), count=count)
    finally:
        batches.close()


def check_finite(seen: Prediction, *, name: str, what: str) -> None:
    """Raises ValueError where an answer holds what is no number."""
    numbers = [x for x in (seen.presence, seen.predicted_iou) if x is not None]
    if not (np.isfinite(seen.logits).all() and np.isfinite(numbers).all()):
        raise ValueError(f"{name}: {what} not finite, expected numbers.")


def _unbatched(batch: Batch, answers: Answers, *, count: int) -> Iterator[Prediction]:
    logits = np.asarray(answers.logits, np.float32)  # waits for the device
    if logits.shape != batch["mask"].shape:
        raise ValueError(
            f"the logits have the shape {logits.shape}, expected {batch['mask'].shape}: one per"
            " pixel of the canvas."
        )
    numbers = [
        None if said is None else np.asarray(said, np.float32)
        for said in (answers.presence, answers.predicted_iou)
    ]
    for row in np.flatnonzero(batch["valid"] & (batch["index"] < count)):
        content = tuple(int(side) for side in batch["content"][row])
        own = (None if said is None else float(said[row]) for said in numbers)
        yield Prediction(int(batch["index"][row]), logits[row], content, *own)

"""95 % intervals: how much the scores would vary if other pictures had been in the split.

Pictures are drawn with replacement, and with a picture come all its expressions: they share their
object and their difficulty, so that drawing expressions would make the intervals too narrow. An
interval spans the middle of the scores of all draws (percentile bootstrap). It is too narrow for a
share near 0 or 100 % that rests on a handful of pictures.

The draws depend on the seed and the number of pictures only, so two models on one split are judged
on the same draws.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64

from dit_jax.eval.metrics import METRICS, Conventions, addends, ratios
from dit_jax.eval.outcomes import Outcomes

LEVEL = 0.95
CHUNK = 100  # draws that are looked at together; bounds the memory

Interval = list[float]  # low, high; in percent


def intervals(
    outcomes: Outcomes, conventions: Conventions, *, resamples: int, seed: int = 0
) -> dict[str, Interval | None]:
    """{metric: [low, high]}; None for a metric that no draw defines."""
    per_picture = _per_picture(outcomes, conventions)
    found: dict[str, list[np.ndarray]] = {name: [] for name in METRICS}
    for counts in draws(len(per_picture), resamples=resamples, seed=seed):
        for name, values in ratios(counts @ per_picture, conventions).items():
            found[name].append(values)
    return {name: _middle(np.concatenate(values)) for name, values in found.items()}


def draws(
    pictures: int, *, resamples: int, seed: int
) -> Iterator[Int64[np.ndarray, "chunk pictures"]]:
    """How often each picture is drawn, a row a resample, in chunks."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, CHUNK):
        rows = min(CHUNK, resamples - start)
        drawn = rng.integers(pictures, size=(rows, pictures))
        drawn += pictures * np.arange(rows)[:, None]  # so that one count serves all rows
        yield np.bincount(drawn.ravel(), minlength=rows * pictures).reshape(rows, pictures)


def _per_picture(outcomes: Outcomes, conventions: Conventions) -> Int64[np.ndarray, "m 15"]:
    """Sums of addends, pictures in the order of their ids."""
    rows = addends(outcomes, conventions)
    ids, picture = np.unique(outcomes["image_id"], return_inverse=True)
    sums = np.zeros((len(ids), rows.shape[1]), np.int64)
    np.add.at(sums, picture, rows)
    return sums


def _middle(values: np.ndarray) -> Interval | None:
    values = values[~np.isnan(values)]
    if not values.size:
        return None
    return np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()

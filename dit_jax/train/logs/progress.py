"""What a run says while it trains: progress bar, metrics.jsonl, and the boards that show it.

Metrics are fetched while the device works on the next step, so it never waits for the host. Of
several processes, all read them and the first one writes.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from dit_jax import storage
from dit_jax.eval.metrics import METRICS
from dit_jax.train.logs.boards import BOARDS
from dit_jax.train.logs.nonfinite import KEYS, NonFinite, bad

JSONL = "metrics.jsonl"

Metrics = dict[str, jax.Array]  # of one step, on the devices


class PendingMetrics(NamedTuple):
    """A step whose metrics are on the device, not looked at yet."""

    step: int
    metrics: Metrics
    index: np.ndarray  # of its records


class MetricWriter:
    """Call `step` after every step; use as a context manager."""

    def __init__(
        self,
        workdir: Path,
        *,
        start: int,
        total: int,
        every: int,
        writers: tuple[str, ...],
        batch_size: int,
        failures: NonFinite,
        names: Callable[[np.ndarray], list[str]],
        silent: bool = False,
    ):
        """`names` gives records' ids from their `index`; `silent` writes and shows nothing.

        Raises ValueError where one of the `writers` does not begin.
        """
        self._silent, self._workdir = silent, workdir
        self._bar = tqdm(
            total=total, initial=start, unit="step", dynamic_ncols=True, disable=silent
        )
        self._every, self._batch_size = every, batch_size
        self._failures, self._names = failures, names
        self._waiting: list[PendingMetrics] = []
        self._skipped = 0
        if not silent:
            forget_after(workdir / JSONL, start)
            self._boards = [BOARDS[name](workdir) for name in writers]
            for line in read_lines(workdir / JSONL):
                self._show(line.pop("step"), line)
            self._lines = (workdir / JSONL).open("a", encoding="utf-8")
        self.restart_clock()

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, kind, error, trace) -> None:
        self._bar.close()
        if self._silent:
            return
        try:
            for board in self._boards:
                board.close(failed=error is not None)
            self._lines.close()
        except OSError as failed:
            if error is None:  # else that is what went wrong, and is said
                raise OSError(self._not_written(failed)) from failed

    def restart_clock(self) -> None:
        """Keep evaluation and saving out of images/s."""
        self._since, self._counted = time.monotonic(), 0

    def step(self, step: int, metrics: Metrics, *, index: np.ndarray, skipped: int = 0) -> None:
        """Note a step; log the ones before it when `every` of them are together.

        Args:
          index: which records this process's rows of the batch are.
          skipped: rows so far that hold another record for a broken one.
        """
        self._skipped = skipped
        if self._waiting:
            # The device always has the next step; a longer queue would only delay a stop.
            jax.block_until_ready(self._waiting[-1].metrics)
        self._bar.update()
        if self._waiting and self._waiting[-1].step % self._every == 0:
            self.flush()
        self._waiting.append(PendingMetrics(step, metrics, index))

    def flush(self) -> None:
        """Look at all metrics that are waiting; raises ValueError as `NonFinite.add` does."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        fetched = jax.device_get([one.metrics for one in waiting])  # waits for the last of them
        values = [{key: float(value) for key, value in one.items()} for one in fetched]
        good = [
            value for one, value in zip(waiting, values, strict=True) if self._finite(one, value)
        ]
        self._counted += len(waiting)
        images = self._counted * self._batch_size / max(time.monotonic() - self._since, 1e-9)
        self.restart_clock()
        mean = _of_clicked({k: sum(v[k] for v in good) / len(good) for k in values[0] if good})
        record = {**mean, "lr": values[-1]["lr"], "images_per_s": round(images, 2)}
        line = {f"train/{key}": value for key, value in record.items()}
        counts = {"data/skipped": self._skipped, "train/nonfinite": self._failures.total}
        self.write(waiting[-1].step, line | {key: n for key, n in counts.items() if n})
        shown = {"loss": f"{mean['loss']:.4f}"} if good else {}
        shown["lr"] = f"{record['lr']:.2e}"
        if "presence_accuracy" in mean:
            shown["presence"] = f"{mean['presence_accuracy']:.0%}"
        self._bar.set_postfix({**shown, "img/s": f"{images:.1f}"})

    def _finite(self, one: "PendingMetrics", values: dict[str, float]) -> bool:
        """Whether a step's values are numbers; where not, say so."""
        if not any(bad(values[key]) for key in KEYS):
            self._failures.passed()
            return True
        self.say(self._failures.add(one.step, values, names=self._names(one.index)))
        return False

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line of metrics.jsonl, and a point on each curve."""
        if self._silent:
            return
        try:
            self._lines.write(json.dumps({"step": step, **values}) + "\n")
            self._lines.flush()
        except OSError as error:
            raise OSError(self._not_written(error)) from error
        storage.push(self._workdir, every=60.0)
        self._show(step, values)

    def _show(self, step: int, values: dict[str, float]) -> None:
        for board in self._boards:
            board.add(step, values)

    def _not_written(self, error: OSError) -> str:
        return (
            f"{self._lines.name} could not be written: {error.strerror}; the checkpoints that are"
            " there are whole, and the same command continues from the latest."
        )

    def scores(self, step: int, split: str, scores: dict[str, dict]) -> None:
        """The scores of one evaluation, each protocol on its own curves."""
        for protocol, row in scores.items():
            # None where the split has nothing for a metric to count.
            numbers = {name: row[name] for name in METRICS if row[name] is not None}
            self.write(step, {f"{split}-{protocol}/{k}": v for k, v in numbers.items()})
        self.restart_clock()

    def to_disk(self) -> None:
        """Everything logged so far, curves included; of a bucket, into that."""
        self.flush()
        if not self._silent:
            for board in self._boards:
                board.flush()
        storage.push(self._workdir)

    def say(self, text: str) -> None:
        """Print without breaking the progress bar."""
        if not self._silent:
            self._bar.write(text)


def _of_clicked(mean: dict[str, float]) -> dict[str, float]:
    """Means over the steps with clicks, where only some have any: they are 0 in the others."""
    share = mean.pop("clicked", None)
    if share is None:
        return mean
    clicked = {key: mean.pop(key) for key in ("click_loss", "last_iou")}
    return mean | {key: value / share for key, value in clicked.items() if share}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`; the last may be half, where a run was killed."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines


def forget_after(path: Path, step: int) -> None:
    """Drop the lines of steps that a resumed run will make again."""
    if not path.is_file():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _until(line, step)]
    unfinished = path.with_suffix(".jsonl.tmp")
    unfinished.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    os.replace(unfinished, path)


def _until(line: str, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except json.JSONDecodeError:  # the line that a killed run was writing
        return False

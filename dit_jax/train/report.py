"""What a run says while it trains: progress bar, metrics.jsonl, TensorBoard.

Metrics are fetched while the device works on the next step, so it never waits for the host. A
loss that is not finite stops the run then, and before anything is saved.
"""

import json
import math
import os
import time
from pathlib import Path

import jax
from tensorboardX import SummaryWriter
from tqdm import tqdm

from dit_jax.eval.metrics import METRICS
from dit_jax.train.step import Metrics

JSONL = "metrics.jsonl"


class Report:
    """Call `step` after every step; use as a context manager."""

    def __init__(self, workdir: Path, *, start: int, total: int, every: int, batch_size: int):
        forget_after(workdir / JSONL, start)
        self._lines = (workdir / JSONL).open("a", encoding="utf-8")
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)
        self._bar = tqdm(total=total, initial=start, unit="step", dynamic_ncols=True)
        self._every, self._batch_size = every, batch_size
        self._waiting: list[tuple[int, Metrics]] = []  # on the device, not looked at yet
        self._skipped = 0
        self.restart_clock()

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, *error) -> None:
        self._bar.close()
        self._board.close()
        self._lines.close()

    def restart_clock(self) -> None:
        """Keep evaluation and saving out of images/s."""
        self._since, self._counted = time.monotonic(), 0

    def step(self, step: int, metrics: Metrics, *, skipped: int = 0) -> None:
        """Note a step; log the ones before it when `every` of them are together.

        Args:
          skipped: rows so far that hold another record for a broken one.
        """
        self._skipped = skipped
        if self._waiting:
            # The device always has the next step; a longer queue would only delay a stop.
            jax.block_until_ready(self._waiting[-1][1])
        self._bar.update()
        if self._waiting and self._waiting[-1][0] % self._every == 0:
            self.flush()
        self._waiting.append((step, metrics))

    def flush(self) -> None:
        """Look at all metrics that are waiting; raises ValueError where a loss is not finite."""
        if not self._waiting:
            return
        steps, metrics = zip(*self._waiting, strict=True)
        self._waiting = []
        fetched = jax.device_get(metrics)  # waits for the last of these steps
        values = [{key: float(value) for key, value in one.items()} for one in fetched]
        for step, value in zip(steps, values, strict=True):
            check_finite(step, value)
        self._counted += len(steps)
        images = self._counted * self._batch_size / max(time.monotonic() - self._since, 1e-9)
        self.restart_clock()
        mean = {key: sum(v[key] for v in values) / len(values) for key in values[0]}
        record = {**mean, "lr": values[-1]["lr"], "images_per_s": round(images, 2)}
        line = {f"train/{key}": value for key, value in record.items()}
        if self._skipped:
            line["data/skipped"] = self._skipped
        self.write(steps[-1], line)
        shown = {"loss": f"{mean['loss']:.4f}", "lr": f"{record['lr']:.2e}"}
        if "presence_accuracy" in mean:
            shown["presence"] = f"{mean['presence_accuracy']:.0%}"
        self._bar.set_postfix({**shown, "img/s": f"{images:.1f}"})

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line of metrics.jsonl, and a point on each TensorBoard curve."""
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        self._lines.flush()
        for key, value in values.items():
            self._board.add_scalar(key, value, step)

    def scores(self, step: int, split: str, scores: dict[str, dict]) -> None:
        """The scores of one evaluation, each protocol on its own curves."""
        for protocol, row in scores.items():
            # None where the split has nothing for a metric to count.
            numbers = {name: row[name] for name in METRICS if row[name] is not None}
            self.write(step, {f"{split}-{protocol}/{k}": v for k, v in numbers.items()})
        self.restart_clock()

    def say(self, text: str) -> None:
        """Print without breaking the progress bar."""
        self._bar.write(text)


def check_finite(step: int, values: dict[str, float]) -> None:
    """Raise ValueError where the loss or the gradients of a step are no numbers."""
    for key in ("loss", "grad_norm"):
        if not math.isfinite(values[key]):
            raise ValueError(
                f"{key} is {values[key]} at step {step}, expected a number: training"
                " stopped; the last checkpoint is from before it (try a lower optim.lr or"
                " optim.clip)."
            )


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

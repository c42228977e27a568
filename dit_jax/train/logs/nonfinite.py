"""Steps whose loss or gradients are no numbers: skipped, counted, named, and not for ever.

The step itself leaves parameters, moments and average as they were (`step.apply_gradients`); here
is what the run makes of it.
"""

import math
from collections.abc import Mapping
from typing import Any

KEYS = ("loss", "grad_norm")


class NonFinite:
    """Counts such steps; raises where too many come in a row."""

    def __init__(self, limit: int):
        self.total = self.in_a_row = 0
        self._limit = limit

    def record(self) -> dict[str, Any]:
        """For a checkpoint's `meta`."""
        return {"nonfinite": {"total": self.total, "in_a_row": self.in_a_row}}

    def restore(self, meta: Mapping[str, Any]) -> None:
        """Continue from what `record` gave; checkpoints of before it have none."""
        counts = meta.get("nonfinite", {"total": 0, "in_a_row": 0})
        self.total, self.in_a_row = counts["total"], counts["in_a_row"]

    def add(self, step: int, values: Mapping[str, float], *, names: list[str]) -> str:
        """Note a step that was skipped; the sentence to log.

        Raises ValueError where it is the last of as many in a row as the limit says.
        """
        self.total += 1
        self.in_a_row += 1
        found = " and ".join(f"{key} is {values[key]}" for key in KEYS if bad(values[key]))
        text = f"step {step} changed nothing: {found}, expected numbers; records {', '.join(names)}"
        if self.in_a_row >= self._limit:
            raise ValueError(
                f"{text}. It is number {self.in_a_row} in a row, so training stopped; no parameter"
                " was harmed, the last checkpoint is intact (try a lower optim.lr or optim.clip)."
            )
        return f"{text}."

    def passed(self) -> None:
        """Note a step with numbers."""
        self.in_a_row = 0


def bad(value: float) -> bool:
    return not math.isfinite(value)

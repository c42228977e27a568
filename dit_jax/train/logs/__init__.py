"""What a run says of itself: while it runs, and what it leaves for people.

In: metrics of steps and scores. Out: a bar, `metrics.jsonl`, curves in TensorBoard or W&B,
`report.md`. Read `progress`, which writes the first two and hands on to `boards`, with `nonfinite`
of steps that are skipped; `report` and its curves are made from these. `provenance` notes config,
code and devices at every start, `profiling` traces steps, `duplicates` leaves out what libraries
say twice.
"""

from dit_jax.train.logs import boards, provenance, report
from dit_jax.train.logs.duplicates import drop_duplicate_errors
from dit_jax.train.logs.nonfinite import NonFinite
from dit_jax.train.logs.profiling import Profile
from dit_jax.train.logs.progress import MetricWriter

__all__ = [
    "MetricWriter",
    "NonFinite",
    "Profile",
    "boards",
    "drop_duplicate_errors",
    "provenance",
    "report",
]

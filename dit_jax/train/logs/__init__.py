"""What a run says of itself: while it runs, and what it leaves for people.

In: metrics of steps and scores. Out: a bar, `metrics.jsonl`, TensorBoard, `report.md`. Read
`progress`, which writes the first three, with `nonfinite` of steps that are skipped; `report` and
`curves` are made from these. `provenance` notes config, code and devices at every start,
`profiling` traces steps, `duplicates` leaves out what libraries say twice.
"""

from dit_jax.train.logs import provenance, report
from dit_jax.train.logs.duplicates import drop_duplicate_errors
from dit_jax.train.logs.nonfinite import NonFinite
from dit_jax.train.logs.profiling import Profile
from dit_jax.train.logs.progress import MetricWriter

__all__ = ["MetricWriter", "NonFinite", "Profile", "drop_duplicate_errors", "provenance", "report"]

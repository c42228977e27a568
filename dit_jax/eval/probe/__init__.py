"""Probes: does a model read its words? (`--mode=probe`, docs/probes.md)

In: a model's answers to a split's expressions. Out: how they change with the words and the picture,
with intervals and verdicts. Read `run`, which asks: `cases` makes the questions with `words`,
`measures` compares answers, `summary` takes means and judges; `report` and `figure` show.
"""

from dit_jax.eval.probe import figure, report
from dit_jax.eval.probe.run import Result, probe

__all__ = ["Result", "figure", "probe", "report"]

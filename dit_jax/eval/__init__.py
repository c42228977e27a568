"""Evaluation: from logits on a canvas to the numbers that papers report.

predictions (model ─▶ answers) ─▶ protocols (answer ─▶ two masks) ─▶ outcomes (masks ─▶ integers)
  ─▶ metrics, bootstrap, breakdown (integers ─▶ scores) ─▶ report (scores ─▶ text, Markdown, JSON)

`evaluate` runs a model through all of it, `score` the masks in somebody's file (`prediction_files`,
`truths`). A protocol is a row of `protocols`. `probe/` asks whether the words matter.
"""

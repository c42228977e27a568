"""Evaluation: from logits on a canvas to the numbers that papers report.

predictions (model ─▶ answers) ─▶ collect: each by protocols (answer ─▶ two masks)
  and outcomes (masks ─▶ integers) ─▶ metrics, bootstrap, breakdown by `relations`
  (integers ─▶ scores) ─▶ report (scores ─▶ text, Markdown, JSON)

In: a model or its masks, and the truths. Out: scores. Read `protocols`, whose rows are the papers'
rules, then `evaluate`, which runs a model through all of it. `score` takes the masks in somebody's
file (`prediction_files`, `truths`), `clicks` points and boxes; `probe/` asks whether the words
matter.
"""

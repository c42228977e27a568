"""Evaluation: from logits on a canvas to the numbers that papers report.

protocols (logits ─▶ two masks) ──▶ metrics (masks ─▶ sums ─▶ scores) ──▶ evaluate (one split)
"""

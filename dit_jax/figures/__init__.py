"""Figures of trained models: `python -m dit_jax.figures compare|curves|words|overlay`, docs/see.md.

answers (models asked) ─▶ comparison, words, overlay (sheets of panels, drawn with `viz`)
metrics.jsonl ─▶ curves

In: model directories and pictures, or workdirs. Out: PNGs. Read `__main__`, the four commands.
"""

"""Data: from files on disk to batches of NumPy arrays; knows no JAX model.

refer, shapes ── Source of Referents ──▶ pipeline (transforms, tokenizer) ──▶ Batch
"""

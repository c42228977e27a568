"""The paper in miniature: pre-training on the embedded data set, and the paper's rows from there.

`mini_bert` pre-trains the text encoder, `configs/mini_sam.py` the rest.
"""

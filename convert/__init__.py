"""PyTorch checkpoints to model directories and back: `python -m convert --help`.

All knowledge of PyTorch's names and axes lives in this package.
"""

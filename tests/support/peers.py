"""PyTorch and transformers, which ours is compared with: who imports them is skipped without."""

import pytest

torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
transformers = pytest.importorskip(
    "transformers", reason="compares with transformers, which is not installed"
)

"""Deep Instruction Tuning for Segment Anything, in JAX and Flax.

In: pictures, and words, points or boxes. Out: masks. `Segmenter` answers people, `load` gives the
model itself. Read `cli` for what can be done, `models` for the paper; docs/architecture.md is the
map of the rooms.
"""

from typing import Any

from dit_jax.models.dit_sam import DitSam, Prediction
from dit_jax.version import VERSION as __version__
from dit_jax.weights import load

__all__ = ["DitSam", "Prediction", "Segmentation", "Segmenter", "__version__", "load"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """What brings OpenCV and the tokenizers comes when it is asked for."""
    if name in ("Segmentation", "Segmenter"):
        from dit_jax import predict

        return getattr(predict, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

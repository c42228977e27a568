"""Deep Instruction Tuning for Segment Anything, in JAX and Flax.

In: pictures, and words, points or boxes. Out: masks. `Segmenter` answers people, `load` gives the
model itself. Read `cli` for what can be done, `models` for the paper; docs/architecture.md is the
map of the rooms.
"""

import importlib
from typing import TYPE_CHECKING, Any

from dit_jax.version import VERSION as __version__

if TYPE_CHECKING:
    from dit_jax.models.dit_sam import DitSam, Prediction
    from dit_jax.predict import Segmentation, Segmenter
    from dit_jax.weights import load

__all__ = ["DitSam", "Prediction", "Segmentation", "Segmenter", "__version__", "load"]

_PLACES = {
    "DitSam": "dit_jax.models.dit_sam",
    "Prediction": "dit_jax.models.dit_sam",
    "Segmentation": "dit_jax.predict",
    "Segmenter": "dit_jax.predict",
    "load": "dit_jax.weights",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """JAX and the rest come when something of them is asked for: `--help` needs neither."""
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

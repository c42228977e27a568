"""Deep Instruction Tuning for Segment Anything, in JAX and Flax."""

from dit_jax.model_directory import load
from dit_jax.models.dit_sam import DitSam, Prediction

__all__ = ["DitSam", "Prediction", "load"]

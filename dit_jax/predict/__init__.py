"""A trained model in a user's hands: pictures and words in, masks out.

requests (what a call asks) ─▶ picture, prompts (onto the model's canvas) ─▶ programs (the model,
compiled once a bucket) ─▶ segmentation (back to the picture's own size)

`segmenter` brings them together; `command` is `--mode=predict`, with `pairs` for what it reads and
`outputs` for what it writes.
"""

from dit_jax.predict.picture import Picture
from dit_jax.predict.segmentation import Segmentation
from dit_jax.predict.segmenter import Segmenter

__all__ = ["Picture", "Segmentation", "Segmenter"]

"""A trained model in a user's hands: pictures and words in, masks out.

requests (what a call asks) ─▶ picture, prompts (onto the model's canvas) ─▶ engine (batches of
programs, compiled once a bucket, with `text_features`) ─▶ segmentation (back to the picture's size)

In: pictures, words, points, boxes. Out: `Segmentation`s. Read `segmenter`, which brings them
together; `explain` makes word maps; `command` is `--mode=predict`, with `pairs` for what it reads
and `outputs` for what it writes.
"""

from dit_jax.predict.engine import Request
from dit_jax.predict.everything import Found
from dit_jax.predict.picture import Picture
from dit_jax.predict.requests import Question
from dit_jax.predict.segmentation import Segmentation
from dit_jax.predict.segmenter import Segmenter

__all__ = ["Found", "Picture", "Question", "Request", "Segmentation", "Segmenter"]

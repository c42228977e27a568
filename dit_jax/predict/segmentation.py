"""What a model answers: a mask at the picture's own size, made when it is asked for."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32

from dit_jax.data.pixels import stretch
from dit_jax.eval.protocols import logit


@dataclass(frozen=True, eq=False)
class Segmentation:
    """One mask for one text or prompt.

    It holds the logits on the model's canvas, so that many answers about large pictures fit into
    memory; `mask` is kept once it is made, `probability` is made each time.
    """

    name: str  # of the picture: its path, or "picture 3"
    text: str | None
    height: int  # pixels of the picture, upright
    width: int
    logits: Float32[np.ndarray, "h w"] = field(repr=False)  # of the picture's part of the canvas
    score: float  # the IoU that the decoder predicts of its mask; DIT trains no such prediction
    presence: float | None  # probability that anything is meant; None: the model does not say
    nothing: bool | None  # whether that is below the threshold; the mask is not emptied for it
    threshold: float  # on the probability of a pixel
    cut: str = ""  # the end of the text that the model did not read, beyond its tokens
    unknown: tuple[str, ...] = ()  # words of the text that its vocabulary cannot spell

    @cached_property
    def mask(self) -> Bool[np.ndarray, "H W"]:
        """As the evaluation's protocol `original`: logits resized bilinearly, then thresholded."""
        return self._resized() > logit(self.threshold)

    @property
    def probability(self) -> Float32[np.ndarray, "H W"]:
        """The sigmoid of the resized logits, in [0, 1]."""
        p = self._resized()  # in place from here on: a picture may have 100 megapixels
        p *= 0.5
        np.tanh(p, out=p)  # saturates where exp would not fit a float32
        p *= 0.5
        p += 0.5
        return p

    def _resized(self) -> Float32[np.ndarray, "H W"]:
        return stretch(self.logits, height=self.height, width=self.width)

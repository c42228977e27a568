"""What a model answers: a mask at the picture's own size, made when it is asked for."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from dit_jax.data.pixels import stretch
from dit_jax.eval.protocols import confidence, logit

SPECK = 0.01  # of the largest object: smaller pieces are none


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
    predicted_iou: (
        float | None
    )  # of the mask, by the decoder; None where no training taught it that
    presence: float | None  # probability that anything is meant; None: the model does not say
    nothing: bool | None  # whether that is below the threshold; the mask is not emptied for it
    threshold: float  # on the probability of a pixel
    cut: str = ""  # the end of the text that the model did not read, beyond its tokens
    unknown: tuple[str, ...] = ()  # words of the text that its vocabulary cannot spell
    # As the decoder gave them, a quarter of the canvas: what a later question may start from.
    low_res: Float32[np.ndarray, "_ _"] | None = field(default=None, repr=False)
    seed: tuple[int, int] | None = None  # (x, y) of the object that alone is meant; see `instances`
    # Tells objects apart that touch, for `instances`, where that was asked.
    apart: "Callable[[Segmentation], list[Segmentation]] | None" = field(default=None, repr=False)

    @property
    def score_kind(self) -> str:
        """What `score` is: "predicted_iou" or "confidence"."""
        return "confidence" if self.predicted_iou is None else "predicted_iou"

    @cached_property
    def score(self) -> float:
        """How good the mask is likely to be: its predicted IoU, of a model that was trained to
        predict it (about 0 to 1); else its confidence, the mean probability inside it, in [0, 1]
        and 0 where it has no pixel."""
        if self.predicted_iou is not None:
            return self.predicted_iou
        logits = self._resized()
        if self.seed is not None:
            logits = np.where(self.mask, logits, -np.inf).astype(np.float32)
        return confidence(logits, threshold=self.threshold)

    @cached_property
    def mask(self) -> Bool[np.ndarray, "H W"]:
        """As the evaluation's protocol `original`: logits resized bilinearly, then thresholded."""
        mask = self._resized() > logit(self.threshold)
        if self.seed is None:
            return mask
        regions = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)[1]
        x, y = self.seed
        return regions == regions[y, x]

    def instances(self) -> list["Segmentation"]:
        """Each object of the mask by itself, with its confidence as score, the best first.

        Objects are pieces that touch nowhere, not even at corners, without those below a hundredth
        of the largest; and of an answer to a call with `instances`, pieces that the model tells
        apart where they touch (`apart`). Of a mask without any pixel there is one, itself.
        """
        whole = [self] if self.apart is None else self.apart(self)
        found = [piece for part in whole for piece in part._pieces()]
        most = max((area for area, _ in found), default=0)
        large = [piece for area, piece in found if area >= SPECK * most]
        return sorted(large, key=lambda one: -one.score) or [self]

    def _pieces(self) -> list[tuple[int, "Segmentation"]]:
        """With their numbers of pixels."""
        count, regions, about, _ = cv2.connectedComponentsWithStats(
            self.mask.view(np.uint8), connectivity=8
        )
        found = []
        for i in range(1, count):
            y, area = (int(about[i, key]) for key in (cv2.CC_STAT_TOP, cv2.CC_STAT_AREA))
            seed = int(np.argmax(regions[y] == i)), y
            alone = dict(seed=seed, predicted_iou=None, apart=None)
            found.append((area, dataclasses.replace(self, **alone)))
        return found

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

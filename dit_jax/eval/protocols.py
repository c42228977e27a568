"""Evaluation protocols: how the logits on a canvas become the mask that is compared with the truth.

Papers differ in the space they compare in, in what they resize and in what they threshold; numbers
are comparable only within one protocol. Each is one function in the table `PROTOCOLS`. It takes the
logits of one canvas, the box of the picture in it, the truth at the picture's own size and the
threshold on the probability, and returns the two masks to compare, of equal size. It returns the
truth too because some protocols compare in another space than the picture's.

All resizing is OpenCV's INTER_LINEAR on float32: half-pixel centres, no antialiasing, equal to
PyTorch's `interpolate(mode="bilinear", align_corners=False)`.
"""

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from dit_jax.data.transforms import Content, restore

THRESHOLD = 0.35  # on the probability; the released code's


@dataclass(frozen=True)
class Pair:
    """The two masks that a protocol compares."""

    predicted: Bool[np.ndarray, "H W"]
    truth: Bool[np.ndarray, "H W"]


Protocol = Callable[..., Pair]  # (logits, truth, *, content, threshold)


def dit(
    logits: Float32[np.ndarray, "S S"],
    truth: Bool[np.ndarray, "H W"],
    *,
    content: Content,
    threshold: float,
) -> Pair:
    """The released code: threshold on the canvas, crop, resize the *binary* mask, then > 0.

    Every pixel that a foreground pixel has any weight in becomes foreground, which dilates edges.
    The mask is float32: in uint8, weights below one half would round to 0.
    """
    binary = (logits > logit(threshold)).astype(np.float32)
    return Pair(_to_picture(binary, truth, content=content) > 0, truth)


def original(
    logits: Float32[np.ndarray, "S S"],
    truth: Bool[np.ndarray, "H W"],
    *,
    content: Content,
    threshold: float,
) -> Pair:
    """The clean way: crop, resize the logits to the picture's size, then threshold."""
    return Pair(_to_picture(logits, truth, content=content) > logit(threshold), truth)


PROTOCOLS: dict[str, Protocol] = {"dit": dit, "original": original}


def rows(names: Sequence[str], *, threshold: float = THRESHOLD) -> dict[str, Protocol]:
    """The rows of `PROTOCOLS` with these names.

    Raises ValueError for a name that has none, and for a threshold that no row could use: both
    before a model runs for an hour.
    """
    logit(threshold)
    if not names:
        raise ValueError(f"no protocol is named, expected some of {', '.join(PROTOCOLS)}.")
    for name in names:
        if name not in PROTOCOLS:
            near = difflib.get_close_matches(name, PROTOCOLS, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(
                f"there is no protocol {name!r}{hint}, expected one of {', '.join(PROTOCOLS)}."
            )
    return {name: PROTOCOLS[name] for name in names}


def logit(probability: float) -> float:
    """The logit whose sigmoid is `probability`: comparing logits saves a sigmoid a pixel."""
    if not 0 < probability < 1:
        raise ValueError(f"threshold is {probability}, expected a probability between 0 and 1.")
    return math.log(probability / (1 - probability))


def _to_picture(
    canvas: Float32[np.ndarray, "S S"], truth: Bool[np.ndarray, "H W"], *, content: Content
) -> Float32[np.ndarray, "H W"]:
    height, width = truth.shape
    return restore(canvas, content, height=height, width=width)

"""Evaluation protocols: how an answer becomes the mask that is compared, and how that is counted.

Papers differ in the space they compare in, in what they resize and in what they threshold; numbers
are comparable only within one protocol. A protocol is a row of `PROTOCOLS`: `mask` makes the mask
from the logits on a canvas, `compare` puts it next to the truth, and the conventions say how the
two count. Others' masks, made by themselves, enter at `compare`. Sources are in docs/protocols.md.

Bilinear resizing is OpenCV's INTER_LINEAR on float32: half-pixel centres, no antialiasing, equal to
PyTorch's `interpolate(mode="bilinear", align_corners=False)`.
"""

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from dit_jax.data.pixels import Content, restore
from dit_jax.eval.metrics import METRICS, PRECISION, THRESHOLDS, Conventions

THRESHOLD = 0.35  # on the probability of a pixel; the released code's, and CRIS's
PRESENCE_THRESHOLD = 0.5
SQUARE = 480  # pixels a side: the space of LAVT
FEW_PIXELS = 50  # GRES: a smaller mask means "nothing", from models that cannot say so
# Ways of pointing → clicks; see `clicks`. They count as "original" does. The oracle takes the best
# of the three answers to a single click, whatever the model says of them.
CLICKS = {"box": 0, "click1": 1, "click1_oracle": 1, "click3": 3, "click5": 5}

Mask = Bool[np.ndarray, "h w"]


@dataclass(frozen=True)
class Answer:
    """A model's answer to one expression, and the truth at the picture's own size."""

    logits: Float32[np.ndarray, "S S"]
    content: Content
    truth: Bool[np.ndarray, "H W"]
    presence: float | None = None  # logit of "something is meant"; None: the model does not say
    predicted_iou: float | None = None  # by the decoder's head; None where nobody trained it
    threshold: float = THRESHOLD
    presence_threshold: float = PRESENCE_THRESHOLD

    @cached_property
    def resized(self) -> Float32[np.ndarray, "H W"]:
        """The logits at the picture's size; several protocols share them."""
        height, width = self.truth.shape
        return restore(self.logits, self.content, height=height, width=width)

    @property
    def score_kind(self) -> str:
        return "confidence" if self.predicted_iou is None else "predicted_iou"

    @cached_property
    def score(self) -> float:
        """How good the model takes its mask to be, as `Segmentation.score` says it."""
        if self.predicted_iou is not None:
            return self.predicted_iou
        return confidence(self.resized, threshold=self.threshold)

    @property
    def nothing(self) -> bool | None:
        """Whether the model says that nothing is meant; None where it cannot."""
        return None if self.presence is None else self.presence < logit(self.presence_threshold)


@dataclass(frozen=True)
class Pair:
    """The two masks that a protocol compares, and whether the answer is "nothing"."""

    predicted: Mask
    truth: Mask
    nothing: bool


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One row; `compare` takes a mask of `size`, the truth, and the model's own "nothing"."""

    mask: Callable[[Answer], Mask]
    compare: Callable[[Mask, Mask, bool | None], Pair]
    size: tuple[int, int] | None  # height, width of the mask; None: the picture's
    open_threshold: bool  # eval.threshold decides; else 0.5 by definition
    conventions: Conventions

    def pair(self, answer: Answer) -> Pair:
        return self.compare(self.mask(answer), answer.truth, answer.nothing)


def dit(answer: Answer) -> Mask:
    """The released code: threshold on the canvas, crop, resize the *binary* mask, then > 0.

    Every pixel that a foreground pixel has any weight in becomes foreground, which dilates edges.
    The mask is float32: in uint8, weights below one half would round to 0.
    """
    binary = (answer.logits > logit(answer.threshold)).astype(np.float32)
    height, width = answer.truth.shape
    return restore(binary, answer.content, height=height, width=width) > 0


def original(answer: Answer) -> Mask:
    """The clean way: crop, resize the logits to the picture's size, then threshold."""
    return answer.resized > logit(answer.threshold)


def lavt(answer: Answer) -> Mask:
    """In the squashed square: crop, resize the logits to 480 x 480, then > 0 (their argmax)."""
    return restore(answer.logits, answer.content, height=SQUARE, width=SQUARE) > 0


def cris(answer: Answer) -> Mask:
    """Warp the *probability* on the whole canvas back to the picture, bicubic, then threshold.

    Outside the canvas it is 0. CRIS's own warp maps pixel corners, as the warp that made its
    canvas did; this one undoes our letterbox, whose samples are pixel centres.
    """
    probability = _sigmoid(answer.logits)
    top, left, h, w = answer.content
    height, width = answer.truth.shape
    y, x = h / height, w / width
    to_canvas = np.array([[x, 0, left + x / 2 - 0.5], [0, y, top + y / 2 - 0.5]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(probability, to_canvas, (width, height), flags=flags, borderValue=0.0)
    return warped > answer.threshold


def at_zero(answer: Answer) -> Mask:
    """LISA and GRES: crop, resize the logits to the picture's size, then > 0."""
    return answer.resized > 0


def as_they_are(predicted: Mask, truth: Mask, nothing: bool | None) -> Pair:
    """A mask without any pixel means "nothing"; what else the model says is not looked at."""
    return Pair(predicted, truth, not predicted.any())


def in_the_square(predicted: Mask, truth: Bool[np.ndarray, "H W"], nothing: bool | None) -> Pair:
    """The truth is resized to 480 x 480 by the nearest pixel, as PIL does it."""
    square = (SQUARE, SQUARE)
    squashed = cv2.resize(truth.astype(np.uint8), square, interpolation=cv2.INTER_NEAREST_EXACT)
    return as_they_are(predicted, squashed.astype(bool), nothing)


def with_no_target(predicted: Mask, truth: Mask, nothing: bool | None) -> Pair:
    """The model's own word counts; without one, a mask of fewer than 50 pixels is cleared."""
    if nothing is None:
        nothing = np.count_nonzero(predicted) < FEW_PIXELS
        predicted = predicted & (not nothing)
    return Pair(predicted, truth, bool(nothing))


PROTOCOLS: dict[str, Protocol] = {
    "dit": Protocol(
        mask=dit,
        compare=as_they_are,
        size=None,
        open_threshold=True,
        conventions=Conventions(
            strict=True,
            thresholds=tuple(np.arange(0.5, 1, 0.05)[::2].tolist()),  # 0.7 is 0.7000000000000002
            added=(1e-10, 1e-10),  # a tie is above, until a large union swallows them
            empty_iou=1,
            empty_overall=math.nan,
            targets_only=False,
            reported=("oIoU", "mIoU", "P@0.5", "P@0.7", "P@0.9"),
        ),
    ),
    "original": Protocol(
        mask=original,
        compare=as_they_are,
        size=None,
        open_threshold=True,
        conventions=Conventions(
            strict=True, empty_iou=1, empty_overall=1.0, targets_only=False, reported=METRICS
        ),
    ),
    "lavt": Protocol(
        mask=lavt,
        compare=in_the_square,
        size=(SQUARE, SQUARE),
        open_threshold=False,
        conventions=Conventions(
            strict=False,
            empty_iou=0,
            empty_overall=math.nan,
            targets_only=False,
            reported=("oIoU", "mIoU", *PRECISION),
        ),
    ),
    "cris": Protocol(
        mask=cris,
        compare=as_they_are,
        size=None,
        open_threshold=True,
        conventions=Conventions(
            strict=True,
            thresholds=tuple(np.asarray(THRESHOLDS, np.float32).tolist()),  # 0.69999999, 0.89999998
            added=(0.0, 1e-6),
            empty_iou=0,
            empty_overall=math.nan,
            targets_only=False,
            reported=("mIoU", *PRECISION),
        ),
    ),
    "lisa": Protocol(
        mask=at_zero,
        compare=as_they_are,
        size=None,
        open_threshold=False,
        conventions=Conventions(
            strict=True,
            added_to_n=1e-5,
            empty_iou=1,
            empty_overall=0.0,
            targets_only=False,
            reported=("oIoU", "gIoU"),
        ),
    ),
    "gres": Protocol(
        mask=at_zero,
        compare=with_no_target,
        size=None,
        open_threshold=False,
        conventions=Conventions(
            strict=False,
            empty_iou=1,
            empty_overall=math.nan,
            targets_only=True,
            reported=("oIoU", "gIoU", "P@0.7", "P@0.8", "P@0.9", "N-acc", "T-acc"),
        ),
    ),
}


def conventions(name: str) -> Conventions:
    """How a protocol, or a way of pointing, counts."""
    return PROTOCOLS["original" if name in CLICKS else name].conventions


def rows(
    names: Sequence[str],
    *,
    threshold: float = THRESHOLD,
    presence_threshold: float = PRESENCE_THRESHOLD,
) -> dict[str, Protocol]:
    """The rows of `PROTOCOLS` with these names.

    Raises ValueError for a name that has none, and for a threshold that no row could use: both
    before a model runs for an hour.
    """
    logit(threshold)
    logit(presence_threshold)
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


def confidence(logits: Float32[np.ndarray, "H W"], *, threshold: float) -> float:
    """The mean probability inside the mask of `original`, from `threshold` to 1; 0 where it has no
    pixel."""
    inside = logits[logits > logit(threshold)]
    return float(_sigmoid(inside).mean(dtype=np.float64)) if inside.size else 0.0


def _sigmoid(logits: Float32[np.ndarray, "*n"]) -> Float32[np.ndarray, "*n"]:
    """Without overflow: tanh saturates where exp would not fit a float32."""
    return 0.5 + 0.5 * np.tanh(0.5 * logits)

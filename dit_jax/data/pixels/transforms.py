"""Letterbox and augmentation, on uint8 arrays with OpenCV (Sec. 4.3 and the released code).

The order of `augment` is resize → colour → blur → flip. The picture is resized first because the
rest then touches fewer pixels, so the blur's sigma counts pixels of the resized picture; the canvas
comes after everything, so that its padding stays 0.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

Content = tuple[int, int, int, int]  # top, left, height, width of the picture inside the canvas

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in PIL and OpenCV


@dataclass(frozen=True)
class Augmentation:
    """How a training picture is varied; the defaults are the released code's (blur is off)."""

    scales: tuple[float, ...] = tuple(long / 512 for long in range(320, 513, 32))
    jitter: float = 0.4  # brightness, contrast, saturation: factors in [1 - jitter, 1 + jitter]
    jitter_p: float = 0.8
    blur_p: float = 0.0  # sigma in [0.1, 2]; the paper blurs with 0.5
    flip_p: float = 0.5

    def __post_init__(self):
        if not self.scales or not all(0 < scale <= 1 for scale in self.scales):
            raise ValueError(f"scales is {self.scales}, expected numbers in (0, 1].")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter is {self.jitter}, expected a number in [0, 1].")
        for name in ("jitter_p", "blur_p", "flip_p"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a number in [0, 1].")


UNCHANGED = Augmentation(scales=(1.0,), jitter=0.0, jitter_p=0.0, blur_p=0.0, flip_p=0.0)


@dataclass(frozen=True)
class Augmented:
    """A resized picture, its soft mask times 255, where they belong on the canvas, and the text
    that still fits them."""

    image: UInt8[np.ndarray, "h w 3"]
    mask: UInt8[np.ndarray, "h w"]
    content: Content
    text: str


def content_box(height: int, width: int, size: int, *, scale: float = 1.0) -> Content:
    """Where a picture lies in a `size` x `size` canvas: aspect kept, long side `scale * size`."""
    long = round(scale * size)
    # Exact, as on the device: a ratio of floats puts some halves below what they are.
    h, w = (max(1, round(Fraction(side * long, max(height, width)))) for side in (height, width))
    return round((size - h) / 2 - 0.1), round((size - w) / 2 - 0.1), h, w


def inside(canvas: UInt8[np.ndarray, "S S *c"] | Float32[np.ndarray, "S S"], content: Content):
    """The part of a canvas that the picture covers, as a view `[h, w, *c]`."""
    top, left, h, w = content
    return canvas[top : top + h, left : left + w]


def place(picture: UInt8[np.ndarray, "h w *c"], content: Content, *, size: int) -> np.ndarray:
    """Put a resized picture or mask on a canvas of zeros; returns uint8 `[S, S, *c]`."""
    canvas = np.zeros((size, size, *picture.shape[2:]), np.uint8)
    inside(canvas, content)[...] = picture
    return canvas


def letterbox(
    image: UInt8[np.ndarray, "H W *c"], size: int
) -> tuple[UInt8[np.ndarray, "S S *c"], Content]:
    """Resize bilinearly and centre on a canvas of zeros; takes pictures and masks (x 255)."""
    content = content_box(*image.shape[:2], size)
    return place(resize(image, content[2:]), content, size=size), content


def restore(
    canvas: UInt8[np.ndarray, "S S"] | Float32[np.ndarray, "S S"],
    content: Content,
    *,
    height: int,
    width: int,
) -> np.ndarray:
    """The letterbox's inverse for logits, probabilities or masks: crop, then resize bilinearly."""
    return stretch(inside(canvas, content), height=height, width=width)


def stretch(
    picture: UInt8[np.ndarray, "h w"] | Float32[np.ndarray, "h w"], *, height: int, width: int
) -> np.ndarray:
    """Resize what was cropped bilinearly, without antialiasing; always a new array."""
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)


def augment(
    fitted: Callable[[tuple[int, int]], tuple[np.ndarray, np.ndarray]],
    shape: tuple[int, int],
    *,
    text: str,
    rng: np.random.Generator,
    size: int,
    augmentation: Augmentation,
) -> Augmented:
    """Vary one training example. All randomness comes from `rng`.

    Args:
      fitted: gives the picture `[h, w, 3]` and the mask times 255 `[h, w]` at a size (h, w).
      shape: height and width that they have.
    """
    scale = augmentation.scales[int(rng.integers(len(augmentation.scales)))]
    content = content_box(*shape, size, scale=scale)
    image, mask = fitted(content[2:])
    if rng.random() < augmentation.jitter_p:
        image = jitter_colour(image, rng=rng, strength=augmentation.jitter)
    if rng.random() < augmentation.blur_p:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.1, 2.0))
    if rng.random() < augmentation.flip_p:
        image, mask, text = cv2.flip(image, 1), cv2.flip(mask, 1), swap_left_right(text)
    return Augmented(image, mask, content, text)


def jitter_colour(
    image: UInt8[np.ndarray, "H W 3"], *, rng: np.random.Generator, strength: float
) -> UInt8[np.ndarray, "H W 3"]:
    """Brightness, contrast and saturation in random order, each times 1 ± up to `strength`.

    A factor up to 1 takes no colour out of 0 … 255, so nothing has to be cut off after it, and one
    pass over the picture does that change and the next.
    """
    pending = None
    for change in rng.permutation(3):
        factor = rng.uniform(1 - strength, 1 + strength)
        pending = CHANGES[change](factor, image, pending or Recolouring())
        if factor > 1:
            image, pending = pending(image), None
    return pending(image) if pending else image


class Recolouring(NamedTuple):
    """Each pixel becomes `own` times itself plus `grey` times its grey plus `shift`."""

    own: float = 1.0
    grey: float = 0.0
    shift: float = 0.0

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """Rounds, and cuts off at 0 and 255."""
        rows = [[self.grey * weight for weight in LUMA] + [self.shift] for _ in LUMA]
        for channel, row in enumerate(rows):
            row[channel] += self.own
        return cv2.transform(image, np.array(rows))

    def then(self, own: float, grey: float = 0.0, shift: float = 0.0) -> "Recolouring":
        """This one and another one after it."""
        kept = own + grey  # what the other one leaves of anything that is grey
        return Recolouring(
            own * self.own,
            own * self.grey + grey * (self.own + self.grey),
            kept * self.shift + shift,
        )


def _brightness(factor: float, image: np.ndarray, before: Recolouring) -> Recolouring:
    return before.then(factor)


def _contrast(factor: float, image: np.ndarray, before: Recolouring) -> Recolouring:
    """`factor` times the picture plus (1 - factor) times its mean grey."""
    mean = sum(weight * mean for weight, mean in zip(LUMA, cv2.mean(image), strict=False))
    mean = (before.own + before.grey) * mean + before.shift
    return before.then(factor, shift=(1 - factor) * mean)


def _saturation(factor: float, image: np.ndarray, before: Recolouring) -> Recolouring:
    """`factor` times the picture plus (1 - factor) times its grey."""
    return before.then(factor, grey=1 - factor)


CHANGES = (_brightness, _contrast, _saturation)


def resize(image: UInt8[np.ndarray, "H W *c"], to: tuple[int, int]) -> np.ndarray:
    """Bilinearly, without antialiasing, to (h, w)."""
    return cv2.resize(image, to[::-1], interpolation=cv2.INTER_LINEAR)


def antialiased(image: UInt8[np.ndarray, "H W 3"], to: tuple[int, int]) -> np.ndarray:
    """Pillow's bilinear filter to (h, w), as segment-anything resizes its pictures."""
    return np.asarray(Image.fromarray(image).resize(to[::-1], Image.Resampling.BILINEAR))


# Whole words only: "bright", "upright" and "leftover" stay. The compounds are those that people
# wrote in RefCOCO/+/g ("leftmost", "rightest", "lefty", "topleft", …). Hyphens, underscores and
# digits end a word.
PLACES = "far|top|upper|bottom|lower|back|front|mid(?:dle)?|cent(?:er|re)"
SIDE = re.compile(
    rf"(?<![^\W\d_])(?P<before>(?:{PLACES})?)"
    r"(?P<side>left|right)"
    rf"(?P<after>(?:most|i?est|e?st|ie?r|ish|y|sides?|hand(?:ed)?|wards?|corner|half|end|{PLACES})?)"
    r"(?![^\W\d_])",
    re.IGNORECASE,
)


HAND_SIDE = re.compile(r"(?<![^\W\d_])(?P<side>[lr])(?P<after>hs)(?![^\W\d_])", re.IGNORECASE)
OTHER_HAND = str.maketrans("lrLR", "rlRL")


def swap_left_right(text: str) -> str:
    """Exchange "left" and "right" as words or parts of words like "leftmost", and "lhs" and "rhs",
    keeping the case."""
    text = HAND_SIDE.sub(lambda m: m["side"].translate(OTHER_HAND) + m["after"], text)
    return SIDE.sub(lambda m: m["before"] + _other_side(m["side"]) + m["after"], text)


def _other_side(side: str) -> str:
    other = "right" if side.lower() == "left" else "left"
    if side.isupper():
        return other.upper()
    return other.capitalize() if side[0].isupper() else other

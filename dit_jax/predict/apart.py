"""Objects that touch, told apart: the model is asked again, at points spread over what it found.

Of the answers those count that hardly reach beyond it; of several about one object the best rated.
Where two or more are left that cover it together, each place belongs to the object whose logit is
the highest there. Else it is one object. The figures were chosen on drawn scenes, docs/predict.md.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int

from dit_jax.eval.protocols import confidence, logit
from dit_jax.predict.engine import Request
from dit_jax.predict.prompts import Prompt
from dit_jax.predict.segmentation import Segmentation

POINTS = 8
DEEP = 0.35  # of the farthest from its border that a place is: as deep lie points at least
WITHIN = 0.6  # of an answer: as much lies on what was found
SAME = 0.5  # of the smaller one: what has more in common is one object
LEAST, WHOLE = 0.05, 0.8  # of what was found: an object, and all objects together

Region = Bool[np.ndarray, "h w"]  # on the picture's part of the canvas


@dataclass(frozen=True)
class Apart:
    """Of an answer to `asked` an answer for each of its objects that touch another, and one for
    the rest, if any; the answer itself where none do."""

    answer: Callable[..., list[Segmentation]]  # to at most `most` requests; see `Segmenter.answer`
    asked: Request
    most: int

    def __call__(self, found: Segmentation) -> list[Segmentation]:
        level = logit(found.threshold)
        belongs = (found.logits > level).view(np.uint8)
        count, labels = cv2.connectedComponents(belongs, connectivity=8)
        low, rest, apart = min(found.logits.min(), level - 1), found.logits.copy(), []
        for label in range(1, count):
            region = labels == label
            objects = self._objects(region, found)
            near = cv2.dilate(region.view(np.uint8), np.ones((3, 3), np.uint8)).view(bool)
            for above in objects:
                apart.append(np.where(near, np.minimum(found.logits, level + above), low))
                rest[region] = low
        kept = [*apart, rest] if (rest > level).any() else apart
        return [dataclasses.replace(found, logits=one) for one in kept] if apart else [found]

    def _objects(self, region: Region, found: Segmentation) -> list[Float32[np.ndarray, "h w"]]:
        """By how much each object's logit is above all others'; none where it is one object."""
        places = spread(region, POINTS)
        answers = self._at(places, found, region.shape) if len(places) > 1 else []
        level, area = logit(found.threshold), np.count_nonzero(region)
        kept: list[tuple[Region, np.ndarray]] = []
        rated = sorted(zip(places, answers, strict=False), key=lambda pair: -_score(pair[1]))
        for (x, y), one in rated:
            mask = one.logits > level
            own = mask & region
            least = max(LEAST * area, WITHIN * np.count_nonzero(mask))
            fits = mask[y, x] and np.count_nonzero(own) >= least
            if fits and not any(_same(own, other) for other, _ in kept):
                kept.append((own, one.logits))
        together = np.any([own for own, _ in kept], axis=0)
        if len(kept) < 2 or np.count_nonzero(together) < WHOLE * area:
            return []
        logits = [one for _, one in kept]
        return [one - np.max(logits[:i] + logits[i + 1 :], axis=0) for i, one in enumerate(logits)]

    def _at(
        self, places: Int[np.ndarray, "n 2"], found: Segmentation, shape: tuple[int, ...]
    ) -> list[Segmentation]:
        """The question at each of the places instead; without a text the best of three answers."""
        scale = np.array([found.width / shape[1], found.height / shape[0]])
        points = ((places + 0.5) * scale[None] - 0.5).clip(0).tolist()
        rows = [dataclasses.replace(self.asked, prompt=Prompt(((x, y, 1),))) for x, y in points]
        several, answers = self.asked.text is None, []
        for start in range(0, len(rows), self.most):
            answers += self.answer(rows[start : start + self.most], multimask=several)
        each = 3 if several else 1
        return [max(answers[i : i + each], key=_score) for i in range(0, len(answers), each)]


def spread(region: Region, count: int) -> Int[np.ndarray, "n 2"]:
    """At most `count` places (x, y) deep inside of a region, each far from those before it."""
    padded = np.pad(region.view(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    y, x = np.nonzero(depth >= DEEP * depth.max())
    chosen = [int(depth[y, x].argmax())]
    distance = np.full(len(x), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, np.hypot(x - x[chosen[-1]], y - y[chosen[-1]]))
        if distance.max() < 2:
            break
        chosen.append(int(distance.argmax()))
    return np.stack([x[chosen], y[chosen]], axis=1)


def _score(found: Segmentation) -> float:
    """As `Segmentation.score`, without making a mask of the picture's size."""
    if found.predicted_iou is not None:
        return found.predicted_iou
    return confidence(found.logits, threshold=found.threshold)


def _same(one: Region, other: Region) -> bool:
    smaller = min(np.count_nonzero(one), np.count_nonzero(other))
    return bool(np.count_nonzero(one & other) >= SAME * smaller)

"""A small drawn Source for the tests of evaluation, and a model that almost knows it."""

import cv2
import numpy as np

from dit_jax.data.referent import Referent, Truth
from dit_jax.data.tokenizer import Words
from dit_jax.eval.evaluate import Evaluation, evaluate
from dit_jax.eval.predictions import Answers

SIZE = 32
COUNTS = (3, 1, 2, 4, 1, 2)  # expressions of each referent
WORDS = ("one", "two", "three", "four", "dog", "left")
SENT_IDS = np.split(np.arange(100, 100 + sum(COUNTS)), np.cumsum(COUNTS)[:-1])


class Drawn:
    """Pictures of several shapes, each with one ellipse on it; of some, nothing is meant.

    Notes which pictures are opened, and which truths.
    """

    def __init__(self, *, empty: tuple[int, ...] = ()):
        self.opened: list[int] = []
        self.looked_up: list[int] = []
        self._empty = empty

    def __len__(self) -> int:
        return len(COUNTS)

    def __getitem__(self, index: int) -> Referent:
        self.opened.append(index)
        truth = self._truth(index)
        rng = np.random.default_rng([1, index])
        image = rng.integers(0, 256, size=(*truth.mask.shape, 3), dtype=np.uint8)
        return Referent(image, truth.mask, truth.expressions, truth.id, truth.image_id)

    def truth(self, index: int) -> Truth:
        self.looked_up.append(index)
        return self._truth(index)

    def _truth(self, index: int) -> Truth:
        rng = np.random.default_rng(index)
        height, width = (int(side) for side in rng.integers(20, 70, size=2))
        centre, axes = (width // 2, height // 3), (width // 3, height // 4)
        mask = cv2.ellipse(np.zeros((height, width), np.uint8), centre, axes, 30, 0, 360, 1, -1)
        texts = tuple(f"{WORDS[i]} dog left" for i in range(COUNTS[index]))
        mask = mask.astype(bool) & (index not in self._empty)
        return Truth(mask, texts, f"drawn {index}", image_id=self.image_ids()[index])

    def expression_counts(self) -> np.ndarray:
        return np.array(COUNTS)

    def image_ids(self) -> list[int]:
        return [2**62 + index // 2 for index in range(len(COUNTS))]

    def record_ids(self, index: int) -> dict:
        return {"sent_ids": SENT_IDS[index].tolist()}


def logits_of(mask: np.ndarray, index: int) -> np.ndarray:
    """What the model says about one expression: the truth, moved and roughened."""
    noise = np.random.default_rng(index).normal(size=(SIZE, SIZE))
    return (np.roll(mask / 255.0, index % 3, axis=1) * 6 - 3 + noise).astype(np.float32)


def predict(batch) -> Answers:
    pairs = zip(batch["mask"], batch["index"], strict=True)
    return Answers(np.stack([logits_of(mask, index) for mask, index in pairs]))


def predict_presence(batch) -> Answers:
    """Also says whether something is meant, wrong for every fourth expression."""
    meant = batch["mask"].any(axis=(1, 2)) ^ (batch["index"] % 4 == 1)
    return Answers(predict(batch).logits, np.where(meant, 2.0, -2.0).astype(np.float32))


def scored(tokenizer: Words, *, predict=predict, source=None, **changes) -> Evaluation:
    """`evaluate`, of this model on this source unless another is given."""
    settings = {"size": SIZE, "batch_size": 4, "protocols": ["dit", "original"], "progress": False}
    return evaluate(predict, source or Drawn(), tokenizer, **(settings | changes))

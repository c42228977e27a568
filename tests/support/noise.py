"""A small Source of noise, and what tests of the input pipeline do with it."""

from dataclasses import dataclass

import cv2
import numpy as np
from pycocotools import mask as rle

from dit_jax.data.pipeline.streams import train_batches
from dit_jax.data.pixels import Stored
from dit_jax.data.pixels.transforms import Augmentation
from dit_jax.data.referent import Referent, Truth
from dit_jax.data.tokenizer import Tokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "left", "right", "one", "two", "three"]
SIZE = 32


@dataclass(frozen=True)
class Noise:
    """Referent i has 1 + i % 3 expressions, and a mask unless it is among `nothing`."""

    length: int = 7
    nothing: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Referent:
        rng = np.random.default_rng(index)
        height, width = 20 + index, 40
        mask = np.zeros((height, width), bool)
        mask[5:15, index : index + 9] = index not in self.nothing
        return Referent(
            image=rng.integers(1, 256, (height, width, 3), np.uint8),
            mask=mask,
            expressions=tuple(f"left {word}" for word in ("one", "two", "three")[: 1 + index % 3]),
            id=f"noise {index}",
            image_id=index,
        )

    def truth(self, index: int) -> Truth:
        return self[index].truth()

    def expression_counts(self) -> np.ndarray:
        return 1 + np.arange(self.length) % 3

    def image_ids(self) -> np.ndarray:
        return np.arange(self.length)


class Encoded(Noise):
    """The same as JPEG and run lengths, as records have it."""

    def __getitem__(self, index: int) -> Referent:
        noise = super().__getitem__(index)
        return Stored(
            cv2.imencode(".jpg", noise.image)[1].tobytes(),
            rle.encode(np.asfortranarray(noise.mask, np.uint8))["counts"],
            size=noise.mask.shape,
            expressions=noise.expressions,
            id=noise.id,
            image_id=noise.image_id,
        )


def small_tokenizer(folder) -> Tokenizer:
    path = folder / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n")
    return Tokenizer(path, length=6)


def training(source, tokenizer, **changes):
    settings = {"size": SIZE, "batch_size": 4, "augmentation": Augmentation(), "seed": 0}
    return train_batches(source, tokenizer, **(settings | changes))


def take(iterator, n):
    return [next(iterator) for _ in range(n)]


def assert_same(left, right):
    for one, two in zip(left, right, strict=True):
        assert one.keys() == two.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], two[key])

"""Models that read in known ways, and scenes to ask them about."""

from collections.abc import Callable, Sequence
from functools import cache
from zlib import crc32

import numpy as np

from dit_jax.data.pipeline.streams import Batch
from dit_jax.data.pixels.transforms import letterbox, swap_left_right
from dit_jax.data.referent import Referent, Source, Truth
from dit_jax.data.shapes.dataset import VOCAB, Shapes
from dit_jax.data.tokenizer import Tokenizer
from dit_jax.eval.predictions import Answers
from dit_jax.eval.probe.run import Result, probe
from dit_jax.eval.probe.summary import ALL

SIZE, SCENES = 128, 60


class Kept:
    """A source whose referents are drawn once; with `means` False, their words mean nothing."""

    def __init__(self, referents: Sequence[Referent], means: Sequence[bool] = ()):
        self._referents, self._means = referents, means or [True] * len(referents)

    def __len__(self) -> int:
        return len(self._referents)

    def __getitem__(self, index: int) -> Referent:
        found = self._referents[index]
        mask = found.mask & self._means[index]
        return Referent(found.image, mask, found.expressions, found.id, found.image_id)

    def truth(self, index: int) -> Truth:
        return self[index].truth()

    def expression_counts(self) -> np.ndarray:
        return np.array([len(referent.expressions) for referent in self._referents])

    def image_ids(self) -> np.ndarray:
        return np.array([referent.image_id for referent in self._referents])


DRAWN = Shapes("val", size=SIZE, length=2 * SCENES, seed=3)  # two referents a scene
REFERENTS = [DRAWN[i] for i in range(len(DRAWN))]
SOURCE, ALONE = Kept(REFERENTS), Kept(REFERENTS[::2])
TOKENIZER = Tokenizer(VOCAB, length=20)
SIDES = TOKENIZER(["left right leftmost rightmost"])[0][0, 1:5].tolist()


def exact(ids: list[int]) -> tuple[int, ...]:
    return tuple(ids)


def bag_of_words(ids: list[int]) -> tuple[int, ...]:
    return tuple(sorted(ids))


def without_sides(ids: list[int]) -> tuple[int, ...]:
    swaps = dict(zip(SIDES, (SIDES[0], SIDES[0], SIDES[2], SIDES[2]), strict=True))
    return tuple(swaps.get(i, i) for i in ids)


@cache
def book(read: Callable) -> dict:
    """What every expression means in every picture and its mirror image, as masks on canvases."""
    pages = {}
    for referent in REFERENTS:
        for flip in (1, -1):
            image, _ = letterbox(np.ascontiguousarray(referent.image[:, ::flip]), SIZE)
            mask, _ = letterbox(referent.mask[:, ::flip].astype(np.uint8) * 255, SIZE)
            page = pages.setdefault(image.tobytes(), {})
            for text in referent.expressions:
                said = swap_left_right(text) if flip < 0 else text
                page.setdefault(read(TOKENIZER([said])[0][0].tolist()), mask)
    return pages


def answering(read: Callable, *, otherwise: str = "nothing", presence: bool = False) -> Callable:
    """A model that looks up what it is asked; else it answers nothing, or what comes first."""

    def mask_of(image, ids) -> np.ndarray | None:
        page = book(read)[image.tobytes()]
        found = page.get(read(ids.tolist()))
        return next(iter(page.values())) if found is None and otherwise == "first" else found

    def predict(batch: Batch) -> Answers:
        found = [mask_of(*row) for row in zip(batch["image"], batch["input_ids"], strict=True)]
        full = [np.full((SIZE, SIZE), 255 * presence, np.uint8) if m is None else m for m in found]
        there = np.array([-3.0 if m is None else 3.0 for m in found], np.float32)
        logits = np.stack(full).astype(np.float32) / 16 - 8
        return Answers(logits, there if presence else None)

    return predict


def text_blind(batch: Batch) -> Answers:
    """The object that comes first in the picture, whatever is asked."""
    firsts = [next(iter(book(exact)[image.tobytes()].values())) for image in batch["image"]]
    return Answers(np.stack(firsts).astype(np.float32) / 16 - 8)


def central(batch: Batch) -> Answers:
    """A disc in the middle of the canvas."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    disc = np.where(np.hypot(x, y) < SIZE / 4, 5, -5).astype(np.float32)
    return Answers(np.repeat(disc[None], len(batch["image"]), axis=0))


def silent(batch: Batch) -> Answers:
    """Nothing, whatever is asked."""
    return Answers(np.full(batch["mask"].shape, -5, np.float32))


def fickle(batch: Batch) -> Answers:
    """One of the described objects, by chance but always the same one for the same words."""
    masks = []
    for image, ids in zip(batch["image"], batch["input_ids"], strict=True):
        found = list({m.tobytes(): m for m in book(exact)[image.tobytes()].values()}.values())
        masks.append(found[hash(tuple(ids.tolist())) % len(found)])
    return Answers(np.stack(masks).astype(np.float32) / 16 - 8)


def dizzy(batch: Batch) -> Answers:
    """An object that the picture decides, which its mirror image may decide otherwise."""
    masks = []
    for image in batch["image"]:
        found = list({m.tobytes(): m for m in book(exact)[image.tobytes()].values()}.values())
        masks.append(found[crc32(image.tobytes()) % len(found)])
    return Answers(np.stack(masks).astype(np.float32) / 16 - 8)


def run(predict: Callable, *, source: Source = SOURCE, **changes) -> Result:
    about = dict(size=SIZE, batch_size=16, limit=120, seed=0, resamples=300, progress=False)
    return probe(predict, source, TOKENIZER, **about | changes)


@cache
def passed() -> Result:
    return run(answering(exact), limit=0)


def overall(result: Result, probe_name: str, measure: str) -> float:
    return result.groups[probe_name][ALL].measures[measure].mean

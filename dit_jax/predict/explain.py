"""What the words did: how strongly the mask's pixels attend to each, and the mask without it.

explanation = explain(segmenter, "street.jpg", "the man in red")
explanation.shares[-1]     # attention to each word in the last layer, mean over the mask
explanation.words[3].iou   # IoU between the mask and the one for "the man in"

Attention tells where a layer looked, not what decided; deleting a word tells what it decided, in
this picture.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32

from dit_jax.data.pixels import Content, inside, stretch
from dit_jax.eval.metrics import iou
from dit_jax.eval.protocols import logit
from dit_jax.models.word_attention import WordAttention
from dit_jax.predict.picture import Picture
from dit_jax.predict.prompts import POINT_COUNTS
from dit_jax.predict.requests import Question
from dit_jax.predict.segmentation import Segmentation
from dit_jax.predict.segmenter import Segmenter

NO_TEXT_IN_ENCODER = "no text enters this model's image encoder; the maps are its mask decoder's."


@dataclass(frozen=True, eq=False)
class Word:
    """One word of an expression, as it is written there."""

    text: str
    tokens: tuple[int, ...]  # its places among the text tokens; none where the text was cut
    without: Segmentation | None  # the answer without it; None where nothing is left to ask
    iou: float | None  # between the mask with the word and the mask without it


@dataclass(frozen=True, eq=False)
class Explanation:
    """Attention is the mean over heads; a word's is the sum over its tokens."""

    answer: Segmentation
    words: tuple[Word, ...]
    layers: tuple[str, ...]  # "block 1", …, "decoder 1", …
    maps: Float32[np.ndarray, "layers words h w"] = field(repr=False)  # patches of the canvas
    shares: Float32[np.ndarray, "layers words"] = field(repr=False)  # mean over the mask's pixels
    content: Content = field(repr=False)  # where the picture lies on the canvas, in pixels
    canvas: int  # pixels a side
    remark: str | None

    def heat(self, layer: int, word: int, *, height: int, width: int) -> Float32[np.ndarray, "H W"]:
        """One map over the picture, at any size."""
        size = (self.canvas, self.canvas)
        whole = cv2.resize(self.maps[layer, word], size, interpolation=cv2.INTER_LINEAR)
        return stretch(inside(whole, self.content), height=height, width=width)


def explain(
    segmenter: Segmenter, image: Any, text: str, *, points: Any = None, box: Any = None
) -> Explanation:
    """Word maps of one expression; takes what `Segmenter.__call__` takes.

    The maps are of the words alone; points and box decide on the mask whose pixels are averaged,
    and stay as they are while words are deleted. Where the mask is empty, all of the picture is
    averaged. Raises ValueError for a model that reads no text.
    """
    picture = segmenter.open(image)
    segmenter.check(Question(picture, picture.name, text, points, box))
    found = segmenter.attention(picture, text)
    (answer,) = segmenter(picture, text, points=points, box=box)
    words = _words(segmenter, picture, answer, points=points, box=box)
    maps = _of_words(found, words)
    return Explanation(
        answer=answer,
        words=words,
        layers=_names(found),
        maps=maps,
        shares=_shares(maps, _weights(answer, picture, grid=maps.shape[-2:])),
        content=picture.content,
        canvas=picture.canvas.shape[0],
        remark=NO_TEXT_IN_ENCODER if found.encoder is None else None,
    )


def spans(text: str) -> list[tuple[int, int]]:
    """Where the words of a text start and end: what white space separates."""
    return [found.span() for found in re.finditer(r"\S+", text)]


def _words(
    segmenter: Segmenter, picture: Picture, answer: Segmentation, *, points: Any, box: Any
) -> tuple[Word, ...]:
    text, places = answer.text, spans(answer.text)
    rests = [" ".join((text[:start] + text[end:]).split()) for start, end in places]
    tokens = segmenter.token_places(text)
    own = [
        tuple(i for i, (first, last) in tokens.items() if start <= first < last <= end)
        for start, end in places
    ]
    # What the model does not read changes nothing where it is gone.
    asked = {
        rest
        for rest, read in zip(rests, own, strict=True)
        if read and _can_be_asked(segmenter, picture, rest)
    }
    # Many points are a program of their own, which a server has ready for one row alone.
    alone = len(points or ()) > POINT_COUNTS[0]
    together = [[rest] for rest in sorted(asked)] if alone else [sorted(asked)]
    answers = {
        one.text: one
        for some in together
        for one in segmenter(picture, some, points=points, box=box)
    }
    words = []
    for (start, end), read, rest in zip(places, own, rests, strict=True):
        without = answers.get(rest) if read else answer
        value = None if without is None else iou(_mask(answer), _mask(without))
        words.append(Word(text[start:end], read, without, value))
    return tuple(words)


def _can_be_asked(segmenter: Segmenter, picture: Picture, rest: str) -> bool:
    """Whether words are left that the model knows: the check says no by raising."""
    try:
        segmenter.check(Question(picture, picture.name, rest))
    except ValueError:
        return False
    return True


def _mask(answer: Segmentation) -> np.ndarray:
    """On the canvas: exact enough for an IoU, and small however large the picture is."""
    return answer.logits > logit(answer.threshold)


def _of_words(found: WordAttention, words: tuple[Word, ...]) -> Float32[np.ndarray, "_ _ h w"]:
    parts = [found.decoder] if found.encoder is None else [found.encoder, found.decoder]
    tokens = np.concatenate(parts)[:, 0]  # [layers, l, h, w]
    # A word beyond the text's end has no token, and the sum over none is 0.
    return np.stack([tokens[:, list(word.tokens)].sum(axis=1) for word in words], axis=1)


def _names(found: WordAttention) -> tuple[str, ...]:
    blocks = 0 if found.encoder is None else len(found.encoder)
    encoder = [f"block {i + 1}" for i in range(blocks)]
    return (*encoder, *(f"decoder {i + 1}" for i in range(len(found.decoder))))


def _weights(
    answer: Segmentation, picture: Picture, *, grid: tuple[int, int]
) -> Float32[np.ndarray, "h w"]:
    """The share of each patch that the mask covers; the picture, where there is no mask."""
    canvas = np.zeros(picture.canvas.shape[:2], np.float32)
    mask = _mask(answer)
    inside(canvas, picture.content)[...] = mask if mask.any() else 1.0
    return cv2.resize(canvas, grid[::-1], interpolation=cv2.INTER_AREA)


def _shares(maps: np.ndarray, weights: np.ndarray) -> Float32[np.ndarray, "layers words"]:
    return (np.einsum("nwij,ij->nw", maps, weights) / weights.sum()).astype(np.float32)

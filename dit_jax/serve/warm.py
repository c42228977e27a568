"""Compiles what can be asked before it is asked: several seconds for each kind of question."""

import itertools
import logging
import threading
from typing import Any

import numpy as np

from dit_jax.models.architecture import Injection
from dit_jax.predict import Picture, Question, Segmenter
from dit_jax.predict.explain import explain

MOST_POINTS = 64  # of one question, so that two counts of points are compiled
WORD = "circle"  # one, so that no mask without it is made; most vocabularies know it
BOX = (0.0, 0.0, 2.0, 2.0)


def warm(segmenter: Segmenter, ready: threading.Event) -> None:
    """Ask everything once, of black pictures; `ready` is set at the end, however that comes.

    Others ask meanwhile: the segmenter takes turns, so that they wait for one answer at most.
    """
    try:
        _ask(segmenter)
    except ValueError as error:  # it knows not even this word, say; who asks is told the same
        logging.getLogger("dit_jax.serve").warning("nothing was compiled ahead: %s", error)
    finally:
        ready.set()


def _ask(segmenter: Segmenter) -> None:
    """What is needed first before the rest: one mask at a time, then more of them together."""
    numbers = itertools.count()
    for count in _counts(segmenter.batch_size):
        new = list(itertools.islice(numbers, count))  # what is known is not encoded again
        pictures = [_black(segmenter, number) for number in new]
        for kind in _kinds(segmenter, rare=count == 1):
            asked = (_question(*one, **kind) for one in zip(pictures, new, strict=True))
            segmenter.answer([segmenter.prepare(question) for question in asked])
        if count == 1:
            _ask_for_more(segmenter, pictures[0])


def _ask_for_more(segmenter: Segmenter, picture: Picture) -> None:
    if segmenter.arch.bert is None:
        segmenter.everything(np.zeros((8, 8, 3), np.uint8), points_per_side=1)
    else:
        explain(segmenter, picture, WORD)


def _kinds(segmenter: Segmenter, *, rare: bool) -> list[dict[str, Any]]:
    """What the rows of a batch may have; `rare` ones are answered alone, see `batcher`."""
    arch = segmenter.arch
    choices = {
        "text": [WORD] * (arch.bert is not None) + [None] * (arch.injection == Injection.NONE),
        "mask": [None, *([np.ones((arch.image_size, arch.image_size), bool)] if rare else [])],
        "box": [None, BOX],
        "points": [[], [(0, 0)], *([[(0, 0)] * MOST_POINTS] if rare else [])],
    }
    found = (dict(zip(choices, one, strict=True)) for one in itertools.product(*choices.values()))
    return [one for one in found if any(value is not None and len(value) for value in one.values())]


def _question(picture: Picture, number: int, *, text: str | None, **pointed: Any) -> Question:
    """The texts of a batch differ, so that as many are encoded together."""
    words = None if text is None else " ".join([text] * (number + 1))
    return Question(picture, picture.name, words, **pointed)


def _counts(most: int) -> list[int]:
    """Numbers of rows that programs are compiled for."""
    return sorted({*(1 << n for n in range((most - 1).bit_length())), most})


def _black(segmenter: Segmenter, number: int) -> Picture:
    """Pictures that differ, so that as many are encoded together."""
    pixels = np.zeros((segmenter.arch.image_size, segmenter.arch.image_size, 3), np.uint8)
    pixels[number % len(pixels), number // len(pixels)] = 255
    return segmenter.open(pixels)

"""Compiles what the page asks for before it is asked: several seconds for each kind of question."""

import logging
import threading

import numpy as np

from dit_jax.models.architecture import Injection
from dit_jax.predict import Segmenter
from dit_jax.predict.explain import explain

MOST_POINTS = 64  # of one question, so that two counts of points are compiled
WORD = "circle"  # one, so that no mask without it is made; most vocabularies know it


def warm(segmenter: Segmenter, ready: threading.Event) -> None:
    """Ask everything once, of a black picture; `ready` is set at the end, however that comes.

    Others ask meanwhile: the segmenter takes turns, so that they wait for one answer at most.
    """
    try:
        _ask(segmenter)
    except ValueError as error:  # it knows not even this word, say; who asks is told the same
        logging.getLogger("dit_jax.demo").warning("nothing was compiled ahead: %s", error)
    finally:
        ready.set()


def _ask(segmenter: Segmenter) -> None:
    """What is needed first before the rest."""
    arch = segmenter.arch
    picture = segmenter.open(np.zeros((arch.image_size, arch.image_size, 3), np.uint8))
    words = [] if arch.bert is None else [WORD]
    texts = words + [None] * (arch.injection == Injection.NONE)
    for word in words:
        segmenter(picture, word)
    for text in texts:
        segmenter(picture, text, points=[(0, 0)])
    for word in words:
        explain(segmenter, picture, word)
    for text in texts:
        segmenter(picture, text, points=[(0, 0)] * MOST_POINTS)

"""What one call asks: pictures, texts, points, boxes and masks, spelled out one mask at a time.

one picture, one text              a question
one picture, texts                 a question a text; points, box and mask go with each
one picture, boxes                 a question a box, of each text; points and mask go with each
pictures, one text or none         a question a picture
pictures, as many texts            pairs, in order
"""

import io
import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from dit_jax.data.pixels import pictures
from dit_jax.predict.picture import Picture
from dit_jax.strict import counted

LONGEST_TEXT = 10_000  # characters; a model reads about 20 words
ONE_PICTURE = (
    *(str, bytes, bytearray, memoryview, os.PathLike),
    *(Image.Image, np.ndarray, Picture),
    io.IOBase,  # refused where it is opened, and not read line by line
)


@dataclass(frozen=True)
class Question:
    """One text about one picture, with what is pointed at; as the caller gave them."""

    image: Any
    name: str  # of the picture, in messages
    text: Any = None
    points: Any = None
    box: Any = None
    units: str = "pixel"  # of points and box; see `Prompt.of`
    mask: Any = None

    @property
    def points_at_something(self) -> bool:
        points = self.points
        some = points is not None and (not hasattr(points, "__len__") or len(points) > 0)
        return some or self.box is not None or self.mask is not None


def questions(image: Any, texts: Any, points: Any, box: Any, mask: Any = None) -> list[Question]:
    """Raises ValueError where the lists do not fit each other."""
    if isinstance(image, ONE_PICTURE):
        about, several = (image, name_of(image)), isinstance(texts, (list, tuple))
        pairs = itertools.product(texts if several else [texts], boxes(box))
        return [Question(*about, t, points, one, mask=mask) for t, one in pairs]
    if not isinstance(image, Iterable):
        raise ValueError(
            f"the picture is of type {type(image).__name__}; expected {pictures.EXPECTED}, or a"
            " list of these."
        )
    images = list(image)
    count = len(images)
    return [
        Question(one, name_of(one, number), text, *pointed, mask=drawn)
        for number, (one, text, *pointed, drawn) in enumerate(
            zip(
                images,
                _each(texts, count, "texts", shared=(str, type(None))),
                _each(points, count, "points", shared=(type(None),)),
                _each(box, count, "box", shared=(type(None),)),
                _each(mask, count, "mask", shared=(type(None),)),
                strict=True,
            ),
            start=1,
        )
    ]


def boxes(given: Any) -> list[Any]:
    """A box, or a list of boxes, as a list."""
    listed = given is not None and hasattr(given, "__len__") and len(given) > 0
    nested = listed and not isinstance(given, (str, dict)) and hasattr(given[0], "__len__")
    return list(given) if nested else [given]


def of_pair(asked: Any) -> Question:
    """What `stream` is given: a question, or a pair (picture, text); raises ValueError."""
    if isinstance(asked, Question):
        return asked
    if not isinstance(asked, (tuple, list)) or len(asked) != 2:
        raise ValueError(
            f"a {type(asked).__name__} that is no pair is streamed; expected pairs (picture, text)."
        )
    image, text = asked
    return Question(image, name_of(image), text)


def check_text(text: Any) -> None:
    """Raise ValueError for what is no text, or cannot be written down."""
    if not isinstance(text, str):
        raise ValueError(f"a text is of type {type(text).__name__}; expected words in a str.")
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"a text has {len(text)} characters; expected at most {LONGEST_TEXT}.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the text {text[:80]!r} holds half a character.") from error


def name_of(image: Any, number: int | None = None) -> str:
    """What messages call a picture."""
    if isinstance(image, Picture):
        return image.name
    if isinstance(image, (str, os.PathLike)):
        return pictures.shown(image)
    return "the picture" if number is None else f"picture {number}"


def _each(values: Any, count: int, what: str, *, shared: tuple[type, ...]) -> Sequence[Any]:
    """One value a picture; a value of a `shared` type is that of every picture."""
    if isinstance(values, shared):
        return [values] * count
    if not isinstance(values, (list, tuple)) or len(values) != count:
        several = isinstance(values, (list, tuple))
        found = f"{what} has {len(values)}" if several else f"{what} is a {type(values).__name__}"
        raise ValueError(
            f"the list has {counted(count, 'picture')} and {found}; expected one a picture."
        )
    return values

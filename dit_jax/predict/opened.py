"""The pictures of one call, opened when a question is about them."""

import dataclasses
import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from dit_jax.predict.picture import Picture
from dit_jax.predict.requests import Question

OPEN = 8  # pictures that stay open while others about them may follow


class Opened:
    """Opens the pictures of one call; the latest stay open, for other questions about them.

    Only what cannot have changed is remembered: a file by path, size and time; an object in memory
    where its caller waits for the answers (`still`), or can never change it.
    """

    def __init__(self, open_: Callable[..., Picture], *, still: bool):
        self._open, self._still = open_, still
        # Beside a picture lies what it was opened from: while that lives, nothing else has its id.
        self._recent: OrderedDict[Any, tuple[Any, Picture]] = OrderedDict()

    def __call__(self, question: Question) -> Picture:
        image = question.image
        key = self._key(image)
        if key is None:
            return self._open(image, name=question.name)
        if key not in self._recent:
            self._recent[key] = image, self._open(image, name=question.name)
        self._recent.move_to_end(key)
        if len(self._recent) > OPEN:
            self._recent.popitem(last=False)
        picture = self._recent[key][1]
        if picture.name == question.name:
            return picture  # with its key, which takes milliseconds to make
        return dataclasses.replace(picture, name=question.name)

    def _key(self, image: Any) -> Any:
        if isinstance(image, (str, os.PathLike)):
            try:
                found = os.stat(image)
            except OSError:  # opening it says what is wrong
                return None
            return os.fspath(image), found.st_size, found.st_mtime_ns
        return id(image) if self._still or isinstance(image, (Picture, bytes)) else None

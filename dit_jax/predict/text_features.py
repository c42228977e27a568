"""Expressions as a text encoder's features, computed once each."""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int32

from dit_jax.data.tokenizer import Tokenizer
from dit_jax.models.architecture import Architecture
from dit_jax.weights import directory

CACHE_SIZE = 512  # expressions; 60 kB each with BERT-base

Encode = Callable[[Int32[np.ndarray, "b l"], Int32[np.ndarray, "b l"]], Float[np.ndarray, "b l t"]]


@dataclass(frozen=True)
class TextFeatures:
    """One expression, as the image encoder and the decoder take it."""

    attention_mask: Int32[np.ndarray, " l"]
    features: Float[np.ndarray, "l t"]


class TextFeatureCache:
    """Texts to `TextFeatures`, the latest of which are kept."""

    def __init__(self, tokenizer: Tokenizer, encode: Encode):
        self._tokenizer, self._encode = tokenizer, encode
        self._known: OrderedDict[str, TextFeatures] = OrderedDict()

    def check(self, texts: Iterable[str]) -> None:
        """Raise ValueError for a text without words, or without one that the model can know."""
        for text in dict.fromkeys(texts):
            if text not in self._known:
                self._ids(text)

    def look_up(self, texts: Iterable[str]) -> dict[str, TextFeatures]:
        """The words of each text; new ones are encoded together."""
        wanted = list(dict.fromkeys(texts))
        found = {text: self._known[text] for text in wanted if text in self._known}
        new = [text for text in wanted if text not in found]
        if new:
            ids, masks = (np.concatenate(parts) for parts in zip(*map(self._ids, new), strict=True))
            features = self._encode(ids, masks)
            found |= {text: TextFeatures(masks[i], features[i]) for i, text in enumerate(new)}
        for text in wanted:
            self._known[text] = found[text]
            self._known.move_to_end(text)
        while len(self._known) > max(CACHE_SIZE, len(wanted)):
            self._known.popitem(last=False)
        return found

    def token_places(self, text: str) -> dict[int, tuple[int, int]]:
        """Token → where it starts and ends in `text`, of all tokens that are part of it."""
        return self._tokenizer.places(text)

    def clear(self) -> None:
        """Drop all features, because the parameters that made them changed."""
        self._known.clear()

    def _ids(self, text: str) -> tuple[Int32[np.ndarray, "1 l"], Int32[np.ndarray, "1 l"]]:
        ids, mask = self._tokenizer([text])
        words = ids[0, 1 : mask[0].sum() - 1]
        if (words == self._tokenizer.unknown).all():
            raise ValueError(
                f"the model knows no word of the expression {shortened(text)};"
                " expected words that its vocabulary can spell."
            )
        return ids, mask


def shortened(text: str) -> str:
    """A text for a message of one line."""
    return repr(text if len(text) <= 80 else text[:79] + "…")


def tokenizer_of(model_dir: str | os.PathLike, arch: Architecture) -> Tokenizer:
    """That of a model directory; raises ValueError where it is another text encoder's."""
    path = directory.vocab_path(model_dir)
    tokenizer = Tokenizer(path, length=arch.text_tokens)
    if tokenizer.size > arch.bert.vocab:
        raise ValueError(
            f"{path} has {tokenizer.size} word pieces; the model knows {arch.bert.vocab}: it is the"
            " vocabulary of another text encoder."
        )
    return tokenizer

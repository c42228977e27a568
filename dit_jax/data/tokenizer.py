"""Text to token ids: WordPiece as BERT does it, cut and zero-padded (Sec. 2.1)."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32
from tokenizers import BertWordPieceTokenizer

from dit_jax import vocabulary

TOGETHER = 1024  # texts that are encoded at once, on all cores


@dataclass(frozen=True)
class Unread:
    """The parts of a text that a model does not read; false where there is none."""

    cut: str = ""  # its end, beyond the model's tokens
    unknown: tuple[str, ...] = ()  # words before that which become [UNK], each once

    def __bool__(self) -> bool:
        return bool(self.cut or self.unknown)

    def __str__(self) -> str:
        words = f"unknown: {', '.join(self.unknown)}" if self.unknown else ""
        return "; ".join(filter(None, (words, self.cut and f"beyond its tokens: {self.cut}")))


@runtime_checkable
class Words(Protocol):
    """What makes token ids and attention mask of texts."""

    length: int
    vocab_path: Path | None

    def __call__(
        self, texts: Sequence[str]
    ) -> tuple[Int32[np.ndarray, "b l"], Int32[np.ndarray, "b l"]]: ...


class NoWords:
    """For a model that reads no text: whatever is said, one token of padding."""

    length, vocab_path = 1, None

    def __call__(
        self, texts: Sequence[str]
    ) -> tuple[Int32[np.ndarray, "b 1"], Int32[np.ndarray, "b 1"]]:
        nothing = np.zeros((len(texts), self.length), np.int32)
        return nothing, nothing.copy()


class Tokenizer:
    """`[CLS] word pieces [SEP]`, cut to `length` and padded with zeros.

    Case and accents are those of the vocabulary; see `dit_jax.vocabulary`.

    Calling it gives `input_ids` and `attention_mask` (1 on tokens, 0 on padding).
    """

    def __init__(self, vocab_path: str | os.PathLike[str], length: int = 20):
        if length < 3:
            raise ValueError(f"length is {length}, expected at least 3: [CLS], a word and [SEP].")
        self.vocab_path = Path(vocab_path)
        self.length = length
        found = vocabulary.read(self.vocab_path)
        self.size = found.size  # rows that an embedding table needs
        self._pieces = BertWordPieceTokenizer(found.pieces, **found.spelling.normalizer())

    def __call__(
        self, texts: Sequence[str]
    ) -> tuple[Int32[np.ndarray, "b l"], Int32[np.ndarray, "b l"]]:
        """Token ids and attention mask; raises ValueError for a text without any word piece."""
        input_ids = np.zeros((len(texts), self.length), np.int32)
        attention_mask = np.zeros((len(texts), self.length), np.int32)
        for row, text in enumerate(texts):
            ids = self._encode(text)
            if len(ids) > self.length:
                ids = [*ids[: self.length - 1], ids[-1]]  # [SEP] stays the last token
            input_ids[row, : len(ids)] = ids
            attention_mask[row, : len(ids)] = 1
        return input_ids, attention_mask

    def unread(self, text: str) -> Unread:
        """What a model does not read of `text`."""
        encoding = self._pieces.encode(text)
        ids, last = encoding.ids, min(len(encoding.ids), self.length) - 1
        unknown = [text[slice(*encoding.offsets[i])] for i in range(last) if ids[i] == self.unknown]
        cut = text[encoding.offsets[last][0] :].strip() if len(ids) > self.length else ""
        return Unread(cut, tuple(dict.fromkeys(unknown)))

    def letters(self, text: str) -> tuple[str, ...]:
        """Words of `text`, each once, of which the vocabulary has the letters alone."""
        encoding = self._pieces.encode(text)
        sizes: dict[int, list[int]] = {}
        for word, (start, end) in zip(encoding.word_ids, encoding.offsets, strict=True):
            if word is not None:
                sizes.setdefault(word, []).append(end - start)
        spelled = [word for word, pieces in sizes.items() if len(pieces) > 1 == max(pieces)]
        places = (encoding.word_to_chars(word) for word in spelled)
        return tuple(dict.fromkeys(text[start:end] for start, end in places))

    @property
    def words(self) -> list[str]:
        """The words that the vocabulary has whole, of two letters and more, in its order."""
        pieces = self._pieces.get_vocab()
        return [word for word in sorted(pieces, key=pieces.get) if word.isalpha() and len(word) > 1]

    def places(self, text: str) -> dict[int, tuple[int, int]]:
        """Token → where in `text` it starts and ends, without [CLS], [SEP] and what is cut off."""
        encoding = self._pieces.encode(text)
        last = min(len(encoding.ids), self.length) - 1
        return {i: encoding.offsets[i] for i in range(1, last)}

    def uncut(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """The token ids of each text, [CLS] and [SEP] included, before it is cut or padded.

        Much faster than one text at a time. A text without any word piece gives [CLS] and [SEP].
        """
        for start in range(0, len(texts), TOGETHER):
            for encoding in self._pieces.encode_batch(list(texts[start : start + TOGETHER])):
                yield encoding.ids

    @property
    def unknown(self) -> int:
        """The id of [UNK], which stands for a word that the vocabulary cannot spell."""
        return self._pieces.token_to_id("[UNK]")

    def _encode(self, text: str) -> list[int]:
        ids = self._pieces.encode(text).ids
        if len(ids) <= 2:  # [CLS] and [SEP] alone
            raise ValueError(f"the expression {text!r} is empty, expected at least one word.")
        return ids

    def __reduce__(self):
        # Worker processes read the vocabulary themselves; the Rust object does not travel.
        return Tokenizer, (self.vocab_path, self.length)

"""Where `score` takes the truth of a prediction from: its own line, or array records."""

import re
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from dit_jax.data.pipeline import expression_table
from dit_jax.data.referent import Source, Stated, Truth
from dit_jax.eval.metrics import iou
from dit_jax.eval.prediction_files import Line

SAME = 0.5  # IoU of two truths of one object, at least


@dataclass(frozen=True)
class ExpressionTruth:
    """The truth of one expression."""

    index: int
    image_id: int
    text: str
    truth: Bool[np.ndarray, "H W"]


@runtime_checkable
class Identified(Source, Protocol):
    """A Source that knows what the annotation files call its referents, like `Records`."""

    def record_ids(self, index: int) -> dict[str, Any]: ...


class TruthInLines:
    """Every line brings its own truth; which others should be there is unknown.

    Like those of `TruthInRecords`, methods that take a line raise ValueErrors that name it.
    """

    def __init__(self):
        self._numbers: dict[tuple, int] = {}

    def index(self, line: Line) -> int:
        """Which expression a line is about: equal `index`, `sent_id`, or `id` and `text`, equal
        numbers."""
        split = line.text("dataset"), line.text("split")
        key: tuple = (line.where,)
        if (name := line.values.get("id")) is not None:
            key = (*split, "id", str(name), line.text("text"))
        for name in ("index", "sent_id"):
            if (number := line.number(name)) is not None:
                key = (*split, name, number)
                break
        return self._numbers.setdefault(key, len(self._numbers))

    def known(self, index: int, line: Line) -> ExpressionTruth:
        found = {
            "truth": line.truth(),
            "image_id": line.number("image_id"),
            "text": line.text("text"),
        }
        for key, value in found.items():
            if value is None:
                raise ValueError(
                    f"{line.where} has no {key!r}, expected it there, or records (--truth)."
                )
        return ExpressionTruth(index=index, **found)

    def missing(self, found: Collection[int]) -> list[int]:
        return []

    def name(self, index: int) -> str:
        return f"expression {index}"

    def remarks(self) -> dict[str, str]:
        return {}


class TruthInRecords:
    """A split of records; a line says which expression it is about."""

    def __init__(self, source: Identified):
        self._source = source
        self._table = expression_table(source)
        self._truth = lru_cache(maxsize=1)(source.truth)  # neighbours share their referent

    def index(self, line: Line) -> int:
        """Which expression a line is about, by `sent_id`, `index`, or `id` and `text`."""
        index = line.number("index")
        sent_id = line.number("sent_id")
        tells = index is None or self._by_sent_id.get(sent_id, index) is not None
        if sent_id is not None and tells:  # else several expressions have it, and `index` tells
            return self._find(self._by_sent_id, sent_id, f"{line.where}: sent_id {sent_id}")
        if index is not None:
            return self._find(self._by_index, index, f"{line.where}: index {index}")
        name, text = line.text("id"), line.text("text")
        if name is None or text is None:
            raise ValueError(
                f"{line.where} does not say which expression it is about, expected 'sent_id',"
                " 'index', or 'id' with 'text'."
            )
        return self._find(self._by_text, (name, text), f"{line.where}: {name!r} with {text!r}")

    def known(self, index: int, line: Line) -> ExpressionTruth:
        """Its truth; what else the line says must be the same, or it was made for other records."""
        truth, number = self._look_up(index)
        text, said, drawn = truth.expressions[number], line.text("text"), line.truth()
        if said is not None and _letters(said) != _letters(text):
            raise ValueError(
                f"{line.where} says {said!r}, but the records have {self.name(index)} there;"
                " expected predictions for these records, or no 'text'."
            )
        if drawn is not None and not _alike(drawn, truth.mask):
            raise ValueError(
                f"{line.where} has another 'truth' than the records' {self.name(index)};"
                " expected predictions for these records, or no 'truth'."
            )
        return ExpressionTruth(index, truth.image_id, text, truth.mask)

    def missing(self, found: Collection[int]) -> list[int]:
        """Expressions of the split that are not among those found."""
        return [index for index in range(len(self._table)) if index not in found]

    def name(self, index: int) -> str:
        """An expression in words, for messages."""
        truth, number = self._look_up(index)
        return f"index {index} ({truth.id}, {truth.expressions[number]!r})"

    def remarks(self) -> dict[str, str]:
        """What scores against these truths depend on."""
        return self._source.remarks() if isinstance(self._source, Stated) else {}

    def _look_up(self, index: int) -> tuple[Truth, int]:
        referent, number = (int(n) for n in self._table[index])
        return self._truth(referent), number

    def _find(self, numbers: Mapping[Hashable, int | None], key: Hashable, what: str) -> int:
        if key not in numbers:
            raise ValueError(f"{what} is not in this split.")
        if (index := numbers[key]) is None:
            raise ValueError(f"{what} is there more than once, expected an 'index'.")
        return index

    @cached_property
    def _by_index(self) -> dict[int, int]:
        return {index: index for index in range(len(self._table))}

    @cached_property
    def _by_sent_id(self) -> dict[int, int | None]:
        """sent_id → index; None where several expressions have it."""
        ids = (self._source.record_ids(i)["sent_ids"] for i in range(len(self._source)))
        return _numbered(sent_id for some in ids for sent_id in some)

    @cached_property
    def _by_text(self) -> dict[tuple[str, str], int | None]:
        truths = (self._source.truth(i) for i in range(len(self._source)))
        return _numbered((truth.id, text) for truth in truths for text in truth.expressions)


Truths = TruthInLines | TruthInRecords


def _letters(text: str) -> str:
    """What tools leave of a text that tidy it: neither case nor spaces nor punctuation count."""
    text = text.casefold()
    return "".join(re.findall("[a-z0-9]", text)) or text


def _alike(drawn: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "H W"]) -> bool:
    """Whether both can be masks of one object, which may be outlined anew or without crowds."""
    return drawn.shape == truth.shape and iou(drawn, truth) >= SAME


def _numbered(keys: Iterable[Hashable]) -> dict[Hashable, int | None]:
    """Key → its place; None for a key that comes more than once."""
    numbers: dict[Hashable, int | None] = {}
    for index, key in enumerate(keys):
        numbers[key] = None if key in numbers else index
    return numbers

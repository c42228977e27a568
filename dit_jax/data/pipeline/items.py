"""One row of a batch, from reading its record to its word pieces, and what a broken record becomes.

A record is broken where reading or tokenising it raises ValueError. Nothing is raised here: a row
says which records failed before it, and whoever takes the batch reads those again to learn what was
wrong with them. So threads and worker processes end in the same sentence.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from dit_jax.data.pixels import UNCHANGED, Augmentation, Stored, antialiased, augment, resize
from dit_jax.data.referent import Referent, Source
from dit_jax.data.tokenizer import Words

Batch = dict[str, np.ndarray]
Row = dict[str, Any]  # as in Batch, but image and mask are not on their canvases yet

NONE = -1  # in `failed`, where no record did


@dataclass(frozen=True)
class Reader:
    """Referents as rows: what training and evaluation share."""

    source: Source
    tokenizer: Words
    size: int
    corner: bool = False  # as SAM has its pictures: antialiased, in the corner; else centred

    def row(
        self,
        referent: Referent,
        expression: int,
        *,
        rng: np.random.Generator,
        augmentation: Augmentation,
    ) -> Row:
        exact = augmentation == UNCHANGED or not isinstance(referent, Stored)
        example = augment(
            functools.partial(_resized, referent, corner=self.corner) if exact else referent.fitted,
            referent.mask.shape if exact else referent.size,
            text=referent.expressions[expression],
            rng=rng,
            size=self.size,
            augmentation=augmentation,
        )
        content = (0, 0, *example.content[2:]) if self.corner else example.content
        input_ids, attention_mask = self.tokenizer([example.text])
        return {
            "image": example.image,
            "content": np.array(content, np.int32),
            "input_ids": input_ids[0],
            "attention_mask": attention_mask[0],
            "mask": example.mask,
            # Of the full mask: a tiny object may fade away when its picture shrinks.
            "present": np.bool_(referent.present),
        }

    def empty_row(self) -> Row:
        """Stands where no record could be read; nobody gets to see it."""
        return {
            "image": np.zeros((0, 0, 3), np.uint8),
            "content": np.zeros(4, np.int32),
            "input_ids": np.zeros(self.tokenizer.length, np.int32),
            "attention_mask": np.zeros(self.tokenizer.length, np.int32),
            "mask": np.zeros((0, 0), np.uint8),
            "present": np.bool_(False),
        }

    def problem(self, index: int) -> tuple[str, str]:
        """Reads a record again that failed: its id, and a sentence that names it."""
        try:
            referent = self.source[index]
            _resized(referent, (1, 1), corner=self.corner)
            self.tokenizer(referent.expressions)
            text = (
                "it could not be read at first, but was read a moment later; expected a record"
                " that does not change."
            )
        except ValueError as error:
            text = str(error)
        name = self.name(index)
        return name, text if name in text else f"{name}: {text}"

    def name(self, index: int) -> str:
        """A record's id, where at least that can be read."""
        try:
            return self.source.truth(index).id
        except ValueError:
            return f"referent {index}"


def _resized(
    referent: Referent, to: tuple[int, int], *, corner: bool
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """Picture and mask times 255, from their own size."""
    picture = antialiased if corner else resize
    return picture(referent.image, to), resize(referent.mask * np.uint8(255), to)


@dataclass(frozen=True)
class TrainingRow:
    """A referent with a random one of its expressions, varied.

    Where a record is broken, another one of the same part of the source is drawn, from the row's
    own generator, until one is good or `tries` have failed.
    """

    reader: Reader
    augmentation: Augmentation
    parts: Sequence[int]  # lengths, that make up the source
    tries: int

    def __call__(self, index: int, rng: np.random.Generator) -> Row:
        failed = np.full(self.tries, NONE, np.int64)
        row = self.reader.empty_row()
        for attempt in range(self.tries):
            try:
                row = self._read(int(index), rng)
                break
            except ValueError:
                failed[attempt] = index
                index = self._another(int(index), rng)
        return {**row, "index": np.int64(index), "valid": np.bool_(True), "failed": failed}

    def _read(self, index: int, rng: np.random.Generator) -> Row:
        referent = self.reader.source[index]
        expression = int(rng.integers(len(referent.expressions)))
        return self.reader.row(referent, expression, rng=rng, augmentation=self.augmentation)

    def _another(self, index: int, rng: np.random.Generator) -> int:
        ends = np.cumsum(self.parts)
        part = int(np.searchsorted(ends, index, side="right"))
        return int(rng.integers(ends[part] - self.parts[part], ends[part]))


@dataclass(frozen=True)
class EvaluationRow:
    """One expression, unvaried; beyond the last one, the last one again with `valid` False."""

    reader: Reader
    table: Int[np.ndarray, "n 2"]  # (referent, expression of it)

    def __call__(self, index: int) -> Row:
        last = len(self.table) - 1
        place = min(int(index), last)
        which, expression = (int(number) for number in self.table[place])
        # UNCHANGED draws numbers but uses none, so any generator does.
        settings = dict(rng=np.random.default_rng(0), augmentation=UNCHANGED)
        failed = NONE
        try:
            row = self.reader.row(self.reader.source[which], expression, **settings)
        except ValueError:
            row, failed = self.reader.empty_row(), which
        numbers = {"index": np.int64(place), "valid": np.bool_(index <= last)}
        return {**row, **numbers, "failed": np.array([failed], np.int64)}


@dataclass(frozen=True)
class Collate:
    """Rows to a batch: pictures and masks go onto canvases of zeros, the rest is stacked."""

    size: int

    def __call__(self, rows: Sequence[Row]) -> Batch:
        batch = {}
        for key in rows[0]:
            values = [row[key] for row in rows]
            if key not in ("image", "mask"):
                batch[key] = np.stack(values)
                continue
            shape = (len(rows), self.size, self.size, *values[0].shape[2:])
            batch[key] = np.empty(shape, np.uint8)
            for canvas, row in zip(batch[key], rows, strict=True):
                top, left, height, width = row["content"].tolist()
                bottom, right = top + height, left + width
                canvas[top:bottom, left:right] = row[key]
                canvas[:top], canvas[bottom:] = 0, 0
                canvas[top:bottom, :left], canvas[top:bottom, right:] = 0, 0
        return batch

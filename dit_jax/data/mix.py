"""Several data sets as one: `refcoco(unc)+refcoco+(unc)+refcocog(umd)+folder(my_photos)`.

A part is a kind of data set and, in brackets, its partition, or for `folder` where it lies.
RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO share COCO's photographs, and one's training pictures are
another's test pictures: `overlap` counts them and `without` leaves them out.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from dit_jax.data.referent import Contents, Referent, Source, Truth

KINDS = ("shapes", "refcoco", "refcoco+", "refcocog", "grefcoco", "folder")
KIND = "(?:" + "|".join(re.escape(kind) for kind in sorted(KINDS, reverse=True)) + ")"
PART = rf"{KIND}(?:\([^()]*\))?"
MIX = re.compile(rf"{PART}(?:\+{PART})*")
# The end that a part may have: another part, or nothing. It tells "refcoco+refcocog" from
# "refcoco++refcocog", RefCOCO+ and RefCOCOg.
ONE = re.compile(rf"({KIND})(?:\(([^()]*)\))?(?:\+(?={PART})|$)")
SPLIT = re.compile(rf"(?:({PART})/)?([^/()]+)")


@dataclass(frozen=True)
class Part:
    """One data set: what kind it is, and its partition ("unc", …) or folder."""

    kind: str
    argument: str

    def __str__(self) -> str:
        return f"{self.kind}({self.argument})" if self.argument else self.kind

    @property
    def label(self) -> str:
        """For the names of files: "refcoco", or the own folder's name."""
        return Path(self.argument).resolve().name if self.kind == "folder" else self.kind


@dataclass(frozen=True)
class Split:
    """A split of a part."""

    part: Part
    name: str

    def __str__(self) -> str:
        return f"{self.part}/{self.name}"


def parse(text: str, *, split_by: str, source: str) -> tuple[Part, ...]:
    """The parts of a mix.

    Args:
      split_by: of the parts that name no partition.
      source: the folder that a bare "folder" means.
    """
    if not MIX.fullmatch(text):
        raise ValueError(
            f"data.dataset is {text!r}; expected one of {', '.join(KINDS)}, or several joined by"
            " '+', each with its partition or folder in brackets, like"
            " refcoco(unc)+refcocog(umd)+folder(my_photos)."
        )
    parts = []
    while text:
        found = ONE.match(text)
        kind, argument = found[1], (found[2] or "").strip()
        default = {"shapes": "", "folder": source}.get(kind, split_by)
        parts.append(Part(kind, argument or default))
        text = text[found.end() :]
    twice = {str(part) for part in parts if parts.count(part) > 1}
    if twice:
        raise ValueError(f"data.dataset names {', '.join(sorted(twice))} twice; expected it once.")
    return tuple(parts)


def parse_split(text: str, parts: Sequence[Part], *, split_by: str, source: str) -> Split:
    """ "val" of the only part, or "refcoco(unc)/val" of any data set."""
    found = SPLIT.fullmatch(text)
    if not found:
        raise ValueError(
            f"no split can be read from {text!r}; expected a name like val, or one with its data"
            " set like refcoco(unc)/val."
        )
    if found[1]:
        return Split(parse(found[1], split_by=split_by, source=source)[0], found[2])
    if len(parts) > 1:
        named = " or ".join(f"{part}/{text}" for part in parts)
        raise ValueError(f"the mix has several splits {text!r}; expected {named}.")
    return Split(parts[0], text)


class Mix:
    """A Source: the referents of several sources, one after another."""

    def __init__(self, sources: Sequence[Source]):
        self.sources = tuple(sources)
        self.lengths = tuple(len(source) for source in self.sources)
        self._ends = np.cumsum(self.lengths)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Referent:
        source, place = self._find(index)
        return source[place]

    def truth(self, index: int) -> Truth:
        source, place = self._find(index)
        return source.truth(place)

    def expression_counts(self) -> Int[np.ndarray, " n"]:
        return np.concatenate([source.expression_counts() for source in self.sources])

    def image_ids(self) -> Int[np.ndarray, " n"]:
        return np.concatenate([source.image_ids() for source in self.sources])

    def _find(self, index: int) -> tuple[Source, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"referent {index} of a mix of {len(self)}.")
        which = int(np.searchsorted(self._ends, index, side="right"))
        return self.sources[which], int(index) - int(self._ends[which] - self.lengths[which])


class Subset:
    """A Source: some referents of another one."""

    def __init__(self, source: Source, indices: Int[np.ndarray, " m"]):
        self.source, self.indices = source, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Referent:
        return self.source[self._at(index)]

    def truth(self, index: int) -> Truth:
        return self.source.truth(self._at(index))

    def expression_counts(self) -> Int[np.ndarray, " n"]:
        return self.source.expression_counts()[self.indices]

    def image_ids(self) -> Int[np.ndarray, " n"]:
        return self.source.image_ids()[self.indices]

    def _at(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"referent {index} of a subset of {len(self)}.")
        return int(self.indices[index])


def first(source: Source, count: int) -> Subset:
    """The first `count` referents."""
    return Subset(source, np.arange(min(count, len(source))))


Overlap = dict[str, dict[str, int]]  # training split → other split → pictures in both


def overlap(training: Mapping[str, Source], others: Mapping[str, Source]) -> Overlap:
    """How many pictures each pair has in common: of one number, or of the same bytes."""
    ids = {name: np.unique(_identities(source)) for name, source in others.items()}
    return {
        name: {
            other: len(np.unique(source.image_ids()[_shared(source, ids[other])])) for other in ids
        }
        for name, source in training.items()
    }


def without(source: Source, others: Collection[Source]) -> Source:
    """The referents of the pictures that none of the others has."""
    ids = np.concatenate([np.zeros(0, np.int64), *(_identities(o).ravel() for o in others)])
    kept = np.flatnonzero(~_shared(source, np.unique(ids)))
    return source if len(kept) == len(source) else Subset(source, kept)


def _identities(source: Source) -> Int[np.ndarray, "k n"]:
    """All that each referent's picture is known by; numbers and contents are never equal."""
    known = [source.image_ids()]
    return np.stack([*known, source.contents()] if isinstance(source, Contents) else known)


def _shared(source: Source, ids: Int[np.ndarray, " m"]) -> Bool[np.ndarray, " n"]:
    return np.isin(_identities(source), ids).any(axis=0)


def matrix(found: Overlap) -> str:
    """A table of the pictures in common: a row for each training split."""
    columns = list(next(iter(found.values())))
    widths = [max(len(column), 7) for column in columns]
    left = max(len(name) for name in found)
    head = " ".join([" " * left, *(c.rjust(w) for c, w in zip(columns, widths, strict=True))])
    rows = [
        " ".join(
            [name.ljust(left), *(f"{row[c]:>{w},}" for c, w in zip(columns, widths, strict=True))]
        )
        for name, row in found.items()
    ]
    return "\n".join([head, *rows])

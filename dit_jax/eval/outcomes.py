"""What came out for each expression, as integers: all scores and intervals follow from these.

One `Outcomes` is a table of one protocol, a row an expression. Everything in it is an int64, so
what is computed from it does not depend on the order of the rows, on the batch size, or on how many
hosts shared the work.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from dit_jax.eval.relations import CLASSES, relation_classes

ONE = 1 << 40  # 1.0 as an integer: it rounds a number by less than 1e-12
NO_SCORE = -(1 << 63)  # of an answer that came without one
LARGEST_SCORE = 1e6


class Outcome(NamedTuple):
    """One row; areas count pixels of the space in which a protocol compares, `target` and `picture`
    those of the picture itself."""

    index: int  # of the expression in its split
    image_id: int  # equal numbers mean the same photograph
    intersection: int
    union: int
    nothing: int  # 1 where the model says that nothing is meant
    target: int  # pixels that are meant; 0 where nothing is
    picture: int
    words: int  # of the expression
    relations: int  # bit i: it is in class i of `relations.CLASSES`
    score: int = NO_SCORE  # how good the model takes its mask to be, in units of 1 / ONE


class Outcomes:
    """Rows of `Outcome` as one int64 array, `outcomes["union"]` being a column."""

    def __init__(self, table: Int64[np.ndarray, "n 10"]):
        self.table = table

    @classmethod
    def of(cls, rows: Sequence[Outcome]) -> "Outcomes":
        return cls(np.array(rows, np.int64).reshape(-1, len(Outcome._fields)))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, name: str) -> Int64[np.ndarray, " n"]:
        return self.table[:, Outcome._fields.index(name)]


def join(parts: Sequence[Outcomes]) -> Outcomes:
    """The rows of all parts in the order of `index`; an expression that comes twice is refused."""
    whole = np.concatenate([part.table for part in parts])
    whole = whole[np.argsort(whole[:, 0], kind="stable")]
    twice = np.flatnonzero(whole[1:, 0] == whole[:-1, 0])
    if twice.size:
        raise ValueError(
            f"expression {whole[twice[0], 0]} was scored more than once, expected each once."
        )
    return Outcomes(whole)


def outcome(
    predicted: Bool[np.ndarray, "h w"],
    truth: Bool[np.ndarray, "h w"],
    *,
    nothing: bool,
    about: "About",
    score: float | None = None,
) -> Outcome:
    """Compare two masks; `score` is the model's own of the first.

    Who says that nothing is meant has no intersection, whatever the mask; where that is right,
    there is no union either (ReLA's evaluator counts so). For a mask without any pixel both are
    what they are anyway.
    """
    hit, marked, there = (int(np.count_nonzero(m)) for m in (predicted & truth, predicted, truth))
    right = nothing and not there
    return Outcome(
        index=about.index,
        image_id=about.image_id,
        intersection=0 if nothing else hit,
        union=0 if right else marked + there - hit,
        nothing=int(nothing),
        target=about.target,
        picture=about.picture,
        words=about.words,
        relations=about.relations,
        score=NO_SCORE if score is None else _fixed(score),
    )


def _fixed(score: float) -> int:
    if not abs(score) <= LARGEST_SCORE:
        raise ValueError(f"a score is {score}; expected a number, of a million at most.")
    return round(score * ONE)


class About(NamedTuple):
    """What an outcome says about the expression and its picture, the same in every protocol."""

    index: int
    image_id: int
    target: int
    picture: int
    words: int
    relations: int


def about(
    text: str, truth: Bool[np.ndarray, "H W"], *, index: int, image_id: int, target: int
) -> About:
    """`target` is the number of pixels of `truth`: neighbouring expressions share it."""
    return About(index, image_id, target, truth.size, count_words(text), relation_bits(text))


def count_words(text: str) -> int:
    """Pieces between blanks that hold a letter or a digit: "lady ' s hat ." has three."""
    return sum(any(c.isalnum() for c in piece) for piece in text.split())


def relation_bits(text: str) -> int:
    """The relation classes of an expression as bits of one number."""
    return sum(1 << CLASSES.index(name) for name in relation_classes(text))

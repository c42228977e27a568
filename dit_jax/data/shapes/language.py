"""Embedded data set: expressions that single out one object, never ambiguously.

An expression starts as a logical form and becomes words last.  Three kinds of form exist:

    attribute   the small striped star                  a description only one object fits
    position    leftmost circle · square on the left    several fit, their places decide
    relation    the circle below the red star           several fit, another object decides

A place or relation is true, false or unclear.  A form is used only if it is clearly true of one
object and clearly false of all others, so every margin below errs on the side of silence.
Mirroring a picture and exchanging left and right in the words keeps every expression true.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from math import dist
from typing import NamedTuple

import numpy as np

from dit_jax.data.shapes.layout import Thing, pick

KINDS = ("attribute", "position", "relation")
# Pixels of the reference picture (128 wide).
CENTRE_MARGIN = 5.0  # from the middle line, to lie clearly on a side
RANK_MARGIN = 10.0  # from first to second, to be clearly the leftmost or the nearest
RELATION_MARGIN = 12.0  # offset that makes something clearly left of something else
DOMINANCE = 1.3  # ... where the offset across must be smaller by this factor
NEARNESS = 1.4  # ratio of the second smallest distance to the smallest

# (axis, direction): the thing lies towards `direction` along x (0) or y (1).
AXES = {"left": (0, -1), "right": (0, 1), "top": (1, -1), "bottom": (1, 1)}
EXTREMES = {"leftmost": "left", "rightmost": "right", "topmost": "top", "lowest": "bottom"}
RELATIONS = {"left of": "left", "right of": "right", "above": "top", "below": "bottom"}
NEAREST = "nearest"


class Phrase(NamedTuple):
    """A description by attributes; None leaves an attribute open."""

    size: str | None
    texture: str | None
    colour: str | None
    shape: str | None

    @property
    def length(self) -> int:
        return sum(value is not None for value in self)


class Form(NamedTuple):
    """What an expression means: `modifier` is a key of `AXES`, `EXTREMES` or `RELATIONS`, or
    `NEAREST`; `anchor` describes the other object of a relation."""

    kind: str
    target: Phrase
    modifier: str | None = None
    anchor: Phrase | None = None


@dataclass(frozen=True)
class View:
    """What language sees of a picture: attributes, and centres (x, y) of the visible parts.

    Sets of things are the bits of an integer, which keeps the search for forms fast."""

    things: tuple[Thing, ...]
    centres: tuple[tuple[float, float], ...]
    extent: tuple[int, int]  # width, height
    unit: float

    @cached_property
    def having(self) -> dict[str, int]:
        """The things that have a value: no word is a value of two attributes."""
        sets: dict[str, int] = {}
        for i, thing in enumerate(self.things):
            for value in (thing.size, thing.texture, thing.colour, thing.shape):
                sets[value] = sets.get(value, 0) | 1 << i
        return sets

    def fitting(self, phrase: Phrase) -> int:
        """The things a description fits."""
        fit = (1 << len(self.things)) - 1
        for value in phrase:
            if value is not None:
                fit &= self.having.get(value, 0)
        return fit


@cache
def descriptions(size: str, texture: str, colour: str, shape: str) -> tuple[Phrase, ...]:
    """All 16 true descriptions of a thing, from the empty one to the full one."""
    full = (size, texture, colour, shape)
    return tuple(
        Phrase(*(value if bits >> i & 1 else None for i, value in enumerate(full)))
        for bits in range(16)
    )


def forms(view: View, referent: int, *, kind: str) -> list[Form]:
    """All forms of a kind that single out thing number `referent`."""
    thing = view.things[referent]
    fitting = [
        (phrase, view.fitting(phrase))
        for phrase in descriptions(thing.size, thing.texture, thing.colour, thing.shape)
    ]
    if kind == "attribute":
        return [
            Form(kind, phrase)
            for phrase, fit in fitting
            if fit == 1 << referent and phrase.length <= 3
        ]
    short = [(phrase, fit) for phrase, fit in fitting if phrase.length <= 2]
    if kind == "position":
        return list(_position_forms(view, referent, candidates=short))
    if kind == "relation":
        return list(_relation_forms(view, referent, candidates=short))
    raise ValueError(f"unknown kind of expression {kind!r}: expected one of {KINDS}")


Candidates = Sequence[tuple[Phrase, int]]


def _position_forms(view: View, referent: int, *, candidates: Candidates) -> Iterator[Form]:
    for side in AXES:
        sure, possible = _on_side(view, side)
        for phrase, fit in candidates:
            if _only(referent, fit, sure=sure, possible=possible):
                yield Form("position", phrase, side)
    margin = RANK_MARGIN * view.unit
    for word, side in EXTREMES.items():
        axis, direction = AXES[side]
        keys = [-direction * centre[axis] for centre in view.centres]
        for phrase, fit in candidates:
            if _first(referent, fit, keys=keys, margin=margin):
                yield Form("position", phrase, word)


def _relation_forms(view: View, referent: int, *, candidates: Candidates) -> Iterator[Form]:
    for number, thing in enumerate(view.things):
        if number == referent:
            continue
        others = [(phrase, fit & ~(1 << number)) for phrase, fit in candidates]
        found = list(_relations(view, referent, anchor=number, candidates=others))
        if found:
            look = (thing.size, thing.texture, thing.colour, thing.shape)
            names = [p for p in descriptions(*look) if p.length <= 2]
            names = [p for p in names if view.fitting(p) == 1 << number]
            yield from (Form("relation", p, word, name) for p, word in found for name in names)


def _relations(
    view: View, referent: int, *, anchor: int, candidates: Candidates
) -> Iterator[tuple[Phrase, str]]:
    """Descriptions and relations to thing number `anchor` that together mean `referent` only."""
    for word, side in RELATIONS.items():
        sure, possible = _beside(view, anchor, side=side)
        for phrase, fit in candidates:
            if _only(referent, fit, sure=sure, possible=possible):
                yield phrase, word
    margin = RANK_MARGIN * view.unit
    distances = [dist(centre, view.centres[anchor]) for centre in view.centres]
    for phrase, fit in candidates:
        if _first(referent, fit, keys=distances, margin=margin, ratio=NEARNESS):
            yield phrase, NEAREST


def _on_side(view: View, side: str) -> tuple[int, int]:
    """Things clearly in that half of the picture, and things perhaps there."""
    axis, direction = AXES[side]
    middle, margin = view.extent[axis] / 2, CENTRE_MARGIN * view.unit
    sure = possible = 0
    for i, centre in enumerate(view.centres):
        offset = direction * (centre[axis] - middle)
        sure |= (offset >= margin) << i
        possible |= (offset > -margin) << i
    return sure, possible


def _beside(view: View, anchor: int, *, side: str) -> tuple[int, int]:
    """Things clearly in that direction from the anchor, and things perhaps so."""
    axis, direction = AXES[side]
    origin, margin = view.centres[anchor], RELATION_MARGIN * view.unit
    sure = possible = 0
    for i, centre in enumerate(view.centres):
        along = direction * (centre[axis] - origin[axis])
        across = abs(centre[1 - axis] - origin[1 - axis])
        sure |= (along >= max(margin, DOMINANCE * across)) << i
        possible |= (along > 0) << i
    return sure, possible


def _only(referent: int, fit: int, *, sure: int, possible: int) -> bool:
    """Whether of two or more candidates the referent surely is the one and no other perhaps."""
    alone = 1 << referent
    return fit & possible == alone and fit & sure == alone and fit != alone


def _first(
    referent: int, fit: int, *, keys: Sequence[float], margin: float, ratio: float = 1.0
) -> bool:
    """Whether of two or more candidates the referent has the smallest key, by a clear margin;
    `ratio` is for keys that are lengths."""
    rivals = [key for i, key in enumerate(keys) if fit >> i & 1 and i != referent]
    if not rivals:
        return False
    least, own = min(rivals), keys[referent]
    return least - own >= margin and (ratio == 1.0 or least >= ratio * own)


def means_nothing(view: View, form: Form) -> bool:
    """Whether clearly no thing is meant: none fits, or none is perhaps in that direction."""
    fit = view.fitting(form.target)
    if form.anchor is None:
        possible = _on_side(view, form.modifier)[1] if form.modifier in AXES else fit
        return not fit & possible
    anchors = view.fitting(form.anchor)
    if form.modifier in RELATIONS and anchors.bit_count() == 1:
        fit &= _beside(view, anchors.bit_length() - 1, side=RELATIONS[form.modifier])[1]
    return not (fit and anchors)


def choose(rng: np.random.Generator, found: Sequence[Form]) -> Form:
    """A form of a random modifier, the shorter of two: people name little more than is needed."""
    modifier = pick(rng, sorted({form.modifier or "" for form in found}))
    same = [form for form in found if (form.modifier or "") == modifier]
    return min(pick(rng, same), pick(rng, same), key=_length)


def _length(form: Form) -> int:
    return form.target.length + (form.anchor.length if form.anchor else 0)

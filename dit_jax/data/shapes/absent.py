"""Embedded data set, an addition: expressions that mean nothing in their picture, as in gRefCOCO.

Each is a true one with one thing changed, so that neither the words nor the picture alone tell that
it is not there: "the small striped heart" where only the star is striped, "the circle left of the
red star" where all circles are right of it.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from dit_jax.data.shapes.language import Form, Phrase, View, means_nothing
from dit_jax.data.shapes.layout import COLOURS, HELD_OUT, SHAPES, SIZES, TEXTURES, pick
from dit_jax.data.shapes.words import say

VALUES = {
    "size": tuple(SIZES),
    "texture": tuple(dict.fromkeys(TEXTURES)),
    "colour": tuple(COLOURS),
    "shape": SHAPES,
}
# Changes of what is named, until any attribute may be: "the small object" has but one.
TRIES = 30
TURNED = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"} | {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}


def absent_expressions(
    rng: np.random.Generator, view: View, true: Sequence[Form], *, count: int
) -> tuple[str, ...]:
    """`count` different expressions that mean nothing in a picture, from `true` ones, in words."""
    found: list[Form] = []
    for tried in itertools.count():
        if len(found) == count:
            break
        form = _changed(rng, pick(rng, true), named=tried < TRIES)
        pairs = {(part.colour, part.shape) for part in (form.target, form.anchor) if part}
        if form not in found and not pairs & HELD_OUT and means_nothing(view, form):
            found.append(form)
    return tuple(say(rng, form) for form in found)


def _changed(rng: np.random.Generator, form: Form, *, named: bool) -> Form:
    """Another value of one attribute that is `named`, or of any; or the opposite direction."""
    parts = [part for part in ("target", "anchor") if getattr(form, part) is not None]
    keys = [
        (part, key)
        for part in parts
        for key in VALUES
        if not named or getattr(getattr(form, part), key)
    ]
    turned = [("modifier", "")] if form.modifier in TURNED else []
    if not keys + turned:  # "the leftmost thing"
        return form
    part, key = pick(rng, keys + turned)
    if part == "modifier":
        return form._replace(modifier=TURNED[form.modifier])
    phrase: Phrase = getattr(form, part)
    others = [value for value in VALUES[key] if value != getattr(phrase, key)]
    return form._replace(**{part: phrase._replace(**{key: pick(rng, others)})})

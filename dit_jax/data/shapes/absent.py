"""Embedded data set, an addition: expressions that mean nothing in their picture, as in gRefCOCO.

Each describes an object of the scene with one attribute changed, so that neither the words nor the
picture alone tell that it is not there: "the small striped heart" where only the star is striped.
"""

import numpy as np

from dit_jax.data.shapes.language import Form, Phrase, View
from dit_jax.data.shapes.layout import COLOURS, HELD_OUT, SHAPES, SIZES, TEXTURES, Thing, pick
from dit_jax.data.shapes.words import say

VALUES = {
    "size": tuple(SIZES),
    "texture": tuple(dict.fromkeys(TEXTURES)),
    "colour": tuple(COLOURS),
    "shape": SHAPES,
}
NAMED = (2, 3)  # attributes of an expression, at least and at most


def absent_expressions(
    rng: np.random.Generator, things: tuple[Thing, ...], *, count: int
) -> tuple[str, ...]:
    """`count` different descriptions that fit none of the things of a scene, in words."""
    view = View(things, (), (0, 0), 1.0)  # attributes alone: where things are does not matter
    phrases: list[Phrase] = []
    while len(phrases) < count:
        phrase = _changed(rng, _description(rng, view))
        pair = (phrase.colour, phrase.shape)
        if not view.fitting(phrase) and phrase not in phrases and pair not in HELD_OUT:
            phrases.append(phrase)
    return tuple(say(rng, Form("attribute", phrase)) for phrase in phrases)


def _description(rng: np.random.Generator, view: View) -> Phrase:
    """Two or three attributes of a random object, its shape among them."""
    thing = pick(rng, view.things)
    others = rng.permutation(3)[: rng.integers(NAMED[0], NAMED[1] + 1) - 1]
    named = {("size", "texture", "colour")[i] for i in others} | {"shape"}
    return Phrase(*(getattr(thing, key) if key in named else None for key in VALUES))


def _changed(rng: np.random.Generator, phrase: Phrase) -> Phrase:
    """Another value of one attribute that the phrase names."""
    key = pick(rng, [key for key in VALUES if getattr(phrase, key) is not None])
    others = [value for value in VALUES[key] if value != getattr(phrase, key)]
    return phrase._replace(**{key: pick(rng, others)})

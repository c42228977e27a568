"""Embedded data set: logical forms become words, and the vocabulary that holds them.

The only words about left and right are left, right, leftmost and rightmost, so exchanging the two
is all that a mirrored picture asks of its expressions.
"""

import numpy as np

from dit_jax.data.shapes.language import NEAREST, Form, Phrase
from dit_jax.data.shapes.layout import COLOURS, SHAPES, pick

# {0} is the described object, {1} the object it is related to.
WORDINGS = {
    "left": ("left {0}", "{0} on the left"),
    "right": ("right {0}", "{0} on the right"),
    "top": ("top {0}", "{0} at the top"),
    "bottom": ("bottom {0}", "{0} at the bottom"),
    "leftmost": ("leftmost {0}", "{0} furthest left"),
    "rightmost": ("rightmost {0}", "{0} furthest right"),
    "topmost": ("topmost {0}",),
    "lowest": ("lowest {0}",),
    "left of": ("{0} left of the {1}", "{0} to the left of the {1}"),
    "right of": ("{0} right of the {1}", "{0} to the right of the {1}"),
    "above": ("{0} above the {1}",),
    "below": ("{0} below the {1}", "{0} under the {1}"),
    NEAREST: ("{0} nearest to the {1}", "{0} closest to the {1}"),
}
SIZE_WORDS = {"small": ("small",), "large": ("large", "big")}
TEXTURE_ADJECTIVES = ("plain", "striped", "dotted")
TEXTURE_SUFFIXES = {"striped": "with stripes", "dotted": "with dots"}
NOUNS = ("object", "thing")


def say(rng: np.random.Generator, form: Form) -> str:
    """One wording of a form, at random; different forms never sound the same."""
    names = [noun_phrase(rng, p) for p in (form.target, form.anchor) if p is not None]
    template = pick(rng, WORDINGS[form.modifier]) if form.modifier else "{0}"
    return pick(rng, ("", "the ")) + template.format(*names)


def noun_phrase(rng: np.random.Generator, phrase: Phrase) -> str:
    """size, texture, colour, noun; a texture may follow instead ("red star with stripes")."""
    follows = phrase.texture in TEXTURE_SUFFIXES and rng.random() < 0.5
    words = [
        pick(rng, SIZE_WORDS[phrase.size]) if phrase.size else None,
        None if follows else phrase.texture,
        phrase.colour,
        phrase.shape or pick(rng, NOUNS),
        TEXTURE_SUFFIXES[phrase.texture] if follows else None,
    ]
    return " ".join(word for word in words if word)


def vocabulary() -> list[str]:
    """The lines of `vocab.txt`: BERT's special tokens, all words, then single characters and
    their continuations, from which any other lower-case word is spelled."""
    texts = [
        "the",
        *(word for words in SIZE_WORDS.values() for word in words),
        *TEXTURE_ADJECTIVES,
        *TEXTURE_SUFFIXES.values(),
        *COLOURS,
        *SHAPES,
        *NOUNS,
        *(template.format("", "") for some in WORDINGS.values() for template in some),
    ]
    words = dict.fromkeys(word for text in texts for word in text.split())
    characters = "abcdefghijklmnopqrstuvwxyz0123456789"
    return [
        *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
        *words,
        *characters,
        *(f"##{character}" for character in characters),
        *"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    ]

"""An independent reader of the embedded data set's expressions, slow and simple.

`meaning` reads the *words* and judges them on the final masks alone.  It shares no code with the
generator and knows two readings: a picky one, true only of what clearly fits, and a lax one, true
of all that somebody might point at.
"""

from dataclasses import dataclass

import numpy as np

from dit_jax.data.shapes.dataset import Scene
from dit_jax.data.shapes.layout import COLOURS, SHAPES

VALUES = {
    "small": ("size", "small"),
    "large": ("size", "large"),
    "big": ("size", "large"),
    "plain": ("texture", "plain"),
    "striped": ("texture", "striped"),
    "stripes": ("texture", "striped"),
    "dotted": ("texture", "dotted"),
    "dots": ("texture", "dotted"),
    **{word: ("colour", word) for word in COLOURS},
    **{word: ("shape", word) for word in SHAPES},
}
SILENT = {"the", "object", "thing", "with"}
TOWARDS = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}
RELATION_WORDS = (
    (" to the left of the ", "left"),
    (" to the right of the ", "right"),
    (" left of the ", "left"),
    (" right of the ", "right"),
    (" above the ", "top"),
    (" below the ", "bottom"),
    (" under the ", "bottom"),
    (" nearest to the ", "near"),
    (" closest to the ", "near"),
)
POSITION_WORDS = (
    *((f" {side}most ", f"most {side}") for side in ("left", "right", "top")),
    (" lowest ", "most bottom"),
    *((f" furthest {side} ", f"most {side}") for side in ("left", "right")),
    *((f" on the {side} ", f"half {side}") for side in ("left", "right")),
    *((f" at the {side} ", f"half {side}") for side in ("top", "bottom")),
    *((f" {side} ", f"half {side}") for side in TOWARDS),
)


@dataclass(frozen=True)
class Seen:
    """What a reader sees: visible masks, and the attributes drawn there."""

    masks: list[np.ndarray]
    attributes: list[dict[str, str]]

    @classmethod
    def of(cls, drawn: Scene) -> "Seen":
        names = ("size", "texture", "colour", "shape")
        things = drawn.layout.things
        return cls(
            [drawn.mask(i) for i in range(len(things))],
            [{name: getattr(thing, name) for name in names} for thing in things],
        )

    def mirrored(self) -> "Seen":
        return Seen([mask[:, ::-1] for mask in self.masks], self.attributes)

    def centre(self, i: int) -> np.ndarray:
        return np.argwhere(self.masks[i]).mean(axis=0)[::-1]

    def fitting(self, words: str) -> set[int]:
        wanted = [VALUES[word] for word in words.split() if word not in SILENT]
        return {
            i
            for i, have in enumerate(self.attributes)
            if all(have[name] == value for name, value in wanted)
        }


def meaning(text: str, seen: Seen, *, lax: bool) -> tuple[str, set[int]]:
    """The kind of an expression, and all things it is true of in that reading.

    A relation to something that is not there, or that might be several things, is true of none."""
    kind, fitting, how, anchors = parsed(text, seen)
    if not fitting or kind == "attribute":
        return kind, fitting
    if kind == "position":
        return kind, positioned(seen, fitting, how, lax)
    return kind, related(seen, fitting, *anchors, how, lax) if len(anchors) == 1 else set()


def parsed(text: str, seen: Seen) -> tuple[str, set[int], str, set[int]]:
    """Kind, things that fit before their place is looked at, the place, and what it refers to."""
    for words, relation in RELATION_WORDS:
        if words in text:
            described, other = map(seen.fitting, text.split(words))
            return "relation", described - other, relation, other
    for words, position in POSITION_WORDS:
        if words in f" {text} ":
            return "position", seen.fitting(f" {text} ".replace(words, " ")), position, set()
    return "attribute", seen.fitting(text), "", set()


def related(seen: Seen, fitting: set[int], anchor: int, relation: str, lax: bool) -> set[int]:
    away = {i: seen.centre(i) - seen.centre(anchor) for i in fitting}
    if relation == "near":
        distances = {i: float(np.hypot(*offset)) for i, offset in away.items()}
        return smallest(distances, margin=9 * unit(seen) if lax else 0)
    along = {i: float(np.dot(offset, TOWARDS[relation])) for i, offset in away.items()}
    if lax:
        return {i for i in fitting if along[i] > 0}
    across = {i: float(abs(np.dot(away[i], TOWARDS[relation][::-1]))) for i in fitting}
    return {i for i in fitting if along[i] > max(11 * unit(seen), 1.2 * across[i])}


def positioned(seen: Seen, fitting: set[int], position: str, lax: bool) -> set[int]:
    how, side = position.split()
    height, width = seen.masks[0].shape
    middle = np.array([width, height]) / 2
    along = {i: float(np.dot(seen.centre(i) - middle, TOWARDS[side])) for i in fitting}
    if how == "half":
        return {i for i in fitting if along[i] > (-4 if lax else 4) * unit(seen)}
    return smallest({i: -a for i, a in along.items()}, margin=9 * unit(seen) if lax else 0)


def smallest(keys: dict[int, float], *, margin: float) -> set[int]:
    return {i for i, key in keys.items() if key <= min(keys.values()) + margin}


def unit(seen: Seen) -> float:
    return max(seen.masks[0].shape) / 128

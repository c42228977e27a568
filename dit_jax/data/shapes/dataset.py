"""Embedded data set: `Shapes`, an endless text-and-mask data set without files.

Everything follows from (seed, split, index): items can be read in any order, by any process, on any
machine.  The split's name enters the random seed, so splits share no scene.  As in RefCOCO, testA
and testB are two kinds of difficulty: attributes only and relations only.  "heldout" is testA with
pairs of colour and shape that no other split ever shows, both named: the gap between the two is
what composition costs.

    Shapes("train", size=128, length=20_000, seed=0)[6].expressions
"""

from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np
from jaxtyping import Bool, Int, Int8, UInt8

from dit_jax.data.referent import Referent, Truth
from dit_jax.data.shapes.absent import absent_expressions
from dit_jax.data.shapes.draw import Stencil, owners, paint, stencil
from dit_jax.data.shapes.language import KINDS, Form, View, choose, forms
from dit_jax.data.shapes.layout import HELD_OUT, Layout, sample_layout
from dit_jax.data.shapes.words import say

VOCAB = Path(__file__).with_name("vocab.txt")
REFERENTS_PER_SCENE = 2
EXPRESSIONS_PER_REFERENT = 2
SMALLEST_SIZE = 64  # below, textures dissolve
LEAST_VISIBLE = 0.5  # share of every object that others leave uncovered
LEAST_PIXELS = 60  # ... and its number of reference pixels


@dataclass(frozen=True)
class Split:
    """Which scenes and expressions a split has; weights in the order of `KINDS`."""

    weights: tuple[float, float, float]
    things: tuple[int, int]
    held_out: bool = False  # referents, and only they, are of held-out pairs, named in full

    def allow(self, form: Form) -> bool:
        return not self.held_out or None not in (form.target.colour, form.target.shape)


SPLITS = {
    "train": Split((0.2, 0.2, 0.6), (2, 6)),
    "val": Split((0.2, 0.2, 0.6), (2, 6)),
    "testA": Split((1.0, 0.0, 0.0), (2, 6)),
    "testB": Split((0.0, 0.0, 1.0), (4, 6)),
    "heldout": Split((1.0, 0.0, 0.0), (3, 6), held_out=True),
}


@dataclass(frozen=True)
class Expression:
    """The words and the logical form they came from."""

    text: str
    form: Form


@dataclass(frozen=True)
class Target:
    """A described object: its number in the layout and the expressions that mean it."""

    number: int
    expressions: tuple[Expression, ...]


@dataclass(frozen=True)
class Scene:
    """A drawn scene; thing number i of the layout is visible where `owner == i`."""

    layout: Layout
    stencils: tuple[Stencil, ...]
    owner: Int8[np.ndarray, "H W"]
    view: View
    targets: tuple[Target, ...]

    def image(self) -> UInt8[np.ndarray, "H W 3"]:
        return paint(self.layout, self.stencils)

    def mask(self, number: int) -> Bool[np.ndarray, "H W"]:
        """The visible part of thing `number`."""
        return self.owner == number


class Shapes:
    """A `Source` of `length` referents with two expressions each.

    `size` is the long side in pixels; the other side is 75-100 % of it.  Two referents in a row
    share a scene.  A longer source of the same seed begins with the items of a shorter one.
    `absent` is the share of referents whose expressions fit nothing in the picture; the others
    are the same whatever it is."""

    def __init__(
        self, split: str, *, size: int = 128, length: int, seed: int = 0, absent: float = 0.0
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r} of shapes: expected one of {list(SPLITS)}")
        if size < SMALLEST_SIZE:
            raise ValueError(f"shapes of size {size}: expected at least {SMALLEST_SIZE} pixels")
        if length < 1 or seed < 0:
            raise ValueError(
                f"shapes of length {length} and seed {seed}: expected length >= 1 and seed >= 0"
            )
        if not 0 <= absent <= 1:
            raise ValueError(f"shapes of absent {absent}: expected a share from 0 to 1")
        self.split, self.size, self.length, self.seed = split, size, length, seed
        self.absent = absent

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Referent:
        if not 0 <= index < self.length:
            raise IndexError(f"shapes item {index}: expected 0 to {self.length - 1}")
        number, place = divmod(int(index), REFERENTS_PER_SCENE)
        drawn = scene(self.split, number, size=self.size, seed=self.seed)
        said, mask = self._answer(drawn, number=number, place=place)
        return Referent(
            image=drawn.image(),
            mask=mask,
            expressions=said,
            id=f"shapes {self.split} item {index} (seed {self.seed}, size {self.size})",
            image_id=self._image_id(number),
        )

    def _answer(
        self, drawn: Scene, *, number: int, place: int
    ) -> tuple[tuple[str, ...], Bool[np.ndarray, "H W"]]:
        """Expressions and mask of a referent, or expressions that mean nothing."""
        if self.absent:
            rng = _generator(self.seed, self.split, number, place)
            if rng.random() < self.absent:
                nothing = np.zeros(drawn.owner.shape, bool)
                true = [said.form for target in drawn.targets for said in target.expressions]
                count = EXPRESSIONS_PER_REFERENT
                return absent_expressions(rng, drawn.view, true, count=count), nothing
        target = drawn.targets[place]
        said = tuple(expression.text for expression in target.expressions)
        return said, drawn.mask(target.number)

    def truth(self, index: int) -> Truth:
        return self[index].truth()

    def _image_id(self, number: int) -> int:
        """Of scene `number`: negative, as no photograph's is, and distinct between splits."""
        return -1 - (list(SPLITS).index(self.split) << 40) - number

    def expression_counts(self) -> Int[np.ndarray, " n"]:
        return np.full(self.length, EXPRESSIONS_PER_REFERENT, np.int64)

    def image_ids(self) -> Int[np.ndarray, " n"]:
        return self._image_id(0) - np.arange(self.length, dtype=np.int64) // REFERENTS_PER_SCENE


def scene(split: str, index: int, *, size: int = 128, seed: int = 0) -> Scene:
    """Scene number `index` of a split: layouts are drawn until one has two describable objects."""
    rng = _generator(seed, split, index)
    rules = SPLITS[split]
    held_out = REFERENTS_PER_SCENE if rules.held_out else 0
    while True:
        layout = sample_layout(rng, size=size, counts=rules.things, held_out=held_out)
        stencils = tuple(stencil(thing) for thing in layout.things)
        owner = owners(layout, stencils)
        centres = _visible_centres(layout, stencils, owner=owner)
        if centres is None:
            continue
        view = View(layout.things, centres, (layout.width, layout.height), layout.unit)
        targets = _targets(rng, view, rules=rules)
        if len(targets) == REFERENTS_PER_SCENE:
            return Scene(layout, stencils, owner, view, targets)


def _generator(seed: int, split: str, *numbers: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, crc32(split.encode()), *numbers]))


def _visible_centres(
    layout: Layout, stencils: tuple[Stencil, ...], *, owner: Int8[np.ndarray, "H W"]
) -> tuple[tuple[float, float], ...] | None:
    """Centre of mass (x, y) of every visible part; None where some thing is covered too far."""
    centres = []
    for number, part in enumerate(stencils):
        visible = (owner[part.window] == number).view(np.uint8)
        moments = cv2.moments(visible, binaryImage=True)
        area = moments["m00"]
        whole = np.count_nonzero(part.inside)
        if area < LEAST_VISIBLE * whole or area < LEAST_PIXELS * layout.unit**2:
            return None
        centres.append((part.left + moments["m10"] / area, part.top + moments["m01"] / area))
    return tuple(centres)


def _targets(rng: np.random.Generator, view: View, *, rules: Split) -> tuple[Target, ...]:
    """Up to two things of the scene, in random order, with their expressions."""
    found: list[Target] = []
    for number in rng.permutation(len(view.things)).tolist():
        thing = view.things[number]
        if rules.held_out and (thing.colour, thing.shape) not in HELD_OUT:
            continue
        expressions = _expressions(rng, view, number=number, rules=rules)
        if expressions:
            found.append(Target(number, expressions))
        if len(found) == REFERENTS_PER_SCENE:
            break
    return tuple(found)


def _expressions(
    rng: np.random.Generator, view: View, *, number: int, rules: Split
) -> tuple[Expression, ...]:
    """Expressions of different meaning for a thing, or none where it cannot have enough of them."""
    pool = {kind: weight for kind, weight in zip(KINDS, rules.weights, strict=True) if weight}
    unused: dict[str, list[Form]] = {}
    said: list[Expression] = []
    while pool and len(said) < EXPRESSIONS_PER_REFERENT:
        kind = _weighted(rng, pool)
        if kind not in unused:
            unused[kind] = [form for form in forms(view, number, kind=kind) if rules.allow(form)]
        if unused[kind]:
            form = choose(rng, unused[kind])
            unused[kind].remove(form)
            said.append(Expression(say(rng, form), form))
        else:
            del pool[kind]
    return tuple(said) if len(said) == EXPRESSIONS_PER_REFERENT else ()


def _weighted(rng: np.random.Generator, weights: dict[str, float]) -> str:
    """A key, with a probability proportional to its weight."""
    rest = rng.random() * sum(weights.values())
    for key, weight in weights.items():
        rest -= weight
        if rest < 0:
            return key
    return next(reversed(weights))

"""Embedded data set: what lies in a scene and where.

A scene is pure data, drawn from one random generator: a picture size, a backdrop and 2-6 coloured
shapes listed from back to front.  Every length below is in pixels of a picture whose long side is
128 (`REFERENCE`) and scales with the picture.  Each scene takes its shapes and colours from a small
palette of its own, so that objects share attributes and an expression has something to tell apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot
from typing import TypeVar

import numpy as np

REFERENCE = 128
COLOURS = {
    "red": (214, 36, 40),
    "orange": (246, 138, 20),
    "yellow": (250, 222, 45),
    "green": (44, 160, 60),
    "cyan": (60, 206, 216),
    "blue": (38, 78, 214),
    "purple": (126, 48, 172),
    "pink": (246, 128, 190),
}
TEXTURES = ("plain", "plain", "striped", "dotted")  # plain twice: half of all objects
SIZES = {"small": (13.0, 14.5), "large": (26.0, 30.0)}  # radius: a factor 1.8 lies between
# Largest turn from upright, in radians: further, a square reads as a diamond, a cross as an x.
TURNS = {
    "circle": 3.14,
    "square": 0.35,
    "triangle": 3.14,
    "star": 3.14,
    "heart": 0.45,
    "cross": 0.3,
}
SHAPES = tuple(TURNS)
# Pairs that no object has except the referents of the split "heldout".  One for each colour, so
# that any palette of two shapes leaves every colour an ordinary pair.
HELD_OUT = frozenset(
    {
        ("red", "heart"),
        ("orange", "square"),
        ("yellow", "cross"),
        ("green", "circle"),
        ("cyan", "triangle"),
        ("blue", "star"),
        ("purple", "square"),
        ("pink", "circle"),
    }
)
BACKDROPS = ("flat", "gradient", "clouds", "waves", "tiles")
REACH = 1.3  # no outline leaves the circle of this many radii
PLACING_ATTEMPTS = 16

Item = TypeVar("Item")


@dataclass(frozen=True)
class Thing:
    """One object; lengths in pixels, `angle` and `phase` in radians."""

    shape: str
    colour: str
    texture: str
    size: str
    x: float
    y: float
    radius: float
    angle: float
    phase: float  # of the texture, which turns independently of the outline
    shade: float  # brightness factor near 1


@dataclass(frozen=True)
class Backdrop:
    """The background: two dull colours mixed by a pattern, plus `grain` grey levels of noise."""

    kind: str
    first: tuple[float, float, float]
    second: tuple[float, float, float]
    angle: float
    grain: float
    seed: int


@dataclass(frozen=True)
class Layout:
    """Everything that determines a picture; `things` from back to front."""

    height: int
    width: int
    things: tuple[Thing, ...]
    backdrop: Backdrop

    @property
    def unit(self) -> float:
        """Pixels of this picture for one pixel of the reference picture."""
        return max(self.height, self.width) / REFERENCE


def pick(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    """One item, uniformly; several times faster than `Generator.choice`."""
    return items[int(rng.random() * len(items))]


def between(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def sample_layout(
    rng: np.random.Generator, *, size: int, counts: tuple[int, int], held_out: int
) -> Layout:
    """A layout with a number of things within `counts`, `held_out` of them of a held-out pair."""
    short = round(size * pick(rng, (0.75, 0.8125, 0.875, 0.9375, 1.0)))
    height, width = (size, short) if rng.random() < 0.5 else (short, size)
    unit = size / REFERENCE
    while True:
        # Squared: few things are more common than many.
        wanted = counts[0] + int(rng.random() ** 2 * (counts[1] - counts[0] + 1))
        # Below 1 outlines may overlap; kept above the point where one could hide another.
        spacing = pick(rng, (0.72, 0.9, 1.2))
        things: list[Thing] = []
        for look in _looks(rng, count=wanted, held_out=held_out):
            thing = _place(
                rng, things, look=look, extent=(width, height), unit=unit, spacing=spacing
            )
            if thing is not None:
                things.append(thing)
        if len(things) >= max(counts[0], held_out):
            order = rng.permutation(len(things))
            return Layout(height, width, tuple(things[i] for i in order), _backdrop(rng))


def _looks(rng: np.random.Generator, *, count: int, held_out: int) -> list[tuple[str, str]]:
    """(colour, shape) of every thing, from a palette of two or three of each; held-out first."""
    rare = [pick(rng, sorted(HELD_OUT)) for _ in range(held_out)]
    colours = {colour for colour, _ in rare}
    shapes = {shape for _, shape in rare}
    most = 2 + int(rng.random() * 2)
    while len(colours) < most:
        colours.add(pick(rng, tuple(COLOURS)))
    while len(shapes) < most:
        shapes.add(pick(rng, SHAPES))
    pairs = [(c, s) for c in sorted(colours) for s in sorted(shapes) if (c, s) not in HELD_OUT]
    return rare + [pick(rng, pairs) for _ in range(count - held_out)]


def _place(
    rng: np.random.Generator,
    others: Sequence[Thing],
    *,
    look: tuple[str, str],
    extent: tuple[int, int],
    unit: float,
    spacing: float,
) -> Thing | None:
    """A thing of that colour and shape at a free place, or None where no room was found."""
    colour, shape = look
    size = pick(rng, tuple(SIZES))
    radius = between(rng, *SIZES[size]) * unit
    reach = REACH * radius + 1
    for _ in range(PLACING_ATTEMPTS):
        x, y = (between(rng, reach, side - reach) for side in extent)
        if all(hypot(x - o.x, y - o.y) >= spacing * (radius + o.radius) for o in others):
            return Thing(
                shape=shape,
                colour=colour,
                texture=pick(rng, TEXTURES),
                size=size,
                x=x,
                y=y,
                radius=radius,
                angle=between(rng, -TURNS[shape], TURNS[shape]),
                phase=between(rng, 0.0, 6.28),
                shade=between(rng, 0.9, 1.06),
            )
    return None


def _backdrop(rng: np.random.Generator) -> Backdrop:
    """Two greyish colours of similar brightness: objects stay the only vivid things in view."""
    level = between(rng, 55.0, 205.0)
    first, second = (
        tuple(level + shift + between(rng, -16.0, 16.0) for _ in range(3))
        for shift in (0.0, between(rng, -45.0, 45.0))
    )
    return Backdrop(
        kind=pick(rng, BACKDROPS),
        first=first,
        second=second,
        angle=between(rng, 0.0, 6.28),
        grain=between(rng, 0.0, 14.0),
        seed=int(rng.random() * 2**32),
    )

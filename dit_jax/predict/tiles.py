"""Large pictures in pieces: an expression is asked about tiles that overlap, and has one mask.

The picture is shrunk so that a tile has the size of the model's canvas, and tiles are cut out of
that, at whole pixels. Logits of neighbors are blended where tiles overlap: the outer quarter of an
overlap counts nothing, since a model sees no surroundings there, and between the quarters one tile
fades into the other. So there is no seam, and an object that lies across several tiles is one.

What a tile cannot know is what lies outside it: of "the leftmost car" each finds its own.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from tqdm import tqdm

from dit_jax.data.pixels import pictures
from dit_jax.predict.picture import Picture, Resized
from dit_jax.predict.requests import Question
from dit_jax.predict.segmentation import Segmentation

ROOM = 2**30  # bytes of logits that are put together at once
EMPTY = np.zeros((1, 1), np.float32)
Span = tuple[int, Float32[np.ndarray, " _"]]  # where a tile begins, and how much each pixel counts
Place = tuple[Span, Span]  # down, across


@dataclass(frozen=True)
class Tiling:
    """How large tiles are, and how far they overlap, in pixels of the picture.

    Raises ValueError for sides that mean nothing, or that the model would have to enlarge.
    """

    tile: int
    overlap: int
    canvas: int  # the model's own side

    def __post_init__(self):
        if self.tile < self.canvas:
            raise ValueError(
                f"tile is {self.tile}; expected {self.canvas} or more, what the model itself sees."
            )
        if not 0 <= self.overlap <= self.tile // 2:
            raise ValueError(
                f"overlap is {self.overlap}; expected a number from 0 to {self.tile // 2}, half a"
                " tile."
            )

    def spans(self, length: int) -> list[Span]:
        """Along a side of `length` pixels of the shrunk picture; what counts sums up to 1."""
        side, overlap = self.canvas, self.overlap * self.canvas / self.tile
        count = 1 + max(0, math.ceil((length - side) / (side - overlap)))
        starts = [round(i * (length - side) / max(1, count - 1)) for i in range(count)]
        whole = np.zeros(length, np.float32)
        parts = []
        for i, start in enumerate(starts):
            here = np.arange(min(side, length)) + 0.5
            rise = _ramp(here, overlap) if i else 1.0
            fall = _ramp(side - here, overlap) if i < count - 1 else 1.0
            parts.append((max(start, 0), np.full(len(here), rise * fall, np.float32)))
        for start, counts in parts:
            whole[start : start + len(counts)] += counts
        return [(start, counts / whole[start : start + len(counts)]) for start, counts in parts]


def _ramp(distance: np.ndarray, overlap: float) -> np.ndarray:
    """From 0 at a quarter of the overlap to 1 at three quarters."""
    return np.clip((distance - overlap / 4) / max(overlap / 2, 1e-6), 0, 1)


@dataclass(frozen=True)
class Asker:
    """Asks a segmenter about tiles.

    Args:
      opened: puts a tile onto the model's canvas.
      stream: `Segmenter.stream`.
      resized: a picture at another height and width, as the model's pictures are resized.
      low: the logit of a pixel of a tile where nothing is meant.
    """

    tiling: Tiling
    opened: Callable[..., Picture]
    stream: Callable[[Iterable[Question]], Iterator[Segmentation]]
    resized: Callable[[pictures.Rgb, tuple[int, int]], Resized]
    low: float

    def __call__(self, asked: Iterable[Question], *, hidden: bool | None) -> Iterator[Segmentation]:
        """One mask a question, in order; a picture's questions follow each other.

        Raises ValueError where something else than words is asked. What was asked before a mistake
        is answered before that is raised.
        """
        wrong: list[Exception] = []

        def checked() -> Iterator[Question]:
            try:
                yield from map(_checked, asked)
            except (ValueError, OSError) as error:
                wrong.append(error)

        for _, several in itertools.groupby(checked(), key=lambda one: id(one.image)):
            yield from self._of_picture(list(several), hidden=hidden)
        if wrong:
            raise wrong[0]

    def _of_picture(
        self, asked: Sequence[Question], *, hidden: bool | None
    ) -> Iterator[Segmentation]:
        name, texts = asked[0].name, [question.text for question in asked]
        pixels = pictures.rgb(asked[0].image, name=name)
        height, width = pixels.shape[:2]
        if max(height, width) <= self.tiling.tile:
            picture = self.opened(pixels, name=name)
            yield from self.stream(Question(picture, name, text) for text in texts)
            return
        scale = self.tiling.canvas / self.tiling.tile
        sides = max(1, round(height * scale)), max(1, round(width * scale))
        small = self.resized(pixels, sides)
        del pixels
        places = list(itertools.product(*map(self.tiling.spans, sides)))
        together = max(1, ROOM // (4 * sides[0] * sides[1]))
        with tqdm(total=len(places) * len(texts), unit="tile", disable=hidden, leave=False) as bar:
            for start in range(0, len(texts), together):
                group = texts[start : start + together]
                found = self.stream(self._questions(small, places, group, name))
                for whole in self._stitched(found, places, len(group), sides, bar):
                    yield dataclasses.replace(whole, height=height, width=width)

    def _questions(
        self, small: Resized, places: Iterable[Place], texts: Sequence[str], name: str
    ) -> Iterator[Question]:
        """Tile by tile, so that a tile's embedding serves all texts where it knows none."""
        for (y, down), (x, across) in places:
            tile = np.ascontiguousarray(small[y : y + len(down), x : x + len(across)])
            picture = self.opened(tile, name=name)
            for text in texts:
                yield Question(picture, name, text)

    def _stitched(
        self,
        found: Iterator[Segmentation],
        places: Sequence[Place],
        count: int,
        sides: Sequence[int],
        bar: tqdm,
    ) -> list[Segmentation]:
        """An answer of each of `count` texts: their tiles' logits, by what they count."""
        logits = np.zeros((count, *sides), np.float32)
        said: list[list[Segmentation]] = [[] for _ in range(count)]
        for ((y, down), (x, across)), i in itertools.product(places, range(count)):
            one = next(found)
            part = np.minimum(one.logits, self.low) if one.nothing else one.logits
            logits[i, y : y + len(down), x : x + len(across)] += part * np.outer(down, across)
            said[i].append(dataclasses.replace(one, logits=EMPTY, low_res=None))
            bar.update()
        return [_whole(answers, own) for answers, own in zip(said, logits, strict=True)]


def _checked(question: Question) -> Question:
    if question.points_at_something:
        raise ValueError(
            "tile is for words alone; points, boxes and masks name a place: cut it out."
        )
    if isinstance(question.image, Picture):
        raise ValueError(
            f"{question.name} was opened, so its own pixels are gone; for tiles expected"
            f" {pictures.EXPECTED}."
        )
    return question


def _whole(tiles: Sequence[Segmentation], logits: Float32[np.ndarray, "h w"]) -> Segmentation:
    """Anything is meant as surely as in the tile that is surest of it."""
    first = tiles[0]
    presence = None if first.presence is None else max(one.presence for one in tiles)
    nothing = None if first.nothing is None else all(one.nothing for one in tiles)
    return dataclasses.replace(
        first, logits=logits, predicted_iou=None, presence=presence, nothing=nothing
    )

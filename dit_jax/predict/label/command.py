"""`--mode=label` and `--mode=everything`: pictures in, annotation files out.

An ontology says which words find the objects of which class:

    {"the red car": "car", "the blue car": "car", "a person on foot": "person"}
"""

import dataclasses
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from dit_jax import storage, viz
from dit_jax.data.annotations import Mistakes, fields, strict_json
from dit_jax.data.pixels import pictures
from dit_jax.predict import outputs, pairs
from dit_jax.predict.command import say_left_out, weights
from dit_jax.predict.everything import Everything
from dit_jax.predict.label import record
from dit_jax.predict.label.formats import FORMATS, Files, check
from dit_jax.predict.label.record import Labeled, Records, Task, Thing
from dit_jax.predict.requests import Question
from dit_jax.predict.segmenter import Segmenter
from dit_jax.strict import counted, one_of

Answered = tuple[Task, tuple[int, int], list[Thing]]  # a picture, its size, what is in it
REVIEW = "review"
LINES = 20  # below a picture, at most


def label(
    model_dir: Path,
    out: Path,
    *,
    images: Sequence[str],
    ontology_file: Path,
    form: str,
    instances: bool = False,
    tile: int | None = None,
    overlap: int | None = None,
    review: bool = False,
    skip_broken: bool = False,
    overwrite: bool = False,
) -> None:
    """Annotation files of the form `form` (`formats.FORMATS`) for every picture of `images`.

    Words and names are checked before anything is written. What was answered stays in `out`
    whatever happens, and the same call goes on behind it. `instances` makes an object of each
    piece of a mask; `tile` and `overlap` are for large pictures, as in `Segmenter.__call__`;
    `review` draws what was found; `skip_broken` leaves pictures out that cannot be read, and says
    which.
    """
    one_of("--format", form, tuple(FORMATS))
    classes = ontology(ontology_file)
    check(form, [*classes.values()])
    tasks = by_name(images)
    segmenter = Segmenter.from_pretrained(model_dir)
    for text in classes:
        segmenter.check(Question(ontology_file, str(ontology_file), text))
    asked = {"model": weights(model_dir), "classes": classes, "instances": instances}
    asked |= {"tile": tile, "overlap": overlap} if tile else {}
    if segmenter.arch.presence:
        asked["presence_threshold"] = segmenter.presence_threshold
    tiles = segmenter.tiled(tile, overlap) if tile else None
    opener = _Opener(skip_broken)

    def answered(left: Sequence[Task]) -> Iterator[Answered]:
        waiting: deque[tuple[Task, tuple[int, int]]] = deque()

        def questions() -> Iterator[Question]:
            for task, pixels in opener.opened(left):
                name = task.path.name
                waiting.append((task, pixels.shape[:2]))
                opened = pixels if tiles else segmenter.open(pixels, name=name)
                yield from (Question(opened, name, text) for text in classes)

        if tiles:
            answers = tiles(questions(), hidden=None)
        else:
            answers = segmenter.stream(questions(), instances=instances)
        for first in answers:
            several = [first, *itertools.islice(answers, len(classes) - 1)]
            found = record.things(several, classes, instances=instances)
            yield *waiting.popleft(), record.resolved(found)

    with Records(out, asked=asked, overwrite=overwrite) as found:
        _answer(found, tasks, answered)
        finish(found, tasks, Files(out, overwrite, found), form=form, labels=[*classes.values()])
        if review:
            draw(found, tasks, out)
    say_left_out(opener.broken)


def everything(
    model_dir: Path,
    out: Path,
    *,
    images: Sequence[str],
    settings: dict[str, int | float],
    skip_broken: bool = False,
    overwrite: bool = False,
) -> None:
    """All masks of every picture of `images`, by plain SAM, as COCO's file and as pictures.

    `settings` are fields of `Everything`; for the rest see `label`.
    """
    rules = Everything(**settings)
    tasks = by_name(images)
    segmenter = Segmenter.from_pretrained(model_dir)
    opener = _Opener(skip_broken)

    def answered(left: Sequence[Task]) -> Iterator[Answered]:
        for task, pixels in opener.opened(left):
            found = segmenter.everything(pixels, **settings)
            yield task, pixels.shape[:2], [record.anything(one) for one in found]

    asked = {"model": weights(model_dir), "everything": dataclasses.asdict(rules)}
    with Records(out, asked=asked, overwrite=overwrite) as found:
        _answer(found, tasks, answered)
        finish(found, tasks, Files(out, overwrite, found), form="coco", labels=[record.ANYTHING])
        draw(found, tasks, out)
    say_left_out(opener.broken)


def _answer(
    found: Records,
    tasks: Sequence[Task],
    answered: Callable[[Sequence[Task]], Iterator[Answered]],
) -> None:
    """Ask about the pictures of which nothing is known yet."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # our sentence is enough
    left = [task for task in tasks if not found.knows(task)]
    start = dict(initial=len(tasks) - len(left), total=len(tasks), unit="picture")
    for task, size, things in tqdm(answered(left), **start, disable=None, leave=False):
        found.write(task, size, things)


def ontology(file: Path) -> dict[str, str]:
    """Expression → class, in the order of the file; ValueError where it is none."""
    mistakes = Mistakes(file)
    if not file.is_file():
        raise FileNotFoundError(f"no such ontology: {pictures.shown(file)}.")
    values: dict[str, str] = {}
    with mistakes.at():
        given = fields.an_object(strict_json.parse(strict_json.content(file)))
        for text, name in given.items():
            values[fields.string(text, "expression")] = fields.string(name, text).strip()
            if not values[text] or "\n" in values[text]:
                raise strict_json.Mistake(f"the class of {text!r} is empty; expected a name.")
    mistakes.stop()
    if not values:
        raise ValueError(f'{file} is empty; expected {{"expression": "class", …}}.')
    return values


def by_name(images: Sequence[str]) -> list[Task]:
    """Pictures of different names; ValueError where two would be labeled in one file."""
    found: dict[str, Path] = {}
    for task in pairs.named(images, ()):
        other = found.setdefault(task.image.stem, task.image)
        if other != task.image:
            raise ValueError(
                f"{task.given} and {storage.named(other)} would both be labeled as {other.stem!r};"
                " rename one, or label them into two folders."
            )
    return [Task.of(path) for path in found.values()]


def finish(
    found: Records, tasks: Sequence[Task], files: Files, *, form: str, labels: Sequence[str]
) -> None:
    """The files of a format, of all these pictures that are known; and how many these are."""
    counts = [0, 0]

    def told() -> Iterator[Labeled]:
        for picture in found.read(tasks):
            counts[0] += len(picture.things)
            counts[1] += 1
            yield picture

    FORMATS[form](told(), files, [*dict.fromkeys(labels)])
    storage.push(files.out)
    objects, given = counted(counts[0], "object"), counted(counts[1], "picture")
    print(
        f"{objects} in {given} {'is' if counts[0] == 1 else 'are'} in {storage.named(files.out)}."
    )


def draw(found: Records, tasks: Sequence[Task], out: Path) -> None:
    """Each picture with what was found in it, in colours, and below it what that is."""
    (out / REVIEW).mkdir(exist_ok=True)
    for one in found.read(tasks):
        picture = outputs.thumbnail(pictures.rgb(one.path))
        colours = [viz.COLOURS[i % len(viz.COLOURS)] for i in range(len(one.things))]
        masks = [outputs.fitted(thing.mask, picture) for thing in one.things]
        lines = [
            viz.caption(_said(thing), width=picture.shape[1], ink=colour, paper=viz.INK)
            for thing, colour in zip(one.things, colours, strict=True)
            if thing.text is not None
        ]
        sheet = np.concatenate([viz.overlays(picture, masks, colours), *lines[:LINES]])
        outputs.save(out / REVIEW / f"{one.path.stem}.jpg", sheet)


def _said(thing: Thing) -> str:
    return f"{thing.label}, by {thing.text!r}, {thing.score:.2f}"


class _Opener:
    """Opens pictures one by one; those that cannot be read are left out, where that is asked."""

    def __init__(self, skip_broken: bool):
        self._skip = skip_broken
        self.broken: dict[Path, str] = {}

    def opened(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, pictures.Rgb]]:
        for task in tasks:
            try:
                pixels = pictures.rgb(task.path)
            except (ValueError, OSError) as error:
                if not self._skip:
                    raise
                self.broken[task.path] = str(error)
            else:
                yield task, pixels

"""`--mode=label`: pictures and an ontology; what is meant in each picture, in a tool's own files.

An ontology says which words find the objects of which class:

    {"the red car": "car", "the blue car": "car", "a person on foot": "person"}
"""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from dit_jax import storage, viz
from dit_jax.data.annotations import Mistakes, fields, strict_json
from dit_jax.data.pixels import pictures
from dit_jax.predict import outputs, pairs
from dit_jax.predict.command import say_left_out, weights
from dit_jax.predict.label import record
from dit_jax.predict.label.formats import FORMATS, Files
from dit_jax.predict.label.record import Labeled, Records, Thing
from dit_jax.predict.picture import Picture
from dit_jax.predict.requests import Question
from dit_jax.predict.segmenter import Segmenter
from dit_jax.strict import counted, one_of

REVIEW = "review"
LINES = 20  # below a picture, at most


def label(
    model_dir: Path,
    out: Path,
    *,
    images: Sequence[str],
    ontology_file: Path,
    form: str,
    review: bool = False,
    skip_broken: bool = False,
    overwrite: bool = False,
) -> None:
    """Annotation files of the form `form` (`formats.FORMATS`) for every picture of `images`.

    Words and names are checked before anything is written. What was answered stays in `out`
    whatever happens, and the same call goes on behind it. `review` draws what was found;
    `skip_broken` leaves pictures out that cannot be read, and says which.
    """
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # our sentence is enough
    one_of("--format", form, tuple(FORMATS))
    classes = ontology(ontology_file)
    tasks = by_name(images)
    segmenter = Segmenter.from_pretrained(model_dir)
    for text in classes:
        segmenter.check(Question(ontology_file, str(ontology_file), text))
    asked = {"model": weights(model_dir), "classes": classes}
    with Records(out, asked=asked, overwrite=overwrite) as found:
        left = [tasks[name] for name in tasks if name not in found.done]
        work = _Work(segmenter, left, skip_broken=skip_broken)
        answers = segmenter.stream(work.questions(list(classes)))
        start = dict(initial=len(tasks) - len(left), total=len(tasks), unit="picture")
        with tqdm(**start, disable=None, leave=False) as bar:
            for first in answers:
                several = [first, *itertools.islice(answers, len(classes) - 1)]
                found.write(
                    work.pending.popleft(), record.resolved(record.things(several, classes))
                )
                bar.update()
        finish(found, tasks, Files(out, overwrite), form=form, labels=[*classes.values()])
        if review:
            draw(found, tasks, out)
    say_left_out(work.broken)


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


def by_name(images: Sequence[str]) -> dict[str, Path]:
    """Pictures by their names; ValueError where two would be labeled in one file."""
    found: dict[str, Path] = {}
    for task in pairs.named(images, ()):
        other = found.setdefault(task.image.stem, task.image)
        if other != task.image:
            raise ValueError(
                f"{task.given} and {storage.named(other)} would both be labeled as {other.stem!r};"
                " rename one, or label them into two folders."
            )
    return {path.name: path for path in found.values()}


def finish(
    found: Records, tasks: dict[str, Path], files: Files, *, form: str, labels: Sequence[str]
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


def draw(found: Records, tasks: dict[str, Path], out: Path) -> None:
    """Each picture with what was found in it, in colours, and below it what that is."""
    (out / REVIEW).mkdir(exist_ok=True)
    for one in found.read(tasks):
        picture = outputs.thumbnail(pictures.rgb(one.path))
        colours = [viz.COLOURS[i % len(viz.COLOURS)] for i in range(len(one.things))]
        masks = [outputs.fitted(thing.mask, picture) for thing in one.things]
        lines = [
            viz.caption(said, width=picture.shape[1], ink=colour, paper=viz.INK)
            for said, colour in dict(zip(map(_said, one.things), colours, strict=True)).items()
        ]
        sheet = np.concatenate([viz.overlays(picture, masks, colours), *lines[:LINES]])
        outputs.save(out / REVIEW / f"{one.path.stem}.jpg", sheet)


def _said(thing: Thing) -> str:
    found = "" if thing.text is None else f", by {thing.text!r}"
    return f"{thing.label}{found}, {thing.score:.2f}"


class _Work:
    """Questions one by one, and beside them the pictures whose answers are awaited."""

    def __init__(self, segmenter: Segmenter, paths: Sequence[Path], *, skip_broken: bool):
        self._segmenter, self._paths, self._skip = segmenter, paths, skip_broken
        self.pending: deque[Picture] = deque()
        self.broken: dict[Path, str] = {}

    def questions(self, texts: Sequence[str]) -> Iterator[Question]:
        for path in self._paths:
            try:
                picture = self._segmenter.open(path, name=path.name)
            except (ValueError, OSError) as error:
                if not self._skip:
                    raise
                self.broken[path] = str(error)
                continue
            self.pending.append(picture)
            for text in texts:
                yield Question(picture, picture.name, text)

"""`--mode=predict`: a model directory, pictures and words; masks, overlays and run lengths."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from dit_jax.data.pixels import pictures
from dit_jax.predict import outputs, pairs
from dit_jax.predict.outputs import Outputs, Thumbnail
from dit_jax.predict.pairs import Task
from dit_jax.predict.requests import Question
from dit_jax.predict.segmenter import Segmenter

SHOWN = 5  # pictures that were left out and are named


def predict(
    model_dir: Path,
    out: Path,
    *,
    images: Sequence[str] = (),
    texts: Sequence[str] = (),
    pairs_file: Path | None = None,
    skip_broken: bool = False,
    overwrite: bool = False,
) -> None:
    """Every text for every picture of `images`, or what `pairs_file` asks; see `pairs`.

    Names, texts and the model are checked before anything is written. `skip_broken` leaves pictures
    out that cannot be read, and says which.
    """
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # our sentence is enough
    tasks = _tasks(images, texts, pairs_file)
    segmenter = Segmenter.from_pretrained(model_dir)
    for task in tasks:
        if not skip_broken:
            pictures.check_file(task.image)
        for text in task.texts:
            segmenter.check(Question(task.image, task.given, text, task.points, task.box))
    unread = 0
    work = _Work(segmenter, tasks, skip_broken=skip_broken)
    total = sum(len(task.texts) for task in tasks)
    with Outputs(out, overwrite=overwrite) as written:
        answers = segmenter.stream(work.questions())
        for answer in tqdm(answers, total=total, unit="mask", disable=None, leave=False):
            pending = work.pending.popleft()
            written.write(answer, pending.picture, about=pending.about)
            unread += bool(answer.cut or answer.unknown)
    masks, given = counted(written.count, "mask"), counted(len(work.numbers), "picture")
    print(f"{masks} of {given} {'is' if written.count == 1 else 'are'} in {out}.")
    if unread:
        texts = "1 text is" if unread == 1 else f"{unread} texts are"
        print(f"{texts} not read whole: see cut and unknown in {outputs.PREDICTIONS}.")
    if work.broken:
        more = f"\n  and {len(work.broken) - SHOWN} more" if len(work.broken) > SHOWN else ""
        print(f"{len(work.broken)} left out:\n  " + "\n  ".join(work.broken[:SHOWN]) + more)


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)


@dataclass(frozen=True)
class PendingMask:
    """What is needed of a question when its answer comes."""

    picture: Thumbnail
    about: dict[str, Any]


class _Work:
    """Questions one by one, and beside each what its answer will need."""

    def __init__(self, segmenter: Segmenter, tasks: Sequence[Task], *, skip_broken: bool):
        self._segmenter, self._tasks, self._skip = segmenter, tasks, skip_broken
        self.pending: deque[PendingMask] = deque()
        self.numbers: dict[Path, int] = {}  # of the pictures, for intervals over pictures
        self.broken: list[str] = []

    def questions(self) -> Iterator[Question]:
        for task in self._tasks:
            try:
                pixels = pictures.rgb(task.image)
                picture = self._segmenter.open(pixels, name=pictures.shown(task.image))
            except (ValueError, OSError) as error:
                if not self._skip:
                    raise
                self.broken.append(str(error))
                continue
            small = outputs.thumbnail(pixels)
            number = self.numbers.setdefault(task.image, len(self.numbers))
            about = {"image": task.given, "id": task.given, "image_id": number} | task.about
            for text in task.texts:
                self.pending.append(PendingMask(small, about))
                pointed = dict(points=task.points, box=task.box, units=task.units)
                yield Question(picture, picture.name, text, **pointed)


def _tasks(images: Sequence[str], texts: Sequence[str], pairs_file: Path | None) -> list[Task]:
    if pairs_file is None:
        if not images:
            raise ValueError("--mode=predict expected --images and --text, or --pairs.")
        return pairs.named(images, texts)
    if images or texts:
        raise ValueError("--pairs says which pictures and texts; --images and --text do not fit.")
    return pairs.read(pairs_file)

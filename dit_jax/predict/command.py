"""`--mode=predict`: a model directory, pictures and words; masks, overlays and run lengths."""

import itertools
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from dit_jax import storage
from dit_jax.data.pixels import pictures
from dit_jax.predict import outputs, pairs
from dit_jax.predict.outputs import Outputs, Thumbnail
from dit_jax.predict.pairs import Task
from dit_jax.predict.requests import Question
from dit_jax.predict.segmenter import Segmenter
from dit_jax.strict import counted
from dit_jax.weights import directory, manifest

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
    out that cannot be read, and says which. Answers stay in `out` whatever happens, and the same
    call goes on behind them.
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
    decided = {"model": weights(model_dir)}
    if segmenter.arch.presence:
        decided["presence_threshold"] = segmenter.presence_threshold
    asked = _asked(tasks, decided=decided)
    with Outputs(out, overwrite=overwrite) as written:
        left = _left(asked, written)
        work = _Work(segmenter, left, skip_broken=skip_broken)
        answers = segmenter.stream(work.questions())
        start = dict(initial=written.count, total=len(asked))
        for answer in tqdm(answers, **start, unit="mask", disable=None, leave=False):
            pending = work.pending.popleft()
            written.write(answer, pending.picture, about=pending.about)
            unread += bool(answer.cut or answer.unknown)
    read = {one.task.image for one in asked} - work.broken.keys()
    masks, given = counted(written.count, "mask"), counted(len(read), "picture")
    print(f"{masks} of {given} {'is' if written.count == 1 else 'are'} in {storage.named(out)}.")
    if unread:
        texts = "1 text is" if unread == 1 else f"{unread} texts are"
        print(f"{texts} not read whole: see cut and unknown in {outputs.PREDICTIONS}.")
    say_left_out(work.broken)


def say_left_out(broken: dict[Path, str]) -> None:
    """Which pictures could not be read, where there are any."""
    if broken:
        named = [*broken.values()]
        more = f"\n  and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
        print(f"{len(named)} left out:\n  " + "\n  ".join(named[:SHOWN]) + more)


@dataclass(frozen=True)
class Asked:
    """One mask that is wanted, and what the line of its answer says first."""

    task: Task
    text: str | None
    about: dict[str, Any]


def _asked(tasks: Sequence[Task], *, decided: dict[str, Any]) -> list[Asked]:
    """`decided` is what every answer depends on beside its question."""
    numbers: dict[Path, int] = {}  # of the pictures, for intervals over pictures
    found = []
    for task in tasks:
        number = numbers.setdefault(task.image, len(numbers))
        about = {"image": task.given, "id": task.given, "image_id": number} | task.about
        pointed = {"points": task.points, "box": task.box, "units": task.units}
        if task.points is not None or task.box is not None:
            about["prompt"] = pointed
        for text in task.texts:
            said = {} if text is None else {"text": text}
            found.append(Asked(task, text, {**about, **said, **decided}))
    return found


def _left(asked: Sequence[Asked], written: Outputs) -> list[Asked]:
    """Those that an earlier call did not answer; it may have answered no others."""
    there = Counter(written.found)
    left = []
    for one in asked:
        key = outputs.question(one.about)
        if there[key]:
            there[key] -= 1
        else:
            left.append(one)
    if there.total():
        written.start_anew()
        return list(asked)
    return left


def weights(model_dir: Path) -> str:
    """Which weights answer: the first digits of their SHA-256, as the manifest has it."""
    noted = manifest.read(model_dir)
    if noted is not None and directory.WEIGHTS in noted.files:
        return noted.files[directory.WEIGHTS].sha256[:16]
    return manifest.sha256(model_dir / directory.WEIGHTS)[:16]


@dataclass(frozen=True)
class PendingMask:
    """What is needed of a question when its answer comes."""

    picture: Thumbnail
    about: dict[str, Any]


class _Work:
    """Questions one by one, and beside each what its answer will need."""

    def __init__(self, segmenter: Segmenter, asked: Sequence[Asked], *, skip_broken: bool):
        self._segmenter, self._asked, self._skip = segmenter, asked, skip_broken
        self.pending: deque[PendingMask] = deque()
        self.broken: dict[Path, str] = {}

    def questions(self) -> Iterator[Question]:
        for task, several in itertools.groupby(self._asked, key=attrgetter("task")):
            try:
                pixels = pictures.rgb(task.image)
                picture = self._segmenter.open(pixels, name=pictures.shown(task.image))
            except (ValueError, OSError) as error:
                if not self._skip:
                    raise
                self.broken[task.image] = str(error)
                continue
            small = outputs.thumbnail(pixels)
            for one in several:
                self.pending.append(PendingMask(small, one.about))
                pointed = dict(points=task.points, box=task.box, units=task.units)
                yield Question(picture, picture.name, one.text, **pointed)


def _tasks(images: Sequence[str], texts: Sequence[str], pairs_file: Path | None) -> list[Task]:
    if pairs_file is None:
        if not images:
            raise ValueError("--mode=predict expected --images and --text, or --pairs.")
        return pairs.named(images, texts)
    if images or texts:
        raise ValueError("--pairs says which pictures and texts; --images and --text do not fit.")
    return pairs.read(pairs_file)

"""`--mode=predict`: a model directory, pictures and words; masks, overlays and run lengths."""

import dataclasses
import itertools
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from dit_jax import storage
from dit_jax.data.entries import MaskFile
from dit_jax.data.pixels import pictures
from dit_jax.predict import outputs, pairs
from dit_jax.predict.outputs import Outputs, Thumbnail
from dit_jax.predict.pairs import Task
from dit_jax.predict.requests import Question
from dit_jax.predict.segmentation import Segmentation
from dit_jax.predict.segmenter import Segmenter
from dit_jax.predict.tiles import Asker
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
    points: Sequence[str] = (),
    boxes: Sequence[str] = (),
    mask: Path | None = None,
    multimask: bool = False,
    instances: bool = False,
    tile: int | None = None,
    overlap: int | None = None,
    skip_broken: bool = False,
    overwrite: bool = False,
) -> None:
    """Every text for every picture of `images`, or what `pairs_file` asks; see `pairs`.

    `points` ("x,y" or "x,y,label"), `boxes` ("x0,y0,x1,y1"), `mask` and `multimask` are for every
    picture of `images`, as in `Segmenter.__call__`; `instances` writes a mask an object; `tile` and
    `overlap` are for large pictures, as there.
    Names, texts and the model are checked before anything is written. `skip_broken` leaves pictures
    out that cannot be read, and says which. Answers stay in `out` whatever happens, and the same
    call goes on behind them.
    """
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # our sentence is enough
    prompt = _prompt(points, boxes, mask, multimask=multimask)
    tasks = _tasks(images, texts, pairs_file, prompt)
    segmenter = Segmenter.from_pretrained(model_dir)
    for task in tasks:
        if not skip_broken:
            pictures.check_file(task.image)
        for question in _questions(task, task.image, task.given):
            segmenter.check(question, multimask=task.multimask)
    unread = 0
    decided = {"model": weights(model_dir)}
    decided |= {"instances": True} if instances else {}
    decided |= {"tile": tile, "overlap": overlap} if tile else {}
    tiles = segmenter.tiled(tile, overlap) if tile else None
    if segmenter.arch.presence:
        decided["presence_threshold"] = segmenter.presence_threshold
    asked = _asked(tasks, decided=decided)
    with Outputs(out, overwrite=overwrite) as written:
        left = _left(asked, written)
        work = _Work(segmenter, left, tiles, instances=instances, skip_broken=skip_broken)
        start = dict(initial=len(written.found), total=len(asked))
        for answer in tqdm(work.answers(), **start, unit="question", disable=None, leave=False):
            pending, several = work.pending.popleft(), answer
            if instances:
                several = [one for found in answer for one in found.instances()]
            written.write(several, pending.picture, about=pending.about)
            unread += bool(answer[0].cut or answer[0].unknown)
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
    """One question, and what the line of its answer says first."""

    task: Task
    question: Question  # of the picture's path
    about: dict[str, Any]


def _asked(tasks: Sequence[Task], *, decided: dict[str, Any]) -> list[Asked]:
    """`decided` is what every answer depends on beside its question."""
    numbers: dict[Path, int] = {}  # of the pictures, for intervals over pictures
    found = []
    for task in tasks:
        number = numbers.setdefault(task.image, len(numbers))
        about = {"image": task.given, "id": task.given, "image_id": number} | task.about
        for question in _questions(task, task.image, task.given):
            said = {"prompt": _told(question, task)} if question.points_at_something else {}
            if question.text is not None:
                said["text"] = question.text
            found.append(Asked(task, question, {**about, **said, **decided}))
    return found


def _questions(task: Task, image: Any, name: str) -> list[Question]:
    pointed = dict(points=task.points, units=task.units, mask=task.mask)
    pairs = itertools.product(task.texts, task.boxes)
    return [Question(image, name, text, box=box, **pointed) for text, box in pairs]


def _told(question: Question, task: Task) -> dict[str, Any]:
    """A prompt as its answers' lines show it."""
    shown = {"points": question.points, "box": question.box, "units": question.units}
    if question.mask is not None:
        drawn = question.mask
        shown["mask"] = storage.named(drawn.path) if isinstance(drawn, MaskFile) else drawn
    return shown | ({"multimask": True} if task.multimask else {})


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

    def __init__(
        self,
        segmenter: Segmenter,
        asked: Sequence[Asked],
        tiles: Asker | None,
        *,
        instances: bool,
        skip_broken: bool,
    ):
        self._segmenter, self._asked, self._tiles = segmenter, asked, tiles
        self._instances, self._skip = instances, skip_broken
        self.pending: deque[PendingMask] = deque()
        self.broken: dict[Path, str] = {}

    def answers(self) -> Iterator[list[Segmentation]]:
        """The masks of each question, one or three."""
        if self._tiles is not None:
            yield from ([one] for one in self._tiles(self.questions(self._asked), hidden=None))
            return
        for several, asked in itertools.groupby(self._asked, key=attrgetter("task.multimask")):
            how = dict(multimask=several, instances=self._instances)
            found = self._segmenter.stream(self.questions(asked), **how)
            for first in found:
                yield [first, *itertools.islice(found, 2 if several else 0)]

    def questions(self, asked: Iterable[Asked]) -> Iterator[Question]:
        for task, several in itertools.groupby(asked, key=attrgetter("task")):
            try:
                pixels = pictures.rgb(task.image)
                name = pictures.shown(task.image)
                opened = pixels if self._tiles else self._segmenter.open(pixels, name=name)
            except (ValueError, OSError) as error:
                if not self._skip:
                    raise
                self.broken[task.image] = str(error)
                continue
            small = outputs.thumbnail(pixels)
            for one in several:
                self.pending.append(PendingMask(small, one.about))
                yield dataclasses.replace(one.question, image=opened, name=name)


def _prompt(
    points: Sequence[str], boxes: Sequence[str], mask: Path | None, *, multimask: bool
) -> dict[str, Any]:
    """As a `Task` has it, without what is not given."""
    shown: dict[str, Any] = {}
    if points:
        said = [pairs.numbers(text, "--point", counts=(2, 3)) for text in points]
        shown["points"] = [[*given, 1][:3] for given in said]
    if boxes:
        shown["boxes"] = tuple(pairs.numbers(text, "--box", counts=(4,)) for text in boxes)
    if mask is not None:
        shown["mask"] = MaskFile(mask)
    return shown | ({"multimask": True} if multimask else {})


def _tasks(
    images: Sequence[str], texts: Sequence[str], pairs_file: Path | None, prompt: dict[str, Any]
) -> list[Task]:
    if pairs_file is None:
        if not images:
            raise ValueError("--mode=predict expected --images and --text, or --pairs.")
        return pairs.named(images, texts, **prompt)
    if images or texts or prompt:
        raise ValueError(
            "--pairs says which pictures, texts and prompts; flags of these do not fit."
        )
    return pairs.read(pairs_file)

"""What was found in each picture: overlaps resolved, and kept in `labels.ndjson` as it comes.

The first line says what is asked and of which weights; then there is a line a picture, known by its
bytes, and one for each file that was written from them:

    {"image": "1.jpg", "sha256": …, "size": [480, 640], "things": [{"label": "car", "mask": …, …}]}
    {"file": "annotations.json", "sha256": …}

so the same command goes on where one was stopped, and another `--format` asks no model again.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from dit_jax import storage
from dit_jax.eval.prediction_files import Line, encoded, read
from dit_jax.lease import Lease
from dit_jax.predict.everything import Found
from dit_jax.predict.segmentation import Segmentation

ANYTHING = "object"  # the class of what no word says
FILE = "labels.ndjson"  # in a folder of own data, .jsonl would be a split
ALSO = ("predicted_iou", "point_coords", "stability_score", "crop_box")  # of an everything-mask
DOUBLE = 0.5  # of a mask that is another one's of its class already: it is that object again


@dataclass(frozen=True, eq=False)
class Thing:
    """One object, of a class."""

    label: str
    text: str | None  # the expression that it was found by
    score: float
    mask: Bool[np.ndarray, "H W"]
    more: dict[str, Any] = field(default_factory=dict)  # what COCO's annotation says besides


@dataclass(frozen=True, eq=False)
class Task:
    """A picture's file, and the SHA-256 of its bytes."""

    path: Path
    sha256: str

    @staticmethod
    def of(path: Path) -> "Task":
        """Raises OSError where it cannot be read."""
        with path.open("rb") as file:
            return Task(path, hashlib.file_digest(file, "sha256").hexdigest())


@dataclass(frozen=True, eq=False)
class Labeled:
    """A picture and what is in it."""

    path: Path
    height: int
    width: int
    things: tuple[Thing, ...]


def things(
    answers: Iterable[Segmentation], classes: dict[str, str], *, instances: bool
) -> list[Thing]:
    """Of a model's answers those that mean something, each with its class."""
    said = [one for one in answers if not one.nothing and one.mask.any()]
    found = [one for answer in said for one in (answer.instances() if instances else [answer])]
    return [Thing(classes[one.text], one.text, one.score, one.mask) for one in found]


def anything(found: Found) -> Thing:
    """A mask of which no word says what it is."""
    more = {key: found[key] for key in ALSO}
    return Thing(ANYTHING, None, found["predicted_iou"], found["segmentation"], more)


def resolved(found: Sequence[Thing]) -> list[Thing]:
    """Each pixel belongs to the thing of the best score, the first of equals; best first.

    What a better thing of the same class has more than half of is that object again and goes.
    """
    kept: list[Thing] = []
    for one in sorted(found, key=lambda thing: -thing.score):
        own, same = one.mask.copy(), 0
        for other in kept:
            common = one.mask & other.mask
            own &= ~common
            same += int(common.sum()) if other.label == one.label else 0
        if own.any() and same <= DOUBLE * one.mask.sum():
            kept.append(Thing(one.label, one.text, one.score, own, one.more))
    return kept


class Records:
    """`labels.ndjson` of a folder, behind what an earlier call left; a context manager.

    Entering raises FileExistsError where that was asked something else, unless `overwrite`, and
    OSError where another process writes there.
    """

    def __init__(self, out: Path, *, asked: dict[str, Any], overwrite: bool):
        if out.exists() and not out.is_dir():
            raise FileExistsError(f"{out} is a file; expected a folder to write labels into.")
        self.path = out / FILE
        self._head, self._overwrite = json.dumps({"asked": asked}, ensure_ascii=False), overwrite
        self._lease, self._open = Lease(out, purpose="labeling"), ExitStack()
        self.done: dict[str, set[str]] = {}  # name → SHA-256 of the pictures that are known by it
        self.files: dict[str, str] = {}  # name → SHA-256 of what was written last

    def __enter__(self) -> "Records":
        with ExitStack() as stack:
            stack.enter_context(self._lease)
            self._lines = stack.enter_context(self.path.open("ab+"))
            self._lines.seek(0)
            there = self._lines.read()
            there = there[: there.rfind(b"\n") + 1]  # the last line may not have been finished
            head, _, rest = there.decode(errors="replace").partition("\n")
            if there and head != self._head and not self._overwrite:
                raise FileExistsError(
                    f"{self.path} holds labels of another model or ontology; choose another folder,"
                    " or leave them with --overwrite."
                )
            self._lines.truncate(len(there) if head == self._head else 0)
            if head == self._head:
                for line in map(json.loads, rest.splitlines()):
                    self._note(line)
            else:
                self._write(self._head)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type | None, *error) -> None:
        if kind is not None and not self.done:
            self.path.unlink()  # which would only be in the way
        self._open.__exit__(kind, *error)

    def _note(self, line: dict[str, Any]) -> None:
        if "file" in line:
            self.files[line["file"]] = line["sha256"]
        else:
            self.done.setdefault(line["image"], set()).add(line.get("sha256"))

    def knows(self, task: Task) -> bool:
        return task.sha256 in self.done.get(task.path.name, ())

    def write(self, task: Task, size: tuple[int, int], found: Sequence[Thing]) -> None:
        """What is in a picture of that height and width, in one line."""
        self._lease.check()
        said = [
            {"label": one.label, "text": one.text, "score": one.score, **one.more}
            | {"mask": encoded(one.mask)}
            for one in found
        ]
        line = {"image": task.path.name, "sha256": task.sha256, "size": list(size), "things": said}
        self._write(json.dumps(line, ensure_ascii=False))
        self._note(line)
        storage.push(self.path.parent, every=60.0)

    def wrote(self, name: str, sha256: str) -> None:
        """A file of the folder, so that a later call may write it anew."""
        if self.files.get(name) != sha256:
            line = {"file": name, "sha256": sha256}
            self._write(json.dumps(line, ensure_ascii=False))
            self._note(line)

    def _write(self, line: str) -> None:
        self._lines.write(line.encode() + b"\n")
        self._lines.flush()  # a kill loses nothing that was answered

    def read(self, tasks: Iterable[Task]) -> Iterator[Labeled]:
        """What is known of those pictures, each once."""
        wanted = {(task.path.name, task.sha256): task.path for task in tasks}
        for line in read(self.path):
            known = line.values.get("image"), line.values.get("sha256")
            if path := wanted.pop(known, None):
                height, width = line.values["size"]
                said = [Line(line.where, one) for one in line.values["things"]]
                yield Labeled(path, height, width, tuple(map(_thing, said)))


def _thing(line: Line) -> Thing:
    said = dict(line.values)
    del said["mask"]
    return Thing(said.pop("label"), said.pop("text"), said.pop("score"), line.mask(), said)

"""What `--mode=predict` leaves behind, all of it inside one folder.

    masks/00001-dog-the-left-dog.png      0 and 255, at the picture's own size
    overlays/00001-dog-the-left-dog.jpg   the mask on the picture, to look at
    predictions.jsonl                     run lengths, as `dit_jax.eval.score` reads them

Until every answer is there, the last is called `predictions.jsonl.partial`.

Names are made here, of a number and the letters and digits of what the user calls a picture: no
path that a user's file holds leads anywhere.
"""

import contextlib
import json
import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from dit_jax import storage, viz
from dit_jax.data.pixels import pictures
from dit_jax.eval.prediction_files import encoded, read
from dit_jax.lease import NAME, Lease
from dit_jax.predict.segmentation import Segmentation

PREDICTIONS, MASKS, OVERLAYS = "predictions.jsonl", "masks", "overlays"
PARTIAL = f"{PREDICTIONS}.partial"
# The rest of a line is the question. Of several masks that answer it, `part` is a mask's number and
# `parts` how many there are.
ANSWER = (
    *("part", "parts", "size", "cut", "unknown", "nothing", "presence", "score", "score_kind"),
    *("mask", "mask_file"),
)
SIDE = 1280  # pixels of an overlay's longer side, at most
WORD = 40  # characters of a picture's name, and of the text, in a file's name

Thumbnail = UInt8[np.ndarray, "h w 3"]


class Outputs:
    """Writes answers one by one, behind those that a call that was stopped left; a context manager.

    `found` are the questions of those, as `question` writes them. FileExistsError where the folder
    holds anything else, unless `overwrite`; entering raises OSError where another process has it.
    """

    def __init__(self, out: Path, *, overwrite: bool):
        if out.exists() and not out.is_dir():
            raise FileExistsError(f"{out} is a file; expected a folder to write masks into.")
        self.partial = out / PARTIAL
        names = {path.name for path in out.iterdir()} - {NAME} if out.is_dir() else set()
        if names and not overwrite and (PARTIAL not in names or PREDICTIONS in names):
            raise FileExistsError(
                f"{out} is not empty; choose another folder, or write into it with --overwrite."
            )
        self._out, self._overwrite = out, overwrite
        self._lease, self._open = (
            Lease(out, purpose="predicting", inside=(MASKS, OVERLAYS)),
            ExitStack(),
        )
        self.found: list[str] = []
        self.count = 0  # of lines

    def __enter__(self) -> "Outputs":
        with ExitStack() as stack:
            stack.enter_context(self._lease)
            self._lines = stack.enter_context(self.partial.open("ab+"))
            _cut(self._lines)
            self.found = self._answered()
            for name in (MASKS, OVERLAYS):
                (self._out / name).mkdir(exist_ok=True)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type | None, *error) -> None:
        try:
            if kind is None:
                os.replace(self.partial, self._out / PREDICTIONS)
                storage.push(self._out)
            elif self.count:
                kept = storage.named(self.partial)
                print(f"{kept} keeps what was answered; the same command goes on behind it.")
        finally:
            self._open.__exit__(kind, *error)

    def _answered(self) -> list[str]:
        try:
            lines = [line.values for line in read(self.partial)]
            self.count = len(lines)
            return [question(values) for values in lines if values.get("part", 1) == 1]
        except ValueError as error:
            if not self._overwrite:
                raise ValueError(
                    f"{error} Remove that file, or leave it with --overwrite."
                ) from error
            self._lines.truncate(0)
            return []

    def start_anew(self) -> None:
        """Leave what was found; raises FileExistsError unless `overwrite`."""
        if not self._overwrite:
            self.count = 0  # nothing is gone on with
            raise FileExistsError(
                f"{self.partial} holds answers of another model or to other questions; choose"
                " another folder, or leave them with --overwrite."
            )
        self._lines.truncate(0)
        self.found, self.count = [], 0

    def write(
        self, answers: Sequence[Segmentation], picture: Thumbnail, *, about: dict[str, Any]
    ) -> None:
        """All masks that answer a question. `about` is what a line says first: `image`, and what
        else the question is."""
        self._lease.check()
        lines = []
        for number, answer in enumerate(answers, start=1):
            part = {"part": number, "parts": len(answers)} if len(answers) > 1 else {}
            lines.append(self._answered_by(answer, picture, about | part))
        self._lines.write(b"".join(lines))
        self._lines.flush()  # a kill loses nothing that was answered
        storage.push(self._out, every=60.0)

    def _answered_by(
        self, answer: Segmentation, picture: Thumbnail, about: dict[str, Any]
    ) -> bytes:
        """A mask's line; its pictures are written."""
        name = file_name(self.count + 1, about["image"], answer.text)
        mask = f"{MASKS}/{name}.png"
        save(self._out / mask, answer.mask.view(np.uint8) * np.uint8(255))
        save(self._out / OVERLAYS / f"{name}.jpg", overlay(picture, answer.mask))
        unread = {} if answer.text is None else {"cut": answer.cut, "unknown": answer.unknown}
        line = {
            **about,
            **unread,
            "size": [answer.height, answer.width],
            "nothing": answer.nothing,
            "presence": answer.presence,
            "score": answer.score,
            "score_kind": answer.score_kind,
            "mask": encoded(answer.mask),
            "mask_file": mask,
        }
        self.count += 1
        return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def question(line: dict[str, Any]) -> str:
    """What a line answers: the same text for the same question to the same model."""
    return json.dumps({key: line[key] for key in line if key not in ANSWER}, sort_keys=True)


def _cut(file: BinaryIO) -> None:
    """Down to whole answers: the last one may not have been finished."""
    file.seek(0)
    lines = file.read().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    with contextlib.suppress(ValueError, AttributeError):  # no line of ours: reading it says so
        last = json.loads(lines[-1]) if lines else {}
        if last.get("part", 1) < last.get("parts", 1):
            del lines[-last["part"] :]
    file.truncate(sum(map(len, lines)))


def file_name(number: int, image: str, text: str | None) -> str:
    """`00001-dog-the-left-dog`: plain letters, whatever the picture and the text are called."""
    words = (re.split(r"[/\\]", image)[-1].rsplit(".", 1)[0], text or "")
    plain = [re.sub(r"[^a-z0-9]+", "-", word.lower())[:WORD].strip("-") for word in words]
    return "-".join([f"{number:05d}", *filter(None, plain)])


def thumbnail(picture: pictures.Rgb) -> Thumbnail:
    """The picture, smaller where it is large: what an overlay needs of it."""
    ratio = SIDE / max(picture.shape[:2])
    if ratio >= 1:
        return picture
    height, width = (max(1, round(side * ratio)) for side in picture.shape[:2])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def overlay(picture: Thumbnail, mask: Bool[np.ndarray, "H W"]) -> Thumbnail:
    return viz.overlay(picture, fitted(mask, picture), viz.PREDICTED)


def fitted(mask: Bool[np.ndarray, "H W"], picture: Thumbnail) -> Bool[np.ndarray, "h w"]:
    """A mask at the thumbnail's size."""
    size = picture.shape[1::-1]
    return cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)


def save(path: Path, pixels: UInt8[np.ndarray, "h w *c"]) -> None:
    """Grey or RGB, in the format of the path's ending; OSError where it cannot be written."""
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(path.suffix, pixels)
    path.write_bytes(data)

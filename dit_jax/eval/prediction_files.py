"""Predicted masks as JSON lines: what an evaluation leaves behind, and what anybody can hand in.

One line an expression, with COCO's run lengths at the picture's size:

    {"dataset": "refcoco(unc)", "split": "val", "index": 7, "image_id": 1, "id": "…",
     "sent_id": 222, "text": "left man", "size": [480, 640], "nothing": null,
     "score": 0.87, "score_kind": "confidence",
     "mask": {"size": [480, 640], "counts": "…"}, "truth": {"size": [480, 640], "counts": "…"}}

`index` counts the expressions of the split. `nothing` says whether the model means that nothing in
the picture fits; null where it cannot say so. `score` says how good the model takes its mask to be,
and `score_kind` what that is. docs/protocols.md says which of the keys others need.
"""

import codecs
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool
from pycocotools import mask as rle

from dit_jax.data.pixels import check_pixels, run_lengths
from dit_jax.eval.outcomes import LARGEST_SCORE

MASK_KEYS = ("mask", "prediction", "rle")


class Writer:
    """Writes the lines of one file, which appears when it is complete; a context manager.

    Every line begins with what `about` says.
    """

    def __init__(self, path: str | os.PathLike[str], *, about: Mapping[str, Any]):
        self.path = Path(path)
        self._about = dict(about)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._unfinished = self.path.with_name(self.path.name + ".tmp")
        self._file = self._unfinished.open("w", encoding="utf-8")

    def write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps({**self._about, **line}, ensure_ascii=False) + "\n")

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type | None, *error) -> None:
        self._file.close()
        if kind is None:
            os.replace(self._unfinished, self.path)
        else:
            self._unfinished.unlink()


def encoded(mask: Bool[np.ndarray, "H W"]) -> dict[str, Any]:
    """COCO's compressed run lengths, as JSON holds them."""
    turned = cv2.transpose(np.ascontiguousarray(mask, np.uint8)).T  # 8 times as fast as NumPy
    runs = rle.encode(turned)
    return {"size": list(mask.shape), "counts": runs["counts"].decode()}


@dataclass(frozen=True)
class Line:
    """One line of a file; `where` names it in error messages."""

    where: str
    values: dict[str, Any]

    def mask(self) -> Bool[np.ndarray, "h w"]:
        """The predicted mask, at the size that its run lengths claim."""
        key = next((key for key in MASK_KEYS if key in self.values), None)
        if key is None:
            raise ValueError(f"{self.where} has no {MASK_KEYS[0]!r}, expected run lengths there.")
        return self._decoded(key)

    def truth(self) -> Bool[np.ndarray, "h w"] | None:
        """The true mask, where the line brings its own."""
        return self._decoded("truth") if self.values.get("truth") is not None else None

    def nothing(self) -> bool | None:
        """What the model says about there being nothing."""
        value = self.values.get("nothing")
        if value is not None and not isinstance(value, bool):
            raise ValueError(f"{self.where}: 'nothing' is {value!r}, expected true, false or null.")
        return value

    def score(self) -> float | None:
        """How good the model takes its mask to be."""
        value = self.values.get("score")
        if value is None:
            return None
        if type(value) not in (int, float) or not abs(value) <= LARGEST_SCORE:
            raise ValueError(f"{self.where}: 'score' is {value!r}, expected a number or null.")
        return float(value)

    def number(self, key: str) -> int | None:
        """An integer of the line, or None."""
        value = self.values.get(key)
        if value is not None and type(value) is not int:
            raise ValueError(f"{self.where}: {key!r} is {value!r}, expected a whole number.")
        return value

    def text(self, key: str) -> str | None:
        """A text of the line, or None."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{self.where}: {key!r} is {value!r}, expected a text.")
        return value

    def _decoded(self, key: str) -> Bool[np.ndarray, "h w"]:
        runs = self.values[key]
        size = runs.get("size") if isinstance(runs, dict) else None
        if not _is_size(size):
            raise ValueError(
                f"{self.where}: {key!r} has no size, expected"
                ' {"size": [height, width], "counts": …}.'
            )
        check_pixels(*size, name=f"{self.where}: the picture of {key!r}")
        try:
            return _from_runs(runs.get("counts"), *size)
        except ValueError as error:
            raise ValueError(f"{self.where}: {key!r}: {error}") from error


def read(path: str | os.PathLike[str]) -> Iterator[Line]:
    """The lines of a file, which may begin with a byte-order mark; masks are decoded when they are
    asked for."""
    if not Path(path).is_file():
        raise ValueError(f"{path} is no file; expected predictions as JSON lines.")
    with Path(path).open("rb") as file:
        for number, data in enumerate(file, start=1):
            where = f"{path} line {number}"
            if number == 1:
                if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise ValueError(f"{path} is UTF-16; expected UTF-8.")
                data = data.removeprefix(codecs.BOM_UTF8)
            if not data.strip():
                continue
            try:
                values = json.loads(data.decode())
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{where} is no JSON: {error}.") from error
            if not isinstance(values, dict):
                raise ValueError(f"{where} is {type(values).__name__}, expected an object {{…}}.")
            yield Line(where, values)


def _is_size(size: Any) -> bool:
    return isinstance(size, list) and len(size) == 2 and all(type(n) is int and n > 0 for n in size)


def _from_runs(counts: Any, height: int, width: int) -> Bool[np.ndarray, "H W"]:
    """COCO's run lengths, as text or as a list of numbers; they go down the columns."""
    if isinstance(counts, str):
        return run_lengths.decode(counts.encode(), height=height, width=width)
    if not isinstance(counts, list) or not all(type(n) is int and n >= 0 for n in counts):
        raise ValueError("expected run lengths: COCO's text, or a list of whole numbers.")
    if sum(counts) != height * width:
        raise ValueError(
            f"the run lengths do not add up to the {height * width} pixels of a {height}x{width}"
            " (height x width) picture."
        )
    inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return np.ascontiguousarray(inside.reshape(width, height).T)

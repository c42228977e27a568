"""Own folders: strict JSON, and mistakes that are collected with their place.

A value that is not as it should be is a `Mistake`, one sentence about the value; `Mistakes` puts
file and line before it and collects all of a file.
"""

import codecs
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dit_jax.data.entries import Note

SHOWN = 5  # mistakes of a file that are spelt out
UNREADABLE = "annotations that cannot be read"  # the kind of note that a mistake is


class Mistake(Exception):
    """What is wrong with one value."""


class Mistakes:
    """All mistakes of one file; and remarks on what is written oddly and was understood."""

    def __init__(self, file: Path):
        self.file = file
        self.found: list[Note] = []
        self.remarks: list[Note] = []
        self._place = ""

    @contextmanager
    def at(self, place: str = "") -> Iterator[None]:
        """Keep a mistake that is made inside, with its place, and go on."""
        self._place = place
        try:
            yield
        except Mistake as mistake:
            self.add(str(mistake))

    def add(self, text: str, *, place: str | None = None) -> None:
        """A mistake at the present place, or at another one."""
        self.found.append(Note(UNREADABLE, self._named(place), text))

    def remark(self, kind: str, text: str) -> None:
        """Something odd at the present place, and what was understood."""
        self.remarks.append(Note(kind, self._named(None), text))

    def stop(self) -> None:
        """Raise ValueError with the first of them, where there are any."""
        said = [f"{note.name}: {note.text}" for note in self.found]
        if not said:
            return
        if len(said) == 1:
            raise ValueError(said[0])
        lines = [f"{self.file} has {len(said)} mistakes:", *said[:SHOWN]]
        if len(said) > SHOWN:
            lines.append(f"and {len(said) - SHOWN} more.")
        raise ValueError("\n  ".join(lines))

    def _named(self, place: str | None) -> str:
        return f"{self.file.name} {self._place if place is None else place}".strip()


class Twice(dict):
    """An object that gives the key `twice` two times: whoever reads it refuses it."""

    twice: str


def content(file: Path) -> bytes:
    """A file without its byte-order mark."""
    data = file.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError(f"{file} is UTF-16; expected UTF-8.")
    return data.removeprefix(codecs.BOM_UTF8)


def parse(data: bytes) -> Any:
    """Strict JSON in UTF-8: no NaN, no number beyond 64 bits, no key twice in an object."""
    hooks = dict(parse_constant=_no_constant, parse_float=_float, parse_int=_int)
    return _loads(data, object_pairs_hook=_unique, **hooks)


def document(data: bytes) -> Any:
    """JSON in UTF-8 of which only some values matter: what is odd is for whoever reads these.

    NaN and infinite numbers stay, and so does an object that gives a key twice (`Twice`).
    """
    return _loads(
        data,
        object_pairs_hook=_object,
        parse_int=lambda text: int(text) if len(text) <= 20 else float(text),
    )


def _loads(data: bytes, **hooks: Any) -> Any:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise Mistake(
            f"byte 0x{data[error.start]:02x} at position {error.start + 1} is not UTF-8; save the"
            " file as UTF-8."
        ) from error
    try:
        return json.loads(text, **hooks)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in text else ""
        raise Mistake(f"not JSON: {error.msg} at {line}character {error.colno}.") from error
    except RecursionError as error:
        raise Mistake("not usable JSON: brackets are nested too deeply.") from error


def _no_constant(name: str) -> None:
    raise Mistake(f"{name} is no number in JSON; leave the key out or write a number.")


def _float(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise Mistake(f"the number {text} is too large.")
    return number


def _int(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise Mistake(f"the number {text[:20]} … is too large.")
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if isinstance(result := _object(pairs), Twice):
        raise Mistake(f"the key {result.twice!r} is given twice.")
    return result


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        result = Twice(result)
        result.twice = next(name for name in names if names.count(name) > 1)
    return result


def shown(value: Any) -> str:
    """A value as JSON, shortened."""
    text = json.dumps(value, ensure_ascii=False)
    text = text if text.isprintable() else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:56]} …"

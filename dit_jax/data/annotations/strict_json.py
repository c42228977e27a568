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

SHOWN = 5  # mistakes of a file that are spelt out


class Mistake(Exception):
    """What is wrong with one value."""


class Mistakes:
    """All mistakes of one file."""

    def __init__(self, file: Path):
        self.file = file
        self.found: list[str] = []

    @contextmanager
    def at(self, place: str = "") -> Iterator[None]:
        """Keep a mistake that is made inside, with its place, and go on."""
        try:
            yield
        except Mistake as mistake:
            self.found.append(f"{self.file.name} {place}".strip() + f": {mistake}")

    def stop(self) -> None:
        """Raise ValueError with the first of them, where there are any."""
        if not self.found:
            return
        if len(self.found) == 1:
            raise ValueError(self.found[0])
        lines = [f"{self.file} has {len(self.found)} mistakes:", *self.found[:SHOWN]]
        if len(self.found) > SHOWN:
            lines.append(f"and {len(self.found) - SHOWN} more.")
        raise ValueError("\n  ".join(lines))


def content(file: Path) -> bytes:
    """A file without its byte-order mark."""
    data = file.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError(f"{file} is UTF-16; expected UTF-8.")
    return data.removeprefix(codecs.BOM_UTF8)


def parse(data: bytes) -> Any:
    """Strict JSON in UTF-8: no NaN, no number beyond 64 bits, no key twice in an object."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise Mistake(
            f"byte 0x{data[error.start]:02x} at position {error.start + 1} is not UTF-8; save the"
            " file as UTF-8."
        ) from error
    hooks = dict(parse_constant=_no_constant, parse_float=_float, parse_int=_int)
    try:
        return json.loads(text, object_pairs_hook=_unique, **hooks)
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
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Mistake(f"the key {twice!r} is given twice.")
    return result


def shown(value: Any) -> str:
    """A value as JSON, shortened."""
    text = json.dumps(value, ensure_ascii=False)
    text = text if text.isprintable() else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:56]} …"

"""Own folders: what a value in an annotation file may be.

What only the pictures can tell (a missing or unreadable picture or mask, an empty mask, another
size, an expression without words) is for `dit_jax.data.check`, so that one bad picture can be left
out of a large folder.
"""

import difflib
import math
import posixpath
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dit_jax.data.annotations.strict_json import Mistake, Twice, shown
from dit_jax.data.entries import Box, Label, MaskFile, Segmentation

ALL = "annotations"  # the file that holds every split; the others' names are their splits
COLOUR = re.compile(r"#[0-9A-Fa-f]{6}")
UNNAMED = "object"  # what is there without a caption and a category, where none is needed
SPLIT = re.compile(r"(?:train|val|test)[A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class Item:
    """What one line or annotation says; see `entries.Entry`."""

    name: str
    split: str | None  # None: it does not say
    picture: str
    size: tuple[int, int] | None
    segmentations: tuple[Segmentation, ...]
    boxes: tuple[Box, ...]
    expressions: tuple[str, ...]
    ann_ids: tuple[int, ...]
    crowd: bool = False
    units: str | None = None  # of its polygons and boxes, where the format says it


def check_keys(values: dict[str, Any], *, known: Collection[str]) -> None:
    """Refuse a key that is not one of `known`, with the nearest."""
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise Mistake(f"unknown key {key!r}; the nearest valid key is {near!r}.")


def an_object(value: Any) -> dict[str, Any]:
    """A JSON object that gives no key twice."""
    if not isinstance(value, dict):
        raise Mistake(f"found {shown(value)}; expected an object {{…}}.")
    if isinstance(value, Twice):
        raise Mistake(f"the key {value.twice!r} is given twice.")
    return value


def string(value: Any, key: str) -> str:
    """Text that can be written as UTF-8."""
    if not isinstance(value, str):
        raise Mistake(f"{key!r} is {shown(value)}; expected text in quotes.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Mistake(f"{key!r} is {shown(value)}, which holds half a character.") from error
    return value


def texts(value: Any, key: str) -> tuple[str, ...]:
    """One expression or a list of them."""
    if isinstance(value, list):
        return tuple(string(text, f"{key}[{number}]") for number, text in enumerate(value))
    if not isinstance(value, str):
        raise Mistake(f"{key!r} is {shown(value)}; expected text or a list of texts.")
    return (string(value, key),)


def identity(value: Any, key: str) -> int | str:
    """A number or a name."""
    if isinstance(value, str):
        return string(value, key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Mistake(f"{key!r} is {shown(value)}; expected a whole number or text.")
    if not -(2**63) <= value < 2**63:
        raise Mistake(f"{key!r} is {shown(value)}; expected a whole number of 64 bits, or text.")
    return value


def split(value: Any, *, file: Path) -> str:
    """The split that an item of `file` names; a file of one split has no other."""
    name = string(value, "split")
    if not SPLIT.fullmatch(name):
        raise Mistake(f"'split' is {shown(name)}; expected train, val or test….")
    if file.stem not in (ALL, name):
        raise Mistake(f"'split' is {shown(name)}, but all of this file is {file.stem}.")
    return name


def path(value: Any, key: str, *, folder: Path) -> str:
    """A file, relative to `folder` with "/" between names; absolute where it lies elsewhere."""
    name = string(value, key)
    if not name.strip():
        raise Mistake(f"{key!r} is empty; expected the path of a file in the folder.")
    if "\\" in name or "\0" in name:
        raise Mistake(f"{key!r} is {shown(name)}; expected a path with / between folder and file.")
    name = posixpath.normpath(name)
    if posixpath.isabs(name):
        inside = Path(name).is_relative_to(folder)
        return Path(name).relative_to(folder).as_posix() if inside else name
    if name.split("/")[0] == "..":
        raise Mistake(
            f"{key!r} is {shown(value)}, which leaves the folder; expected a path inside it, or an"
            " absolute one."
        )
    return name


def mask(value: Any, key: str, *, folder: Path) -> Segmentation:
    """The path of a mask picture, or COCO's run lengths."""
    if isinstance(value, str):
        return MaskFile(folder / path(value, key, folder=folder))
    if isinstance(value, dict):
        return run_lengths(value, key)
    raise Mistake(
        f"{key!r} is {shown(value)}; expected the path of a PNG, COCO run lengths"
        ' {"size": [height, width], "counts": …}, or null where nothing is meant.'
    )


def label(value: Any, key: str) -> Label:
    """What is meant of a mask picture: a value, a colour, or a list of them."""
    named = tuple(value) if isinstance(value, list) else (value,)
    for one in named:
        number = isinstance(one, int) and not isinstance(one, bool)
        if not number and not (isinstance(one, str) and COLOUR.fullmatch(one)):
            raise Mistake(
                f"{key!r} is {shown(value)}; expected a value of the mask picture like 2, a colour"
                ' like "#ff0000", or a list of them.'
            )
    if not named:
        raise Mistake(f"{key!r} is an empty list; expected a value of the mask picture.")
    return named if isinstance(value, list) else value


def run_lengths(value: dict[str, Any], key: str) -> dict[str, Any]:
    """COCO's run lengths, compressed or not; `masks.entry_mask` checks that they fill the size."""
    check_keys(an_object(value), known=("size", "counts"))
    missing = [name for name in ("size", "counts") if name not in value]
    if missing:
        raise Mistake(f"{key!r} has no {missing[0]!r}; expected size and counts.")
    size, counts = value["size"], value["counts"]
    if not isinstance(size, list) or len(size) != 2:
        raise Mistake(f"'size' of {key!r} is {shown(size)}; expected [height, width].")
    for number in size:
        pixels(number, f"{key}.size")
    if not isinstance(counts, str | list):
        raise Mistake(f"'counts' of {key!r} is {shown(counts)}; expected text or a list.")
    return value


def whole(value: Any) -> Any:
    """480 for 480.0 and "480"; anything else as it is."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return (
        int(value) if isinstance(value, str) and re.fullmatch(r"0|[1-9]\d{0,17}", value) else value
    )


def pixels(value: Any, key: str) -> int:
    """A height or a width."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise Mistake(f"{key!r} is {shown(value)}; expected a whole number of pixels above 0.")
    return value


def sole(values: dict[str, Any], keys: Collection[str], *, hint: str = "") -> str:
    """The one key of `keys` that is given."""
    given = [key for key in keys if key in values]
    if len(given) != 1:
        found = f"{' and '.join(map(repr, given))} are given" if given else "none is given"
        raise Mistake(f"{found}; expected exactly one of {', '.join(map(repr, keys))}{hint}.")
    return given[0]


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

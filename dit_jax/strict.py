"""Dataclasses from dicts, strictly, and back: what stands between config files and the package.

An unknown key, a missing key or a value of another type is a ValueError that names the dotted key
and what was expected.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

LONGEST = 300  # characters of one thing in a list


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """`{"optim.lr": 1e-4, …}`."""
    flat = {}
    for field in dataclasses.fields(config):
        value, path = getattr(config, field.name), prefix + field.name
        flat |= flatten(value, path + ".") if dataclasses.is_dataclass(value) else {path: value}
    return flat


def differences(one: Any, other: Any) -> str:
    """Fields in which two dataclasses of one class differ: "depth 2 ≠ 3, …"; "" where none does."""
    pairs = zip(flatten(one).items(), flatten(other).values(), strict=True)
    return few([f"{name} {mine} ≠ {theirs}" for (name, mine), theirs in pairs if mine != theirs])


def one_of(path: str, value: Any, choices: tuple) -> None:
    """Raise ValueError, with the nearest choice, unless `value` is one of them."""
    if value in choices:
        return
    near = difflib.get_close_matches(str(value), [str(c) for c in choices], n=1, cutoff=0.0)
    raise ValueError(
        f"{path} is {value!r}; expected one of {', '.join(map(str, choices))} (nearest: {near[0]})."
    )


def build(cls: type, values: Any, prefix: str) -> Any:
    """An instance of dataclass `cls` from a dict, recursively."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{prefix[:-1]} is {values!r}; expected a section of keys and values.")
    kinds = typing.get_type_hints(cls)
    for key in values:
        if key not in kinds:
            near = difflib.get_close_matches(str(key), list(kinds), n=1, cutoff=0.0)[0]
            raise ValueError(
                f"unknown key {prefix}{printed(key)}; the nearest valid key is {prefix}{near}."
            )
    missing = [prefix + name for name in kinds if name not in values]
    if missing:
        raise ValueError(f"missing keys: {', '.join(missing)}.")
    return cls(**{key: _convert(kinds[key], values[key], prefix + key) for key in kinds})


def _convert(kind: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return build(kind, value, path + ".")
    if isinstance(kind, types.UnionType):  # X | None
        return None if value is None else _convert(typing.get_args(kind)[0], value, path)
    if typing.get_origin(kind) is tuple:
        item_kind = typing.get_args(kind)[0]
        items = _words(value) if item_kind is str else value
        if not isinstance(items, (list, tuple)):
            raise ValueError(f"{path} is {value!r}; expected a tuple, e.g. (…,).")
        return tuple(_convert(item_kind, item, path) for item in items)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:  # an exact match: bool is no int here
        raise ValueError(
            f"{path} is {value!r} of type {type(value).__name__}; expected {kind.__name__}."
        )
    return value


def few(words: Sequence[str], shown: int = 5, *, between: str = ", ") -> str:
    """The first of many in a sentence, and how many more there are; they may hold anything."""
    more = f" and {len(words) - shown} more" if len(words) > shown else ""
    first = (word if len(word) <= LONGEST else f"{word[:LONGEST]}…" for word in words[:shown])
    return between.join(map(printed, first)) + more


def counted(number: int, noun: str) -> str:
    """ "1 mask", "2,000 masks"."""
    return f"{number:,} {noun}" + "s" * (number != 1)


def printed(key: Any) -> str:
    """A key of a file, which may be anything, as part of a sentence."""
    return str(key) if str(key).isprintable() else repr(key)


def _words(value: Any) -> Any:
    """`"val,testA"` and `("val,testA",)`, which a command line makes of it, as two words."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    if isinstance(value, (list, tuple)) and len(value) == 1 and isinstance(value[0], str):
        return _words(value[0])
    return value

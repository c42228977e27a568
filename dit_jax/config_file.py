"""The file that `--config` names: which one is meant, and what is wrong with it in one sentence."""

import difflib
import re
import traceback
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dit_jax import configs, storage

OURS = Path(configs.__path__[0])
FLAG = re.compile(r"(--?config=)((?:(?:gs|s3)://)?[^:]*)(.*)", re.DOTALL)


def joined(words: list[str]) -> list[str]:
    """`--config FILE` as `--config=FILE`; `configs/…` is here or, from any folder, our own, and a
    file in a bucket is its copy."""
    words = list(words)
    for i, word in enumerate(words[:-1]):
        if word in ("--config", "-config"):
            words[i : i + 2] = [f"{word}={words[i + 1]}"]
            break
    return [FLAG.sub(_found, word) for word in words]


def _found(named: re.Match) -> str:
    flag, file, arguments = named.groups()
    if file.startswith("configs/") and not Path(file).exists():
        ours = OURS / Path(file).relative_to("configs")
        file = str(ours) if ours.is_file() else file
    if storage.parse(file):
        storage.check(file)
        file = str(storage.local(file))
    return flag + file + arguments


def named(words: list[str]) -> str | None:
    """The file, without arguments; raises ValueError or FileNotFoundError where it is missing."""
    found = [match[2] for match in map(FLAG.fullmatch, words) if match]
    if found and not Path(found[-1]).is_file():
        raise FileNotFoundError(f"no such config file: {found[-1] or repr('')}.{_near(found[-1])}")
    keys = [word for word in words if re.match("--?config[.]", word)]
    if keys and not found:
        raise ValueError(f"{keys[0]} changes a config; expected --config=FILE before it.")
    return found[-1] if found else None


def _near(file: str) -> str:
    for folder, shown in ((Path(file).parent, Path(file).parent), (OURS, Path("configs"))):
        there = sorted(path.name for path in folder.glob("*.py"))
        if near := difflib.get_close_matches(Path(file).name, there, n=1, cutoff=0.75):
            return f" Did you mean {shown / near[0]}?"
    return ""


def mistake(error: BaseException, file: str) -> str | None:
    """What an error says that came out of the file; None of others, and of those that were meant
    for the user: a ValueError that its `get_config` raises."""
    found: BaseException | None = error
    while found is not None:
        frames = traceback.extract_tb(found.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == file]
        if isinstance(found, SyntaxError) and found.filename == file:
            return f"{file} is no Python file: line {found.lineno}: {found.msg}."
        if lines and not isinstance(found, ValueError):
            return f"{file}, line {lines[-1]}: {type(found).__name__}: {found}."
        if "'get_config'" in str(found) and isinstance(found, AttributeError):
            return f"{file} has no get_config(); expected a file like configs/quickstart.py."
        if "get_config() takes" in str(found) and isinstance(found, TypeError):
            return f"{file} takes nothing behind a colon, or other things; see its first lines."
        found = found.__cause__ or found.__context__
    return None


def check(value: Any, file: str) -> None:
    """Raise ValueError unless `get_config` gave a ConfigDict."""
    if isinstance(value, ConfigDict):
        return
    error = getattr(value, "_error", None)  # where ml_collections 1.1 keeps an OSError
    if error:
        raise ValueError(f"{file} cannot be read: {error}.")
    raise ValueError(f"{file} gives {value!r:.80} as its config; expected a ConfigDict.")


def unknown_key(error: AttributeError | KeyError, argv: list[str]) -> str:
    """What is wrong with a `--config.key` that the config does not have."""
    unknown = re.search(r"'(\w+)", str(error.args[0]))
    words = [w for w in argv if unknown and re.match(rf"--?config\..*\b{unknown[1]}\b", w)]
    if not words:
        return f"--config could not be read: {error}."
    near = re.search(r'mean "(\w+)"', str(error.args[0]))
    hint = f"; the nearest valid key is {near[1]}" if near else ""
    return f"unknown key {unknown[1]!r} in {' '.join(words)}{hint}."

"""Copies of what lies in buckets: to be read, for good; to be written, as long as that takes."""

import contextlib
import fnmatch
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from absl import logging

from dit_jax.storage.names import Name, copy_of, origin, parse, root_of
from dit_jax.storage.objects import fetch_all, listing, remove, send

LAST = ("config.json", "manifest.json")  # the last objects of a folder that has a manifest
MANIFEST = LAST[-1]
# What nobody who goes on with a folder reads there, and so is not brought.
UNREAD = ("checkpoints", "compiled", "profile", "predictions", "masks", "overlays")
TMP = ".tmp"  # of a file that is not finished
WEIGHTS = ".safetensors"
INDEX = "index.json"  # at a copy's root: what it and its bucket have in common

Stamp = list[int]  # size and time of a file
Index = dict[str, tuple[str | None, Stamp]]  # name → the object's version, and the file's stamp


def local(place: str | os.PathLike, *, beside: Iterable[str] = ()) -> Path:
    """A path as it is; an object, a folder or a pattern in a bucket as its copy here.

    Args:
      beside: patterns of other objects in the folder that are wanted with a single one.

    Raises FileNotFoundError where nothing is there, OSError where it cannot be had.
    """
    name = parse(place)
    if name is None:
        return Path(place)
    folder, _, file = name.key.rpartition("/")
    if re.search(r"[*?[]", name.key):
        found = listing(name, pattern=True)
    else:
        there = {inside: one for inside, one in listing(name).items() if not _hidden(inside)}
        found = {(name / inside).key: one for inside, one in there.items()}
    if name.key in found and beside:
        around = listing(Name(name.scheme, f"{folder}/*"), pattern=True)
        wanted = (file, *beside)
        found = {
            k: o for k, o in around.items() if any(fnmatch.fnmatch(_file(k), w) for w in wanted)
        }
    if not found:
        raise FileNotFoundError(f"{name} is not there: no object has that name.")
    identity = hashlib.sha256(repr(sorted(found.items(), key=str)).encode()).hexdigest()[:16]
    fetch_all({copy_of(Name(name.scheme, key), identity): one for key, one in found.items()})
    return copy_of(name, identity)


def _file(key: str) -> str:
    return key.rpartition("/")[2]


@contextlib.contextmanager
def written(place: str | os.PathLike) -> Iterator[Path]:
    """A path as it is; a place in a bucket as a copy here, which is pushed at the end.

    So is what a block leaves that failed, as far as it can be.
    """
    name = parse(place)
    if name is None:
        yield Path(place)
        return
    with tempfile.TemporaryDirectory(prefix="dit_jax-") as root:
        path = copy_of(name, "written", root=root)
        path.parent.mkdir(parents=True)
        pull(path)
        try:
            yield path
        except ConnectionError:  # which is what is wrong, and would be said twice
            raise
        except BaseException:
            try:
                push(path)
            except ConnectionError as error:
                logging.warning("%s", error)
            raise
        push(path)


def pull(path: Path) -> None:
    """Bring what is new in the bucket into a copy that is written; nothing for other paths.

    Not when files of it are open.
    """
    name = origin(path)
    if name is None:
        return
    index = _index(path)
    found = {n: one for n, one in listing(name).items() if _is_read(n)}
    new = {n: one for n, one in found.items() if index.get(n, (None,))[0] != one.version}
    fetch_all({path / n: one for n, one in new.items()}, anew=True)
    for gone in index.keys() - found.keys():
        (path / gone).unlink(missing_ok=True)
        del index[gone]
    index |= {n: (one.version, _stamp(path / n)) for n, one in new.items()}
    _note(path, index)


def push(path: Path, *, every: float = 0) -> None:
    """Bring what is new in a copy that is written into its bucket; nothing for other paths.

    All of the copy that `path` is in.

    Args:
      every: seconds; nothing is done where it was done within these, and failing is only said.

    Raises ConnectionError where the bucket does not take it.
    """
    if origin(path) is None or time.time() - _index_of(path).stat().st_mtime < every:
        return
    try:
        _push(_top(path))
    except ConnectionError as error:
        if not every:
            raise
        logging.warning("%s", error)


def _push(path: Path) -> None:
    name, index, now = origin(path), _index(path), _stamps(path)
    changed = [n for n in now if n not in index or index[n][1] != now[n]]
    whole = {n.removesuffix(MANIFEST).rstrip("/") for n in now if _file(n) == MANIFEST}
    parts = {n: next((f for f in whole if _within(n, f)), None) for n in changed}
    send({path / n: name / n for n in changed if parts[n] is None})
    for folder in sorted({part for part in parts.values() if part is not None}):
        inside = [n[len(folder) :].lstrip("/") for n in changed if parts[n] == folder]
        publish(path / folder, name / folder, changed=inside)
    remove(name / n for n in index.keys() - now.keys())
    _note(path, {n: (None if n in parts else index[n][0], now[n]) for n in now})


def publish(folder: Path, name: Name, *, changed: Iterable[str] | None = None) -> None:
    """Write a folder that has a manifest; without `changed`, all of it.

    Who reads it meanwhile finds the former folder, none, or the new one.
    """
    now = _stamps(folder)
    changed = now if changed is None else changed
    body = [n for n in changed if n not in LAST]
    if body:
        there = listing(name)
        for last in LAST:  # in this order: a config without its manifest would count
            if last in there:
                remove([name / last])
        send({folder / n: name / n for n in body})
        # Only of a model that was there: objects that nobody brought here are somebody's.
        if MANIFEST in there and any(not _is_read(n) for n in now):
            remove(name / n for n in there.keys() - now.keys())
    for last in LAST:
        if last in (now if body else changed):
            send({folder / last: name / last})


def _is_read(inside: str) -> bool:
    folders = inside.split("/")[:-1]
    return not (_hidden(inside) or inside.endswith((WEIGHTS, TMP)) or set(folders) & set(UNREAD))


def _hidden(inside: str) -> bool:
    return any(part.startswith(".") for part in inside.split("/"))


def _within(inside: str, folder: str) -> bool:
    return not folder or inside.startswith(f"{folder}/")


def _stamps(path: Path) -> dict[str, Stamp]:
    """The files of a folder that are finished, or "" where `path` is a file."""
    if path.is_file():
        return {"": _stamp(path)}
    found = {}
    for file in path.rglob("*"):
        inside = file.relative_to(path)
        if not _hidden(inside.as_posix()) and file.suffix != TMP:
            with contextlib.suppress(FileNotFoundError):
                if file.is_file():
                    found[inside.as_posix()] = _stamp(file)
    return found


def _stamp(file: Path) -> Stamp:
    about = file.stat()
    return [about.st_size, about.st_mtime_ns]


def _index_of(path: Path) -> Path:
    return root_of(path) / INDEX


def _top(path: Path) -> Path:
    return Path(json.loads(_index_of(path).read_text())["top"])


def _index(path: Path) -> Index:
    file = _index_of(path)
    if not file.is_file():
        return {}
    noted = json.loads(file.read_text())["files"]
    return {name: (version, stamp) for name, (version, stamp) in noted.items()}


def _note(path: Path, index: Index) -> None:
    _index_of(path).write_text(json.dumps({"top": str(path), "files": index}))

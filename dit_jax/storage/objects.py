"""Objects: what is asked of a store, by fsspec, and whatever goes wrong as one sentence."""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import logging
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from dit_jax.storage.names import Name, check, origin, parse

AT_ONCE = 16  # objects that are on their way
LARGE = 1e8  # bytes that take so long that it is said
VERSIONS = ("crc32c", "md5Hash", "ETag", "etag")  # what stores call what changes with the bytes
FULL = (errno.ENOSPC, errno.EDQUOT)
TOLD = (FileNotFoundError, FileExistsError)  # which say what they mean, whoever raises them


@dataclasses.dataclass(frozen=True)
class Object:
    """Size in bytes, and what changes when the bytes do."""

    size: int
    version: str


def listing(name: Name, *, pattern: bool = False) -> dict[str, Object]:
    """All objects in a folder, by their names from there on; of an object itself, "" → it.

    `pattern`: of names with `*`, `?` or `[…]`; by all of the key.
    """
    files, key = _store(name.scheme), name.key
    with _sentence(f"{name} could not be listed"):
        found = (files.glob if pattern else files.find)(key, detail=True)
    cut = 0 if pattern else len(key) + 1
    return {
        path[cut:]: _object(one)
        for path, one in found.items()
        # A key with "//" has no path here; no program of ours writes such a one.
        if one["type"] == "file" and not path.endswith("/") and "//" not in path
    }


def _object(info: Mapping[str, Any]) -> Object:
    return Object(info["size"], " ".join(str(info[key]) for key in VERSIONS if key in info))


def read(name: Name) -> bytes:
    """Raises FileNotFoundError where there is no such object."""
    with _sentence(f"{name} could not be read"):
        return _store(name.scheme).cat_file(name.key)


def write(name: Name, data: bytes) -> None:
    """The whole object, or none: its former bytes stay until then."""
    with _sentence(f"{name} could not be written"):
        _store(name.scheme).pipe_file(name.key, data)


def create(name: Name, data: bytes) -> bool:
    """Whether the object was made by this call, where there was none.

    Google's store and Amazon's promise that of several callers one makes it; not every other does.
    """
    try:
        with _sentence(f"{name} could not be written"):
            _store(name.scheme).pipe_file(name.key, data, mode="create")
    except FileExistsError:
        return False
    return True


def modified(name: Name) -> datetime:
    """When an object was written, by the store's clock; FileNotFoundError where there is none."""
    with _sentence(f"{name} could not be read"):
        return _store(name.scheme).modified(name.key)


def remove(names: Iterable[Name]) -> None:
    """Those that are there."""

    def one(name: Name) -> None:
        with _sentence(f"{name} could not be removed"), contextlib.suppress(FileNotFoundError):
            _store(name.scheme).rm_file(name.key)

    _together(one, names)


def move(folder: os.PathLike, to: os.PathLike) -> None:
    """Rename a folder; in a bucket, object by object."""
    name = parse(folder)
    if name is None:
        to.parent.mkdir(exist_ok=True)
        folder.rename(to)
        return
    with _sentence(f"{name} could not be moved to {to}"):
        _store(name.scheme).mv(name.key, parse(to).key, recursive=True)


def send(files: Mapping[Path, Name]) -> None:
    """Write files as objects; one that has vanished meanwhile is left out."""

    def one(item: tuple[Path, Name]) -> None:
        path, name = item
        with _sentence(f"{name} could not be written"):
            try:
                _store(name.scheme).put_file(str(path), name.key)
            except FileNotFoundError as error:
                if path.exists():  # so that it is the store's word for a place that is not there
                    raise ConnectionError("the store knows no such place") from error

    _together(one, files.items())


def fetch_all(objects: Mapping[Path, Object], *, anew: bool = False) -> None:
    """Bring objects to the paths of their copies, those that are there already aside.

    OSError before anything is fetched where the disk is too small. `anew` trusts nothing there.
    """
    missing = {p: o for p, o in objects.items() if anew or not _there(p, o)}
    total = sum(one.size for one in missing.values())
    if missing:
        room_for(total, next(iter(missing)))
    if total > LARGE:
        where = os.path.commonpath([path.parent for path in missing])
        said = f"Fetching {total / 1e9:.1f} GB, {len(missing)} objects, once, into {where}"
        print(said, file=sys.stderr, flush=True)
    _together(lambda path: fetch(path, size=missing[path].size), missing)


def fetch(path: Path, *, size: int | None = None, sha256: str | None = None) -> None:
    """Bring one object to the path of its copy; OSError where it has another size or checksum."""
    name = origin(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name[:100]}-{secrets.token_hex(4)}")
    try:
        with _sentence(f"{name} could not be read"):
            _store(name.scheme).get_file(name.key, str(partial))
        with partial.open("rb") as file:
            sums = None if sha256 is None else hashlib.file_digest(file, "sha256").hexdigest()
        if size not in (None, partial.stat().st_size) or sums != sha256:
            raise OSError(f"{name} is not what was written there: another size or checksum.")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def room_for(size: int, path: Path) -> None:
    """Raise OSError where a disk has no room for so many bytes."""
    folder = next(parent for parent in path.parents if parent.is_dir())
    if size > (free := shutil.disk_usage(folder).free):
        raise OSError(
            f"{origin(path)} and what belongs to it need {size / 1e9:.2f} GB on the disk of"
            f" {folder}, which has {free / 1e9:.2f} GB left; make room there, or name a folder on"
            " another disk (data.local_cache for records, XDG_CACHE_HOME for everything else)."
        )


def _there(path: Path, one: Object) -> bool:
    return path.is_file() and path.stat().st_size == one.size


def _together(call: Callable[[Any], None], items: Iterable[Any]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(call, items):
            pass


@functools.cache
def _store(scheme: str) -> Any:
    """The file system of a scheme, which keeps no listing: others write there, too."""
    check(f"{scheme}://bucket")
    import fsspec

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # its tracebacks become our sentences
    return fsspec.filesystem(scheme, use_listings_cache=False)


@contextlib.contextmanager
def _sentence(what: str) -> Iterator[None]:
    """Whatever a store, its package, its login or the network raise, as ConnectionError."""
    try:
        yield
    except Exception as error:  # each package has kinds of its own
        if isinstance(error, TOLD) or (isinstance(error, OSError) and error.errno in FULL):
            raise
        said = re.sub(r"<[^>]*>", " ", str(error))  # some stores send a page
        why = " ".join(said.split())[:300].rstrip(".") or type(error).__name__
        raise ConnectionError(f"{what}: {why}.") from error

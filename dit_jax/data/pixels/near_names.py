"""A missing file's near name: what is there instead, but for case, accents or the ending.

macOS writes `ü` as two characters (NFD) and takes IMG_1.JPG for img_1.jpg; other systems do
neither, so folders that were copied lose pictures that are there for everybody to see.
"""

import functools
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path


def near(path: str | os.PathLike[str]) -> str:
    """ " (IMG_1.JPG is there)", or "" where there is nothing like a missing path."""
    asked = Path(os.path.abspath(path))
    if (found := _nearest(asked)) in (None, asked):  # the latter of "", which is the folder here
        return ""
    same = os.path.commonpath([asked, found])
    return _said(*(one.relative_to(same).as_posix() for one in (asked, found)))


def near_name(name: str, names: Iterable[str]) -> str:
    """The same for the names of an archive."""
    found = {_plain(one): one for one in names}.get(_plain(name))
    return _said(name, found) if found else ""


def _said(name: str, found: str) -> str:
    bytes_only = unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", found)
    how = ", with its accents in other characters: Unicode's NFC and NFD" if bytes_only else ""
    return f" ({found} is there{how})"


def _nearest(path: Path) -> Path | None:
    if path.parent == path:
        return None
    folder = path.parent if path.parent.is_dir() else _nearest(path.parent)
    if folder is None or not folder.is_dir():
        return None
    names = _names(folder, folder.stat().st_mtime_ns)
    found = names.get(_plain(path.name)) or names.get(_plain(path.stem))
    return folder / found if found else None


@functools.lru_cache(maxsize=8)
def _names(folder: Path, changed: int) -> dict[str, str]:
    """What a folder holds, by plain names with and without endings; once for many missing files."""
    names = sorted(os.listdir(folder), reverse=True)
    stems = {_plain(Path(name).stem): name for name in names}
    return stems | {_plain(name): name for name in names}


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()

"""Where pictures lie: in a folder, or in a zip file such as COCO's train2014.zip, never unpacked.

A store is read by many threads at once and travels to worker processes.
"""

import lzma
import os
import struct
import threading
import zipfile
import zlib
from pathlib import Path
from typing import Protocol, runtime_checkable

from dit_jax.data.pixels.near_names import near, near_name
from dit_jax.data.pixels.picture_size import content


@runtime_checkable
class ImageStore(Protocol):
    """Encoded pictures by the names that annotations give them."""

    def read(self, file_name: str) -> bytes:
        """The encoded picture; ValueError, naming it, where it is missing or damaged."""
        ...

    def size(self, file_name: str) -> int:
        """Bytes that `read` will give; 0 where there is nothing to read."""
        ...

    def __contains__(self, file_name: str) -> bool: ...


def open_images(path: str | os.PathLike[str]) -> ImageStore:
    """The pictures of a folder or of a zip file; ValueError where `path` is neither."""
    path = Path(path)
    if path.is_dir():
        return Folder(path)
    try:
        if path.is_file() and zipfile.is_zipfile(path):
            return Zip(path)
    except Exception as error:  # on damaged files Python's reader fails in every way
        raise ValueError(f"{path} is a damaged zip file, or one that is cut short.") from error
    found = "is another file" if path.exists() else "is missing"
    raise ValueError(f"{path} {found}; expected a folder or a zip file of pictures.")


# What Python's reader raises for a member that is damaged, or packed in a way it does not know.
DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, UnicodeDecodeError),
    *(OSError, EOFError, RuntimeError, NotImplementedError, OverflowError),
)


class Folder:
    """Pictures by their paths below a folder."""

    def __init__(self, path: Path):
        self._path = path

    def __contains__(self, file_name: str) -> bool:
        return (self._path / file_name).is_file()

    def read(self, file_name: str) -> bytes:
        path = self._path / file_name
        if not path.is_file():
            raise ValueError(f"the picture {path} is missing{near(path)}.")
        with path.open("rb") as file:
            return content(file, self.size(file_name), name=f"the picture {path}")

    def size(self, file_name: str) -> int:
        path = self._path / file_name
        return path.stat().st_size if path.is_file() else 0


class Zip:
    """Pictures by their paths in a zip file, or by the ends of those: `x.jpg` for `a/b/x.jpg`."""

    def __init__(self, path: Path):
        self._path = path
        self._lock = threading.Lock()
        self._archive = zipfile.ZipFile(path)
        self._process = os.getpid()
        self._paths: dict[str, list[str]] = {}  # of the members, by their names without folders
        for info in self._archive.infolist():
            if not info.is_dir():
                name = info.filename.rpartition("/")[2]
                self._paths.setdefault(name, []).append(info.filename)

    def __contains__(self, file_name: str) -> bool:
        return len(self._members(file_name)) == 1

    def read(self, file_name: str) -> bytes:
        members = self._members(file_name)
        if len(members) != 1:
            found = f"there more than once: {', '.join(members)}"
            if not members:
                found = f"missing{near_name(file_name.rpartition('/')[2], self._paths)}"
            raise ValueError(f"the picture {file_name} of {self._path} is {found}.")
        name = f"the picture {members[0]} of {self._path}"
        try:
            with self._open().open(members[0]) as file:
                return content(file, self.size(file_name), name=name)
        except DAMAGED as e:
            raise ValueError(f"{name} cannot be unpacked: {e}.") from e

    def size(self, file_name: str) -> int:
        members = self._members(file_name)
        return self._archive.getinfo(members[0]).file_size if members else 0

    def _members(self, file_name: str) -> list[str]:
        """Which members a name can mean; never another folder's picture of the same name."""
        paths = self._paths.get(file_name.rpartition("/")[2], [])
        if file_name in paths:
            return [file_name]
        return [path for path in paths if path.endswith(f"/{file_name}")]

    def _open(self) -> zipfile.ZipFile:
        """This process's own archive: a forked process would share the position in the file."""
        with self._lock:
            if self._process != os.getpid():
                self._archive, self._process = zipfile.ZipFile(self._path), os.getpid()
            return self._archive

    def __getstate__(self) -> Path:
        return self._path

    def __setstate__(self, path: Path) -> None:
        self.__init__(path)

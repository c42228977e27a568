"""Read a pickle of plain data, and nothing else.

REFER ships its expressions as a pickle, and `pickle.load` runs whatever program a pickle holds.
This reader admits containers, strings and numbers. The only globals it knows are the three names
with which protocols 0-3 spell a set and a bytes string; any other one is refused before it is
even imported, so nothing of it runs.
"""

import io
import os
import pickle
from pathlib import Path
from typing import Any


def load(path: str | os.PathLike[str]) -> Any:
    """Load a pickle of dict, list, tuple, set, str, bytes, int, float, bool and None.

    Strings written by Python 2 are read as UTF-8, or as Latin-1 where they are not UTF-8.
    Raises ValueError, naming the file, for anything else or for a damaged file.
    """
    path = Path(path)
    data = path.read_bytes()
    try:
        return _loads(data, path, "utf-8")
    except UnicodeDecodeError:
        return _loads(data, path, "latin1")


def _loads(data: bytes, path: Path, encoding: str) -> Any:
    try:
        return _PlainUnpickler(io.BytesIO(data), path, encoding).load()
    except _Refused:
        raise
    except Exception as error:  # a damaged pickle may raise nearly anything
        if isinstance(error, UnicodeDecodeError) and encoding == "utf-8":
            raise  # `load` tries Latin-1
        raise ValueError(f"{path}: not a readable pickle ({error or type(error).__name__}).") from (
            error
        )


class _Refused(ValueError):
    """The pickle asks for something that is not plain data."""


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, path: Path, encoding: str):
        super().__init__(file, encoding=encoding)
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _SET:
            return set
        if (module, name) in _BYTES:
            # A function of its own for each use: a pickle can set attributes of what it gets.
            return lambda text="", encoding="latin1": _latin1_bytes(text, encoding)
        raise _Refused(
            f"{self._path}: the pickle asks for the global {module}.{name}, but only plain"
            " data (dict, list, tuple, set, str, bytes, numbers) is admitted."
        )

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused(
            f"{self._path}: the pickle asks for the external object {pid!r}, but only plain data"
            " is admitted."
        )


def _latin1_bytes(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError(f"bytes in the encoding {encoding!r}, expected latin1")
    return text.encode("latin1")


# How old protocols write a set (0-3), and bytes (0-2: `_codecs.encode(text, "latin1")`, `bytes()`).
_SET = {("__builtin__", "set"), ("builtins", "set")}
_BYTES = {("_codecs", "encode"), ("__builtin__", "bytes")}

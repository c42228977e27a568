"""One writer a folder: a lease that dies with its process, also on network file systems.

`FOLDER/.lease` says who writes there. Whoever holds it renews it every few seconds; one that was
not renewed for long is taken over. Locks of the operating system would be shorter, but not every
network file system keeps them, and no bucket does.

In a bucket it is an object. Of processes that come to a free folder at once one gets it, as the
store promises. Of several that take over a holder who is gone, the last to write keeps it, and the
others learn so within SETTLE; were the store slower than that, two would go on until the next beat
or checkpoint, where one of them stops. No store offers more through the packages that are used.
"""

import contextlib
import dataclasses
import datetime
import errno
import json
import os
import secrets
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from dit_jax import storage

NAME = ".lease"
BEAT = 5.0  # seconds between renewals
STALE = 60.0  # without a renewal for so long, whoever held it is gone
FULL = (errno.ENOSPC, errno.EDQUOT)
SETTLE = 0.5  # seconds in which several that take over at once see who was the last


class Taken(OSError):
    """Another process holds the folder."""


class Lease:
    """Held from entry to exit; `check` raises where another process took it meanwhile.

    Entering raises Taken, in a sentence with host, process and time, where another process holds
    it, and OSError where the folder, or one inside it that will be written, cannot be.
    """

    def __init__(
        self, folder: Path, *, purpose: str, name: str = NAME, inside: tuple[str, ...] = ()
    ):
        """`purpose` is what the holder does: "training"; `name` is another file than `.lease`;
        `inside` are folders there that will be written, and may be there already."""
        self._inside = inside
        self.path = Path(os.path.abspath(folder)) / name
        bucket = storage.origin(self.path)
        self._file = _File(self.path) if bucket is None else _Object(bucket)
        self._record = {
            "purpose": purpose,
            "host": socket.gethostname(),
            "numbered_in": _numbered_in(),
            "pid": os.getpid(),
            "started": _started(os.getpid()),
            "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "token": secrets.token_hex(8),
        }
        self._over = threading.Event()
        self._lost: str | None = None

    def __enter__(self) -> "Lease":
        for folder in (self.path.parent / name for name in self._inside):
            if folder.exists():
                _check(folder)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self._create():
                self._take_over()
        except (Taken, ConnectionError):  # which say it all
            raise
        except OSError as error:
            raise _unwritable(self.path.parent, error) from error
        self._heart = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._heart.start()
        return self

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, OSError) and error.errno in FULL and error.filename is None:
            error.filename = str(self.path.parent)  # what failed is a write, which names no file
        self._over.set()
        self._heart.join()
        with contextlib.suppress(ConnectionError):  # to a bucket: then it is soon stale
            if self._mine():
                self._file.remove()

    def check(self) -> None:
        """Raise OSError where another process has taken the folder."""
        if self._lost is not None:
            raise OSError(self._lost)

    def _create(self) -> bool:
        """Whether the file was made by this call, or by one that was made again on its way."""
        return self._file.create(self._record) or self._mine()

    def _take_over(self) -> None:
        """From a holder that is gone; of several that do so at once, the last one keeps it."""
        other = self._file.read()
        if other is not None and not _gone(other):
            age = self._file.age()
            if age is not None and abs(age) < STALE:  # below 0 where the clock was put back
                raise Taken(_taken(self.path, other))
        self._file.replace(self._record)
        time.sleep(SETTLE)
        if not self._mine():
            raise Taken(_taken(self.path, self._file.read()))

    def _mine(self) -> bool:
        other = self._file.read()
        return other is not None and other.get("token") == self._record["token"]

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            try:
                if not self._mine():
                    self._lost = _taken(self.path, self._file.read())
                    return
                self._file.renew(self._record)
            except OSError:  # a disk that is away for a moment; a lease can miss beats
                continue


@dataclasses.dataclass(frozen=True)
class _File:
    """A record on a disk."""

    path: Path

    def create(self, record: dict[str, Any]) -> bool:
        """Whether the file was made by this call: exclusive creation is atomic, on NFS too."""
        try:
            file = self.path.open("x", encoding="utf-8")
        except FileExistsError:
            return False
        _fill(file, record)
        return True

    def replace(self, record: dict[str, Any]) -> None:
        own = self.path.with_name(f"{self.path.name}-{record['token']}")
        _fill(own.open("w", encoding="utf-8"), record)
        os.replace(own, self.path)

    def read(self) -> dict[str, Any] | None:
        """The record; {} where it is none, as while it is written; None where there is no file."""
        try:
            return _record(self.path.read_bytes())
        except FileNotFoundError:
            return None

    def renew(self, record: dict[str, Any]) -> None:
        os.utime(self.path)

    def age(self) -> float | None:
        """Seconds since the last renewal, by the file system's own clock; None where it is gone."""
        probe = self.path.with_name(f"{self.path.name}-{secrets.token_hex(8)}")
        try:
            probe.touch()
            return probe.stat().st_mtime - self.path.stat().st_mtime
        except FileNotFoundError:
            return None
        finally:
            probe.unlink(missing_ok=True)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)  # the folder may have been removed meanwhile


@dataclasses.dataclass(frozen=True)
class _Object:
    """The same in a bucket."""

    name: storage.Name

    def create(self, record: dict[str, Any]) -> bool:
        return storage.create(self.name, json.dumps(record).encode())

    def replace(self, record: dict[str, Any]) -> None:
        storage.write(self.name, json.dumps(record).encode())

    def read(self) -> dict[str, Any] | None:
        try:
            return _record(storage.read(self.name))
        except FileNotFoundError:
            return None

    def renew(self, record: dict[str, Any]) -> None:
        self.replace(record)  # an object's time is when it was written

    def age(self) -> float | None:
        probe = storage.Name(self.name.scheme, f"{self.name.key}-{secrets.token_hex(8)}")
        try:
            storage.write(probe, b"")
            return (storage.modified(probe) - storage.modified(self.name)).total_seconds()
        except FileNotFoundError:
            return None
        finally:
            storage.remove([probe])

    def remove(self) -> None:
        storage.remove([self.name])


def _fill(file: TextIO, record: dict[str, Any]) -> None:
    """Whole or not at all: half a record on a full disk would be an unknown holder's."""
    try:
        with file:
            json.dump(record, file)
    except OSError:
        os.unlink(file.name)
        raise


def _check(folder: Path) -> None:
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> OSError:
    return OSError(f"{folder} cannot be written: {error.strerror}.")


def _gone(other: dict[str, Any]) -> bool:
    """Whether the holder ran among this host's processes and does not any more: then nobody needs
    to wait."""
    if (other.get("host"), other.get("numbered_in")) != (socket.gethostname(), _numbered_in()):
        return False
    started = _started(other.get("pid", 0))
    return started is None or started != other.get("started")


def _numbered_in() -> str | None:
    """What gives processes their numbers: containers may share a host's name, and not these."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a process of this host began, in the kernel's ticks; None where there is none.

    Where the kernel does not say (it is Linux's /proc), "unknown" of every process that is there.
    """
    if not Path("/proc/self/stat").is_file():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:  # somebody else's
            pass
        return "unknown"
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return None


def _record(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data.decode())
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _taken(path: Path, other: dict[str, Any] | None) -> str:
    if other is None:
        return f"{path}, which kept other processes from {path.parent}, was removed; start again."
    if "host" not in other:
        return (
            f"{path} was just written and does not say by whom; wait for that process, or remove"
            " the file where none runs."
        )
    who = {key: other.get(key, "unknown") for key in ("purpose", "pid", "host", "since")}
    return (
        f"another process is {who['purpose']} in {path.parent}: process {who['pid']} on"
        f" {who['host']}, since {who['since']}; wait for it, stop it, or choose another folder."
    )

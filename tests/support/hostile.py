"""For fuzzing what comes from outside: how a refusal looks, and what must not happen meanwhile."""

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

REFUSALS = (ValueError, OSError)
LONGEST = 4000  # characters of a sentence
RUNS_CODE = {
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork"),
    *("pickle.find_class", "ctypes.dlopen", "socket.connect"),
}
CHANGES_FILES = {
    *("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"),
    *("os.chmod", "shutil.rmtree"),
}
CASES: Counter[str] = Counter()  # how many cases each test has run

_watching: list[Path] = []  # the folder that may be written to, while anything is watched
_seen: list[str] = []


@contextlib.contextmanager
def answered_or_refused(test: str, folder: Path) -> Iterator[None]:
    """One case: nothing, or a refusal in one sentence; nothing run or written outside `folder`."""
    CASES[test] += 1
    _seen.clear()
    _watching.append(folder.resolve())
    try:
        yield
    except REFUSALS as error:
        check_sentence(error)
    finally:
        _watching.pop()
    assert not _seen, f"{test}: {_seen}"


def check_sentence(error: Exception) -> None:
    first, *rest = str(error).split("\n")
    assert first.isprintable() and first and len(str(error)) < LONGEST, repr(str(error))
    # A file with several mistakes lists them, a line each.
    assert not rest or first.endswith(" mistakes:"), repr(str(error))
    assert all(line.isprintable() for line in rest), repr(str(error))


def _audit(event: str, arguments: tuple) -> None:
    """Notes what must not happen; an audit hook stays for good, so it looks only while watching."""
    if not _watching:
        return
    if event in RUNS_CODE:
        _seen.append(f"{event} {arguments!r:.200}")
    elif event in CHANGES_FILES or (event == "open" and _writes(arguments)):
        target = arguments[0]
        if isinstance(target, (str, bytes, os.PathLike)):
            path = Path(os.path.abspath(os.fsdecode(target)))
            if not path.resolve().is_relative_to(_watching[-1]):
                _seen.append(f"{event} {path}")


def _writes(arguments: tuple) -> bool:
    _, mode, flags = arguments
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    by_mode = isinstance(mode, str) and any(letter in mode for letter in "wax+")
    return by_mode or (isinstance(flags, int) and bool(flags & writing))


sys.addaudithook(_audit)

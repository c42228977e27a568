"""What libraries print of an error that they also raise: of a full disk, thousands of lines.

Orbax writes many arrays at once. The first that fails is raised, and `checkpoint` says it in one
sentence; the others find that nobody waits for them any more, and each prints a traceback for that,
at any time until the process ends, also into the middle of the sentence. TensorBoard's writer
raises where `report` closes it, and fails once more at the process's end.
"""

import logging
import sys
import threading
import traceback
import warnings
from types import TracebackType

ABANDONED = "exception was never retrieved"  # asyncio, of a result that nobody waits for
NEVER = "coroutine .* was never awaited"  # Python, of one that nobody began to wait for
CLOSED = "Event loop is closed"  # TensorStore, as it hands over such a result
ORBAX = ("_SignalingThread.run() raised an exception", "Save Finalize thread", "Failed to run")


def drop_duplicate_errors() -> None:
    """For this process, from now on. Everything else is said as before."""
    logging.getLogger("asyncio").addFilter(_not_asyncio)
    logging.getLogger("absl").addFilter(_not_orbax)
    warnings.filterwarnings("ignore", NEVER, RuntimeWarning)
    unraisable, in_thread = sys.unraisablehook, threading.excepthook

    def other_unraisable(what: "sys.UnraisableHookArgs") -> None:
        if str(what.exc_value) != CLOSED and not _of_board(what.exc_value, what.exc_traceback):
            unraisable(what)

    def other_in_thread(what: threading.ExceptHookArgs) -> None:
        if not _of_board(what.exc_value, what.exc_traceback):
            in_thread(what)

    sys.unraisablehook, threading.excepthook = other_unraisable, other_in_thread


def _not_asyncio(record: logging.LogRecord) -> bool:
    return ABANDONED not in record.getMessage()


def _not_orbax(record: logging.LogRecord) -> bool:
    raised = any(words in record.getMessage() for words in ORBAX)
    return not (raised and "orbax" in record.pathname)


def _of_board(error: BaseException | None, trace: TracebackType | None) -> bool:
    files = [frame.filename for frame in traceback.extract_tb(trace)]
    return isinstance(error, OSError) and any("tensorboardX" in file for file in files)

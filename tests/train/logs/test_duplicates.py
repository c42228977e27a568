"""What is said twice is said once; what is said once is still said."""

import asyncio
import logging
import sys
import threading
from types import SimpleNamespace

import pytest

from dit_jax.train.logs import duplicates


@pytest.fixture
def said(monkeypatch):
    """Errors that reach the hooks as they were before, and records that are logged."""
    heard = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    monkeypatch.setattr(threading, "excepthook", heard.append)
    loggers = [logging.getLogger(name) for name in ("asyncio", "absl")]
    before = [(list(logger.filters), list(logger.handlers)) for logger in loggers]
    listener = logging.Handler()
    listener.emit = heard.append
    for logger in loggers:
        logger.addHandler(listener)
    duplicates.drop_duplicate_errors()
    yield heard
    for logger, (filters, handlers) in zip(loggers, before, strict=True):
        logger.filters[:], logger.handlers[:] = filters, handlers


def unraisable(error):
    return SimpleNamespace(exc_value=error, exc_traceback=error.__traceback__)


def in_thread(error):
    return threading.ExceptHookArgs((type(error), error, error.__traceback__, None))


def test_errors_that_nobody_can_catch(said):
    sys.unraisablehook(unraisable(RuntimeError("Event loop is closed")))
    assert not said
    for error in (RuntimeError("no more memory"), OSError("handle is closed")):
        others = [unraisable(error), in_thread(error)]
        sys.unraisablehook(others[0])
        threading.excepthook(others[1])
        assert said[-2:] == others


def test_errors_of_the_board(said, tmp_path):
    from tensorboardX.record_writer import RecordWriter

    with pytest.raises(OSError, match="No such file") as caught:
        RecordWriter(str(tmp_path / "nowhere" / "events"))
    sys.unraisablehook(unraisable(caught.value))
    threading.excepthook(in_thread(caught.value))
    assert not said


def test_results_that_nobody_waits_for(said):
    async def fail():
        raise ValueError("no space left")

    async def both():
        first, second = (asyncio.ensure_future(fail()) for _ in range(2))
        with pytest.raises(ValueError, match="no space left"):
            await first
        await asyncio.sleep(0)
        del second

    asyncio.run(both())
    assert not said
    logging.getLogger("asyncio").error("a socket was left open")
    assert [record.getMessage() for record in said] == ["a socket was left open"]


def test_what_orbax_raises_too(said):
    def log(path, text):
        record = logging.LogRecord("absl", logging.ERROR, path, 1, text, (), None)
        logging.getLogger("absl").handle(record)
        return record

    failed = "[process=0] _SignalingThread.run() raised an exception: disk full"
    log("/lib/orbax/checkpoint/futures.py", failed)
    assert not said
    kept = [log("/lib/orbax/checkpoint/manager.py", "cannot delete step 4")]
    kept.append(log("/lib/grain/reader.py", failed))
    assert said == kept

"""Ask workers for keys until all is answered or the time is over, and keep each answer at once."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from benchmarks.gpu_day.parts import Part

ROOT = Path(__file__).resolve().parents[2]
GRACE = 20.0  # s between SIGTERM and SIGKILL: a training run saves
LEAST = 20.0  # s that must be left to start a process

Line = dict[str, Any]


class Ledger:
    """The lines that are known, and the file that they are in."""

    def __init__(self, path: Path):
        self.path = path
        text = path.read_text().splitlines() if path.is_file() else []
        # Of a call that was cut off, half a line may be left.
        whole = [line for line in text if line.endswith("}")]
        self.lines: list[Line] = [json.loads(line) for line in whole]
        if len(whole) < len(text):
            path.write_text("".join(f"{line}\n" for line in whole))

    def add(self, line: Line) -> None:
        if line in self.lines:
            return
        self.lines.append(line)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)

    def left(self, part: str, keys: tuple[str, ...]) -> list[str]:
        """Of `keys`, those without an answer; a failure is one, too."""
        known = {line.get("key") for line in self.lines if line["part"] == part}
        return [key for key in keys if key not in known]


class Asked:
    """Where and for how long workers run."""

    def __init__(self, *, work: Path, out: Path, deadline: float, env: dict[str, str]):
        self.work, self.out, self.deadline, self.env = work, out, deadline, env

    def time_left(self) -> float:
        return self.deadline - time.monotonic()

    def command(self, part: Part, keys: list[str]) -> list[str]:
        module = f"benchmarks.gpu_day.{part.worker}"
        where = [f"--work={self.work}", f"--out={self.out}"]
        return [sys.executable, "-m", module, *where, "--only", *keys]

    def part(self, name: str, part: Part, *, small: bool, ledger: Ledger) -> None:
        """Answers to what a part asks and the ledger lacks, as far as the time goes."""
        if reason := part.lacks():
            ledger.add({"part": name, "skipped": reason})
            return
        left = ledger.left(name, part.asked(small=small))
        while left and self.time_left() > LEAST:
            for line in self.attempt(part, left):
                ledger.add({"part": name, "key": left[0]} | line)
                left = ledger.left(name, tuple(left))

    def attempt(self, part: Part, keys: list[str]) -> Iterator[Line]:
        """What one process says; the last line is why the first key without an answer has none,
        unless the time was over."""
        with (self.out / "log.txt").open("a") as log, self.started(part, keys, log) as process:
            said: queue.SimpleQueue[str | None] = queue.SimpleQueue()
            threading.Thread(target=_read, args=(process.stdout, said), daemon=True).start()
            left, since = set(keys), time.monotonic()
            while self.time_left() > 0:
                ended = process.poll() is not None  # what it started may keep its pipe open
                try:
                    text = said.get(timeout=min(1.0, max(0.0, self.time_left())))
                except queue.Empty:
                    if ended:
                        break
                    if time.monotonic() - since > part.limit:
                        yield {"error": f"no answer within {part.limit:g} s"}
                        return
                    continue
                if text is None:
                    break
                if text.startswith("{") and text.endswith("}\n"):
                    line, since = json.loads(text), time.monotonic()
                    left.discard(line["key"])
                    yield line
                else:
                    log.write(text)
            else:
                return
            if left:
                yield {"error": f"its process ended with status {process.wait()}"}

    @contextlib.contextmanager
    def started(self, part: Part, keys: list[str], log: IO[str]) -> Iterator[subprocess.Popen]:
        """A worker with a process group of its own, which ends with the context."""
        pipes = dict(stdout=subprocess.PIPE, stderr=log, text=True)
        env = os.environ | self.env | part.env
        command = self.command(part, keys)
        process = subprocess.Popen(command, cwd=ROOT, env=env, start_new_session=True, **pipes)
        try:
            yield process
        finally:
            _end(process)


def end_with_me() -> None:
    """SIGTERM ends this process as an error would, and so the worker."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def _read(pipe: IO[str], said: queue.SimpleQueue) -> None:
    with pipe:
        for text in pipe:
            said.put(text)
    said.put(None)


def _end(process: subprocess.Popen) -> None:
    """SIGTERM for the group; SIGKILL for what is left of it after `GRACE`."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

"""Several processes that end together: what stops one is said by all, in a sentence with its host.

A collective waits for ever for a process that is not there. So each process has a thread that says
every BEAT seconds that it is alive, in JAX's coordination service, and reads what the others say:
one that ended with an error leaves its sentence, one that was not heard of for `lost()` seconds is
gone. JAX itself only aborts, after longer, and naming nobody; where that comes first, as when the
coordinator's process is killed, `last_words` speaks.
"""

import atexit
import contextlib
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from jax._src import distributed  # the service; jax.distributed starts it, and shows nothing of it

BEAT = 1.0
# Seconds, from the environment: for all to come, and without a word of one until it is gone.
START, LOST = "DIT_JAX_START_SECONDS", "DIT_JAX_LOST_SECONDS"
AGAIN = "the same command on all hosts continues from the last checkpoint"
OF_THE_NETWORK = re.compile(
    r"Gloo|NCCL|^(UNKNOWN|INTERNAL|UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED): ", re.M
)
LEFT = "left"

_watch: "Watch | None" = None


def seconds(name: str) -> int:
    """START or LOST; raises ValueError where the environment says no whole number above 0."""
    text = os.environ.get(name, {START: "300", LOST: "120"}[name])
    if not text.isdigit() or not int(text):
        raise ValueError(f"{name} is {text!r}; expected whole seconds above 0.")
    return int(text)


class LastWords:
    """The program beside this one that speaks if it cannot."""

    def __init__(self):
        program = [sys.executable, "-S", str(Path(__file__).with_name("last_words.py"))]
        how = dict(stdin=subprocess.PIPE, text=True, start_new_session=True)
        self._process = subprocess.Popen([*program, str(os.getpid())], **how)

    def __call__(self, **known: str) -> None:
        """From now on: `coordinator`, `there` and `gone`, or nothing."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{json.dumps(known) if known else ''}\n")
            self._process.stdin.flush()


class Watch:
    """This process among the others, from when they have met until they part."""

    def __init__(self, last_words: Callable[..., None]):
        known = distributed.global_state  # jax.process_index() would start JAX's devices
        self.rank, self.count, self._client = known.process_id, known.num_processes, known.client
        self._last_words = last_words
        self._numbers, self._over = itertools.count(), threading.Event()
        self._set("host", socket.gethostname())
        self.meet("hosts")
        self.hosts = self._get("host")
        killed = f"error: {self.name(self.rank)} was killed; {AGAIN}."
        gone = f"error: {self.name(0)}, where all meet, is gone; {AGAIN}."
        last_words(
            coordinator=known.coordinator_address,
            there=killed,
            gone=gone if self.rank else killed,
        )
        self._looked = time.monotonic()
        for work in (self._look, self._time):
            threading.Thread(target=work, name="watch", daemon=True).start()

    def name(self, rank: int) -> str:
        return f"{self.hosts[rank]} (process {rank} of {self.count})"

    def meet(self, name: str) -> None:
        """Until every process is here."""
        self._client.wait_at_barrier(f"dit_jax/{name}", 1000 * seconds(START))

    def same(self, what: dict[str, str]) -> None:
        """Until every process is here; raises ValueError where the first one has other values."""
        turn = f"same{next(self._numbers)}"
        self._set(turn, json.dumps(what))
        first = f"dit_jax/{turn}/0"
        theirs = json.loads(self._client.blocking_key_value_get(first, 1000 * seconds(START)))
        other = [key for key in sorted({*what, *theirs}) if what.get(key) != theirs.get(key)]
        if other:
            listed = "; ".join(f"{k}: {what.get(k)}, not {theirs.get(k)}" for k in other[:3])
            raise ValueError(
                f"{self.name(self.rank)} differs from {self.name(0)} in {listed}; expected the same"
                " command, code and data on every host."
            )
        self.meet(turn)

    def tell(self, sentence: str) -> None:
        """To all others why this process ends; LEFT, where nothing is wrong."""
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # the service is gone
            self._set("said", sentence)
        if self.rank == 0 and sentence != LEFT:
            time.sleep(3 * BEAT)  # it is this process that they hear it from

    def leave(self) -> None:
        self._over.set()
        self._last_words()

    def _look(self) -> None:
        beats, heard = {}, dict.fromkeys(range(self.count), time.monotonic())
        for beat in itertools.count():
            if self._over.wait(BEAT):
                return
            try:
                self._set("beat", str(beat))
                now, said = self._get("beat"), self._get("said")
            except jax.errors.JaxRuntimeError:
                time.sleep(5 * BEAT)  # JAX ends this process; its last words are prepared
                os._exit(1)
            for rank in now.keys() - said.keys():
                if beats.get(rank) != now[rank]:
                    heard[rank] = time.monotonic()
            beats, self._looked = now, time.monotonic()
            for rank, sentence in said.items():
                if sentence != LEFT and rank != self.rank:
                    named = sentence.startswith(self.hosts[rank])
                    self._end(sentence if named else f"{self.name(rank)} ended: {sentence}")
            for rank in heard.keys() - said.keys() - {self.rank}:
                if time.monotonic() - heard[rank] > seconds(LOST):
                    self._end(f"{self.name(rank)} has not answered for {seconds(LOST)} s; {AGAIN}.")

    def _time(self) -> None:
        """Where the coordinator hangs, so does who asks it."""
        while not self._over.wait(BEAT):
            if time.monotonic() - self._looked > seconds(LOST) + BEAT:
                self._end(f"{self.name(0)} has not answered for {seconds(LOST)} s; {AGAIN}.")

    def _end(self, sentence: str) -> None:
        if self._over.is_set():  # this process speaks for itself, or is done
            return
        self.leave()
        os.write(2, f"\nerror: {sentence}\n".encode())  # a progress bar may stand on the line
        if self.rank == 0:
            time.sleep(3 * BEAT)  # the others look, too
        os._exit(1)

    def _set(self, key: str, value: str) -> None:
        self._client.key_value_set(f"dit_jax/{key}/{self.rank}", value, allow_overwrite=True)

    def _get(self, key: str) -> dict[int, str]:
        found = self._client.key_value_dir_get(f"dit_jax/{key}/")
        return {int(name.rpartition("/")[2]): value for name, value in found}


def start(last_words: LastWords) -> None:
    """Watch over the processes that have just met."""
    global _watch
    _watch = Watch(last_words)


def same(what: Callable[[], dict[str, str]]) -> None:
    """Raise ValueError, in a sentence with both hosts, where another process has other values."""
    if _watch is not None:
        _watch.same(what())


@contextlib.contextmanager
def together(sentence: Callable[[Exception], str]) -> Iterator[None]:
    """Tell the other processes how this one ends, and what stopped it in a sentence."""
    try:
        yield
    except Exception as error:
        if _watch is None:
            raise
        if OF_THE_NETWORK.search(str(error)):  # another process's end, most likely
            time.sleep(seconds(LOST) + 5 * BEAT)
        _watch.leave()
        _watch.tell(sentence(error))
        atexit.register(_exit)  # JAX's own exit would wait for the others, who do not come
        raise
    if _watch is not None:
        _watch.tell(LEFT)
        _watch.leave()


def _exit() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)

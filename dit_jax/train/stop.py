"""How a run ends early: SIGTERM, Ctrl-C, or its minutes are over."""

import signal
import time

from dit_jax.train.placement import hosts


class Stopped(Exception):
    """The run is to end, and an evaluation, or the computing of features, is not at its end."""


class Stop:
    """Turns SIGTERM and the first Ctrl-C into a request that the loop grants between two steps."""

    def __init__(self, minutes: float):
        self.asked = False
        self._deadline = time.monotonic() + 60 * minutes if minutes else float("inf")

    def __enter__(self) -> "Stop":
        self._previous = {s: signal.signal(s, self._ask) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def request(self) -> int:
        """What this process requests, as `hosts.Agreement` takes it."""
        if self.asked:
            return hosts.ASKED
        return hosts.TIME_OVER if self.late else hosts.GO_ON

    @property
    def late(self) -> bool:
        """Whether the run's minutes are over."""
        return time.monotonic() > self._deadline

    def _ask(self, number: int, frame) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True

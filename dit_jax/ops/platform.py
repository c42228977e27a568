"""Which kind of device a program is written for: this process's, unless another is planned for.

Operations that differ between devices ask `platform`, not JAX: a program may be compiled here for
a device that is elsewhere.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_PLANNED: contextvars.ContextVar[str | None] = contextvars.ContextVar("planned", default=None)


def platform() -> str:
    """One of "cpu", "gpu", "tpu"."""
    return _PLANNED.get() or jax.default_backend()


@contextlib.contextmanager
def planned_for(kind: str) -> Iterator[None]:
    """Programs that are traced inside are for devices of this kind."""
    before = _PLANNED.set(kind)
    try:
        yield
    finally:
        _PLANNED.reset(before)

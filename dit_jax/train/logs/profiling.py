"""Tracing some steps of a run: `--config.profile_steps=10:13` traces steps 10, 11 and 12.

The trace, in `<workdir>/profile`, is read by TensorBoard's profile plugin (`pip install
tensorboard-plugin-profile`) and by Perfetto. Rows are named after the model's components.
"""

from pathlib import Path
from typing import Any

import jax
from absl import logging

FOLDER = "profile"


class Profile:
    """Starts and stops the trace; use as a context manager, which ends one that is running."""

    def __init__(self, steps: range, workdir: Path):
        self._steps, self._folder = steps, workdir / FOLDER
        self._running = False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *error) -> None:
        self._stop(waiting_for=None)

    def before(self, step: int, state: Any) -> None:
        """Call it before step `step` (from 1) with what the step before it made."""
        if self._running and step not in self._steps:
            self._stop(waiting_for=state)
        if not self._running and step in self._steps:
            jax.block_until_ready(state)  # the step before is none of ours
            jax.profiler.start_trace(str(self._folder), profiler_options=_options())
            self._running = True

    def _stop(self, *, waiting_for: Any) -> None:
        if not self._running:
            return
        jax.block_until_ready(waiting_for)
        jax.profiler.stop_trace()
        self._running = False
        logging.info("The trace of steps %s is in %s.", self._steps, self._folder)


def _options() -> jax.profiler.ProfileOptions:
    """Without Python's own calls: tracing those can end a thread that starts meanwhile, and a
    checkpoint is written by such threads (CPython 3.11, `threading.setprofile`)."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    return options

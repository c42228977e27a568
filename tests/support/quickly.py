"""For tests of behaviour, not of numbers: programs that compile in a fraction of the time.

They are barely optimised, and kept in a folder that processes share.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import jax
from runs import compiling_once

from dit_jax.predict.programs import programs_of

# For the command line: quickstart's model with what compiles fastest.
SHALLOW = (
    "--config.model.decoder_depth=1",
    "--config.model.text_layer=1",
    "--config.optim.name=adam",
)
SETTINGS = {
    "jax_disable_most_optimizations": True,
    "jax_persistent_cache_min_compile_time_secs": 0.0,
}


@contextlib.contextmanager
def compiled_quickly(folder: Path) -> Iterator[None]:
    """In this process; whoever predicts afterwards compiles anew."""
    before = {name: jax.config.values[name] for name in SETTINGS}
    programs_of.cache_clear()
    for name, value in SETTINGS.items():
        jax.config.update(name, value)
    try:
        with compiling_once(folder):
            yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        programs_of.cache_clear()


def environment(folder: Path) -> dict[str, str]:
    """The same for another process."""
    settings = {name.upper(): str(value) for name, value in SETTINGS.items()}
    return os.environ | settings | {"JAX_COMPILATION_CACHE_DIR": str(folder)}

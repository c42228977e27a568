"""Compiled programs that are kept on disk: the second start of a run compiles nothing.

JAX's cache, keyed by program, compiler, its options and the kind of device, wherever the folder is.
"""

import os
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from dit_jax import storage

VARIABLE = "JAX_COMPILATION_CACHE_DIR"  # JAX's own, which goes before the config
OFF = "off"


def folder(setting: str, workdir: Path) -> os.PathLike | None:
    """Where programs are kept: "" is inside the run's folder, "off" nowhere."""
    if os.environ.get(VARIABLE):
        return storage.direct(os.environ[VARIABLE])
    if setting == OFF:
        return None
    return storage.direct(setting or workdir / "compiled")


def keep_compiled(setting: str, workdir: Path) -> None:
    """Use that folder from now on."""
    where = folder(setting, workdir)
    jax.config.update("jax_compilation_cache_dir", None if where is None else os.fspath(where))
    # A run has few programs, and the small ones together also take seconds.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # JAX 0.10 makes the path of autotuning's own cache part of the key, so that a run that was
    # renamed or copied would compile everything anew; 0.11 does not, and this can go with 0.10.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    compilation_cache.reset_cache()  # which remembers the folder it was first asked about

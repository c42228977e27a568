"""The command line in this process: what people type, without the seconds that a start takes."""

import contextlib
import io
import subprocess

from absl import logging
from absl.testing import flagsaver

from dit_jax import cli


def launched(*arguments) -> subprocess.CompletedProcess:
    """As `subprocess.run` of `python launch.py` with these arguments and captured text."""
    flags, verbosity = flagsaver.save_flag_values(), logging.get_verbosity()
    out, err = io.StringIO(), io.StringIO()
    words = ["launch.py", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli.run(words)
    finally:
        flagsaver.restore_flag_values(flags)
        logging.set_verbosity(verbosity)
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())

"""The command line in this process: what people type, without the seconds that a start takes."""

import contextlib
import io
import subprocess
import sys
import warnings
from unittest import mock

from absl import logging
from absl.testing import flagsaver

from dit_jax import cli


def launched(*arguments) -> subprocess.CompletedProcess:
    """As `subprocess.run` of `python launch.py` with these arguments and captured text."""
    flags, verbosity = flagsaver.save_flag_values(), logging.get_verbosity()
    out, err = io.StringIO(), io.StringIO()
    words = ["launch.py", *map(str, arguments)]
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
            mock.patch.object(sys, "argv", words),  # where ml_collections looks for --config.…
        ):
            # ml_collections 1.1.0 imports config files by it
            warnings.filterwarnings("ignore", r"the load_module\(\) method", DeprecationWarning)
            status = cli.run(words)
    finally:
        flagsaver.restore_flag_values(flags)
        logging.set_verbosity(verbosity)
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())

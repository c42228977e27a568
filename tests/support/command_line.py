"""The command line in a process of its own, as people start it."""

import subprocess
import sys

from places import ROOT


def launched(*arguments) -> subprocess.CompletedProcess:
    """`python launch.py` with these arguments and captured text.

    A process of its own: absl reads a config's flags once a process.
    """
    command = [sys.executable, "launch.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)

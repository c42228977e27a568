"""What the suite tells XLA is what the XLA at hand knows: of anything else a process dies."""

import os
import subprocess
import sys

from compiler import COMPILES_FASTER, FLAGS, accepted


def test_flags_are_asked_for():
    assert accepted(FLAGS[0])
    assert not accepted("--xla_no_such_flag=1")
    assert set(COMPILES_FASTER.split()) <= set(FLAGS)


def test_xla_takes_them_all():
    how = dict(env=os.environ | {"XLA_FLAGS": COMPILES_FASTER}, capture_output=True, text=True)
    done = subprocess.run([sys.executable, "-c", "import jax; jax.devices()"], **how, timeout=120)
    assert done.returncode == 0, done.stderr

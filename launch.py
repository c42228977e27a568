"""The command line of a checkout: `python launch.py --help`. Installed, it is `dit-jax`."""

import sys

from dit_jax.cli import run

if __name__ == "__main__":
    sys.exit(run(sys.argv))

"""`launch.py` with the smaller `tiny` of `runs.shrink`; run as a program, with its arguments."""

import sys

import pytest
from runs import shrink

import launch

if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        sys.exit(launch.run(sys.argv))

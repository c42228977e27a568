"""The benchmarks start as the docs say, from a checkout that is not installed."""

import re
import subprocess
import sys

import pytest
from places import ROOT

FOLDER = ROOT / "benchmarks"
COMMANDS = sorted(p.stem for p in FOLDER.glob("*.py") if "__main__" in p.read_text())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_starts(name):
    if re.search(r"^import torch$", (FOLDER / f"{name}.py").read_text(), re.MULTILINE):
        pytest.importorskip("torch")
    assert f"python -m benchmarks.{name} " in (FOLDER / f"{name}.py").read_text()
    command = [sys.executable, "-m", f"benchmarks.{name}", "--help"]
    done = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout

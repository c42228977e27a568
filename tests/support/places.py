"""Where things are in a checkout."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"
TREES = ROOT / "tests" / "trees"  # every parameter of every row
# For another process that imports the project, its configs and what tests share.
PYTHONPATH = f"{SUPPORT}:{ROOT}"

"""What the workers share: they are asked for keys, and print a line of JSON for each at once."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

TOKENS = 20


def parsed(doc: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--only", nargs="+", required=True, help="keys of benchmarks/gpu_day/parts")
    parser.add_argument("--work", type=Path, default=Path("runs/gpu_day"), help="for runs")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_day"), help="for results")
    return parser.parse_args()


def answer(key: str, make: Callable[[], dict]) -> None:
    """Print what `make` returns; where it raises, why."""
    try:
        found = make()
    except Exception as error:  # the next key may do
        said = str(error).strip() or "it says no more"
        found = {"error": f"{type(error).__name__}: {said.splitlines()[0][:300]}"}
    print(json.dumps({"key": key} | found), flush=True)


def sizes(row: str) -> dict[str, int]:
    """Pixels, pictures and timed steps: `tiny` is for a CPU."""
    small = row == "tiny"
    return dict(size=128, batch=2, steps=2) if small else dict(size=512, batch=64, steps=10)

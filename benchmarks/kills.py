"""Kill a training run again and again, without warning, and see whether anything is lost.

    python -m benchmarks.kills --kills=30

A short run of the quickstart's model is made once undisturbed. Then the same command is started,
killed with SIGKILL at a random moment, and started again, until it has been killed so often and has
come to its end each time. Models, metrics, scores and the order of the data must be those of the
undisturbed run, bit for bit. Prints a line a kill and writes benchmarks/results/kills.md.
"""

import argparse
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "kills.md"
# Saved every 4 steps, scored every 10; dropout and moving average are on: they have a state too.
SETTINGS = (
    "--config=configs/quickstart.py",
    "--config.model.image_size=64",
    "--config.model.dropout=true",
    "--config.optim.batch_size=8",
    "--config.optim.max_steps=40",
    "--config.data.shapes.length=400",
    "--config.data.shapes.eval_length=24",
    "--config.data.eval_splits=val,testA",
    "--config.eval.batch_size=8",
    "--config.eval.every_steps=10",
    "--config.checkpoint.every_steps=4",
    "--config.train.log_every=1",
    "--config.train.pictures=4",
)


@dataclasses.dataclass(frozen=True)
class Command:
    """The training command, whose compiled programs are kept in a folder between starts."""

    cache: Path
    settings: tuple[str, ...] = SETTINGS
    program: Path = ROOT / "launch.py"

    def start(self, workdir: Path) -> subprocess.Popen:
        env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(self.cache)}
        env |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        command = [sys.executable, str(self.program), *self.settings, f"--workdir={workdir}"]
        quiet = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return subprocess.Popen(command, cwd=ROOT, env=env, **quiet)

    def finish(self, workdir: Path) -> None:
        """Run to the end; raises RuntimeError with what it said where it fails."""
        process = self.start(workdir)
        said = process.communicate()[0]
        if process.returncode:
            raise RuntimeError(f"exit status {process.returncode}: {said}")

    def kill_when(self, workdir: Path, ripe: Callable[[], bool]) -> bool:
        """Start, and kill as soon as `ripe`; False where the run came to its end before."""
        process = self.start(workdir)
        while not ripe():
            if process.poll() is not None:
                said = process.communicate()[0]
                if process.returncode:
                    raise RuntimeError(f"exit status {process.returncode}: {said}")
                return False
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return True


def outcome(workdir: Path) -> dict[str, bytes]:
    """Everything that a run leaves and that must not depend on kills, by name."""
    kept = {f"{m}/model.safetensors": workdir / m / "model.safetensors" for m in MODELS}
    kept |= {f"eval/{path.name}": path for path in (workdir / "eval").glob("*.json")}
    found = {name: path.read_bytes() for name, path in kept.items()}
    found["scores"] = (workdir / "scores.json").read_bytes()
    for line in (workdir / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line)
        values.pop("train/images_per_s", None)
        where = f"metrics of step {values['step']}, {min(values.keys() - {'step'})}"
        found[where] = json.dumps(values, sort_keys=True).encode()
    return found


MODELS = ("model", "model_final")


def moment(workdir: Path) -> str:
    """What the run was doing, by what it has left."""
    checkpoints = workdir / "checkpoints"
    names = [path.name for path in checkpoints.iterdir()] if checkpoints.is_dir() else []
    saved = [int(name) for name in names if name.isdigit()]
    if any(path.name.startswith(".model") for path in workdir.glob(".*")):
        return "exporting a model"
    if any("tmp" in name for name in names):
        return "saving" if saved else "saving for the first time"
    lines = (workdir / "metrics.jsonl").read_text() if (workdir / "metrics.jsonl").is_file() else ""
    steps = [json.loads(line) for line in lines.splitlines() if line.endswith("}")]
    last = steps[-1]["step"] if steps else 0
    if last and last % 10 == 0 and last not in saved:
        return "scoring"
    if last == 40:
        return "after the last step"
    return "training" if last > max(saved, default=0) else "starting or between"


def disturbed(
    command: Command, folder: Path, expected: dict[str, bytes], *, kills: int, lasts: float
) -> Counter:
    """So many kills at random times, over as many runs as it takes; counts what they met."""
    met: Counter = Counter()
    runs, rng = 0, random.Random(0)
    while met.total() < kills:
        runs += 1
        workdir = folder / f"run{runs}"
        while met.total() < kills:
            deadline = time.monotonic() + rng.uniform(0, lasts)
            if not command.kill_when(workdir, lambda end=deadline: time.monotonic() > end):
                break
            what = moment(workdir)
            met[what] += 1
            print(f"kill {met.total()}: {what}", flush=True)
        command.finish(workdir)
        compare(expected, outcome(workdir))
    met["runs"] = runs
    return met


def compare(expected: dict[str, bytes], found: dict[str, bytes]) -> None:
    """Raise AssertionError naming everything that differs."""
    different = names_of_different(expected, found)
    assert not different, f"a killed run left other bytes: {', '.join(different)}"


def names_of_different(expected: dict[str, bytes], found: dict[str, bytes]) -> list[str]:
    names = sorted(expected.keys() | found.keys())
    return [name for name in names if expected.get(name) != found.get(name)]


def once(command: Command, folder: Path) -> dict:
    """One kill after the first save, on a device that may not repeat its own bits: what differs
    from an undisturbed run, and, where something does, what differs between two of these."""
    command.finish(folder / "whole")
    expected, killed = outcome(folder / "whole"), folder / "killed"
    checkpoints = killed / "checkpoints"
    if not command.kill_when(killed, lambda: any(p.name.isdigit() for p in checkpoints.glob("*"))):
        raise RuntimeError("the run came to its end before it was killed")
    met = moment(killed)
    command.finish(killed)
    found = outcome(killed)
    told = {"met": met, "results": len(expected), "different": names_of_different(expected, found)}
    if told["different"]:
        command.finish(folder / "again")
        again = outcome(folder / "again")
        told["undisturbed_different"] = names_of_different(expected, again)
        told["apart"], told["undisturbed_apart"] = apart(expected, found), apart(expected, again)
    return told


def apart(expected: dict[str, bytes], found: dict[str, bytes]) -> float:
    """The largest difference of two last models' weights."""
    ours, theirs = (load(x["model_final/model.safetensors"]) for x in (expected, found))
    return max(float(np.abs(ours[name] - theirs[name]).max(initial=0)) for name in ours)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=30)
    kills = parser.parse_args().kills
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = Command(folder / "cache")
        command.finish(folder / "warm")  # fills the cache
        start = time.monotonic()
        command.finish(folder / "whole")
        lasts = time.monotonic() - start
        expected = outcome(folder / "whole")
        compare(expected, outcome(folder / "warm"))
        print(f"An undisturbed run lasts {lasts:.1f} s and leaves {len(expected)} results.")
        met = disturbed(command, folder, expected, kills=kills, lasts=lasts)
    runs = met.pop("runs")
    rows = "\n".join(f"| {what} | {count} |" for what, count in met.most_common())
    text = (
        "# Killed at random, nothing lost\n\n"
        f"    python -m benchmarks.kills --kills={kills}\n\n"
        f"{kills} times SIGKILL at a moment drawn uniformly from the {lasts:.0f} s that an"
        f" undisturbed run lasts (40 steps, saved every 4, scored every 10), over {runs} runs, each"
        f" brought to its end by the same command. All {len(expected)} results (both models,"
        " metrics of every step, all scores) were bit for bit those of the undisturbed run, every"
        " time.\n\n| the kill met the run | times |\n|---|---|\n"
        f"{rows}\n"
    )
    RESULTS.write_text(text)
    print(text)


if __name__ == "__main__":
    main()

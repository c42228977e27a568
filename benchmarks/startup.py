"""How long until the first step, and what the loop adds to a step.

    python -m benchmarks.startup [--row ROW] [--size N] [--steps N] [--rounds N]

1. Compilation of a row's forward pass and training step, and the first training step in a fresh
   process without and with JAX's compilation cache (a process each, weights drawn at random).
2. The quickstart's training loop, on a batch that is always ready, beside its bare jitted step on
   the same batch: they take turns, `--steps` steps a round; the goal is at most 5 % on top.
3. The commands: `import dit_jax`, `--help`, and a mask of the model that comes with the package, in
   a fresh process each.

The page is benchmarks/results/startup.md.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import jax

from benchmarks import synthetic
from benchmarks.page import Page
from dit_jax.allocator import keep_freed_memory
from dit_jax.data import shapes

ROOT = Path(__file__).resolve().parents[1]


def first_step(row: str, size: int, cache: str) -> dict[str, float]:
    """Seconds of compiling and of the first step, in this process."""
    if cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    model = synthetic.Model(synthetic.architecture(row, image_size=size))
    batch, state = synthetic.batch(size=size, count=1, tokens=20), model.start()
    jax.block_until_ready(state)
    start = time.perf_counter()
    model.forward.lower(model.params, batch).compile()
    seconds = {"forward, compiled": time.perf_counter() - start}
    start = time.perf_counter()
    training = model.training().lower(state, batch).compile()
    seconds["training, compiled"] = time.perf_counter() - start
    jax.block_until_ready(training(state, batch))
    seconds["first step, compilation included"] = time.perf_counter() - start
    return seconds


def in_a_process(row: str, size: int, cache: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.startup"]
    command += ["--row", row, "--size", str(size), "--child", cache]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


class Ready:
    """Batches that are always there: one, again and again."""

    skipped_rows, skipped = 0, frozenset()

    def __init__(self, batches):
        self.batches, self.batch = batches, next(batches)

    def __getattr__(self, name):
        return getattr(self.batches, name)

    def __iter__(self):
        return self

    def __next__(self):
        return self.batch


def loop_and_step(folder: Path, *, steps: int, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds a step of the loop and of the bare step, of every round."""
    from dit_jax.config import Config
    from dit_jax.configs import quickstart
    from dit_jax.train import loop
    from dit_jax.train import step as train_steps
    from dit_jax.train.checkpoint import Checkpoints
    from dit_jax.train.run import Run
    from dit_jax.train.stop import Stop

    values = quickstart.get_config()
    values.eval.every_steps = values.checkpoint.every_steps = 0
    config = Config.from_dict(values)
    run = Run.of(config, folder)
    run = dataclasses.replace(run, batches=Ready(run.batches), every=0)
    with Stop(0.0) as stop, Checkpoints(folder, config.checkpoint) as checkpoints:
        training = loop.Training(run, stop, checkpoints, lease=None)  # of a folder to save in
        training.pause = lambda report: training.step >= until  # neither scores nor saves
        batch = train_steps.place_batch(run.batches.batch, run.model.mesh)
        looped, bare = [], []
        for number in range(rounds + 1):
            until, start = training.step + steps, time.perf_counter()
            training.loop()
            jax.block_until_ready(training.state.step)
            middle = time.perf_counter()
            for _ in range(steps):
                training.state, metrics = training.train_step(training.state, batch, training.key)
                jax.block_until_ready(metrics)
            end = time.perf_counter()
            if number:  # the first round compiles
                looped.append((middle - start) / steps)
                bare.append((end - middle) / steps)
        run.batches.close()
    return looped, bare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--row", default="ldit_vit_b")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    keep_freed_memory()
    if options.child is not None:
        print(json.dumps(first_step(options.row, options.size, options.child)))
        return
    with Page("startup", "From the start to the first step, and what the loop adds") as page:
        compiling(page, options)
        looping(page, options)
        commands(page, rounds=options.rounds)


def compiling(page: Page, options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        caches = {"no cache": "", "cache, empty": folder, "cache, filled": folder}
        page.add(f"| {options.row}, {options.size} px, s | " + " | ".join(caches) + " |")
        page.add("|---|---|---|---|")
        columns = [in_a_process(options.row, options.size, cache) for cache in caches.values()]
        for name in columns[0]:
            page.add(f"| {name} | " + " | ".join(f"{one[name]:.1f}" for one in columns) + " |")
    page.add()


def looping(page: Page, options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        times = loop_and_step(Path(folder), steps=options.steps, rounds=options.rounds)
    more = statistics.median(a / b for a, b in zip(*times, strict=True)) - 1
    page.add("| quickstart | ms a step |")
    page.add("|---|---|")
    for name, seconds in zip(("loop", "bare step"), times, strict=True):
        page.add(f"| {name} | {1000 * statistics.median(seconds):.1f} |")
    rounds = f"median of {options.rounds} rounds' own ratios, {options.steps} steps each"
    page.add(f"\nThe loop adds {100 * more:.1f} % ({rounds}).")


def commands(page: Page, *, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cv2.imwrite(str(folder / "scene.png"), shapes.scene("val", 0, size=256).image()[..., ::-1])
        mask = ["launch.py", "--mode=predict", "--model=mini", "--text=the red star", "--overwrite"]
        mask += [f"--images={folder / 'scene.png'}", f"--out={folder / 'masks'}"]
        cached = {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
        asked = {
            "`import dit_jax`": (["-c", "import dit_jax"], {}),
            "`dit-jax --help`": (["launch.py", "--help"], {}),
            "`dit-jax predict --model=mini`": (mask, {}),
            "the same, with JAX_COMPILATION_CACHE_DIR, filled": (mask, cached),
        }
        took(mask, cached)
        page.add("\n| command | s |")
        page.add("|---|---|")
        for what, (words, more) in asked.items():
            seconds = [took(words, more) for _ in range(rounds)]
            page.add(f"| {what} | {statistics.median(seconds):.2f} |")


def took(words: list[str], more: dict[str, str]) -> float:
    """Seconds of Python with these words, to its end."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, *words],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env=os.environ | more,
    )
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

"""Tune the paper's rows from `mini_sam` and `mini_bert`, one run a row and seed.

    python -m experiments.miniature                       # everything; hours on two cores
    python -m experiments.miniature --rows=default_vit_b,ldit_vit_b --seeds=0

A run is `launch.py --config=configs/miniature.py:ROW --config.seed=SEED` in a folder of its own, so
that the same command continues what was stopped; on a GPU a row's seeds are one program of
`experiments.together`, several rows at once. What came out is a line of JSON a run; runs that have
one are not repeated. `python -m experiments.verdicts` reads the lines.
"""

import argparse
import json
import os
import queue
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dit_jax.config import Config
from dit_jax.configs import miniature
from dit_jax.eval.prediction_files import read
from dit_jax.models import flops
from dit_jax.models import params as parameters
from experiments.together import AREAS

RESULTS = Path(__file__).parent / "results" / "miniature.jsonl"
ROOT = Path(__file__).parents[1]
WORKDIR = Path("runs/miniature")
# The paper's claims first; then Tables 1 to 4 in full, late fusion with L-DIT's parameters,
# L-DIT whose text enters late, and runs without one or both of the pre-trained parts.
FIRST = tuple(f"{row}_vit_b{how}" for row in ("default", "edit", "ldit") for how in ("", "_frozen"))
CONTROLS = {
    "default_plus1_vit_b": ("default_vit_b", {"model.decoder_depth": 3}),
    "ldit_from2_vit_b": ("ldit_vit_b", {"model.inject_from": 2}),
    "ldit_from4_vit_b": ("ldit_vit_b", {"model.inject_from": 4}),
    "default_scratch_vit_b": ("default_vit_b", {"model.init.sam": "", "model.init.bert": ""}),
    "edit_scratch_vit_b": ("edit_vit_b", {"model.init.sam": "", "model.init.bert": ""}),
    "ldit_scratch_vit_b": ("ldit_vit_b", {"model.init.sam": "", "model.init.bert": ""}),
    "ldit_only_sam_vit_b": ("ldit_vit_b", {"model.init.bert": ""}),
    "ldit_only_bert_vit_b": ("ldit_vit_b", {"model.init.sam": ""}),
}
ROWS = (*FIRST, *(row for row in miniature.ROWS if row not in FIRST), *CONTROLS)
SEEDS = (0, 1, 2)
TOGETHER = 8  # rows at once on a GPU: a program of theirs is compiled longer than it runs

Line = dict[str, Any]  # of the results: one run
Table = dict[str, list[int]]  # "intersection" and "union" of each picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=_listed, default=ROWS, help="some of: " + ", ".join(ROWS))
    parser.add_argument("--seeds", type=lambda text: tuple(map(int, _listed(text))), default=SEEDS)
    parser.add_argument("--steps", type=int, default=None, help="another budget than the config's")
    parser.add_argument("--workdir", type=Path, default=WORKDIR)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument(
        "--jobs",
        type=int,
        default=None,
        help=f"runs at once; one a core, {TOGETHER} rows on a GPU",
    )
    options = parser.parse_args()
    unknown = sorted(set(options.rows) - set(ROWS))
    if unknown:
        parser.error(f"no row is called {', '.join(unknown)}; expected some of {', '.join(ROWS)}.")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several runs share a GPU
    there = lines(options.results)
    for line in there:
        if steps_of(line) != options.steps:
            parser.error(
                f"{options.results} holds runs with --steps={steps_of(line)}, not {options.steps};"
                " expected another file in --results."
            )
    known = {(line["row"], line["seed"]) for line in there}
    wanted = [(row, seed) for row in options.rows for seed in options.seeds]
    wanted = [one for one in wanted if one not in known]
    alone = jax.default_backend() == "cpu"
    cores = own_cores() if alone else []
    jobs = options.jobs or len(cores) or TOGETHER
    free = queue.SimpleQueue()
    for core in cores if jobs == len(cores) else []:
        free.put(core)
    about = dict(steps=options.steps, workdir=options.workdir)
    with ThreadPoolExecutor(jobs, initializer=stay, initargs=(free,)) as pool:
        if alone:
            wanted.sort(key=lambda one: options.seeds.index(one[1]))  # one seed of all rows first
            runs = [pool.submit(run, row, seed, **about) for row, seed in wanted]
        else:
            seeds = {row: [seed for name, seed in wanted if name == row] for row, _ in wanted}
            runs = [pool.submit(run_together, row, own, **about) for row, own in seeds.items()]
        for each in as_completed(runs):
            for line in each.result():
                append(options.results, line)


def own_cores() -> list[int]:
    """Those that this process may use, where the system says so."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


def stay(free: queue.SimpleQueue) -> None:
    """Keep this thread, and what it starts, on a core of its own: two runs of one thread each are
    1.4 times as fast as one after the other with two, which wait for each other."""
    if hasattr(os, "sched_setaffinity") and not free.empty():
        os.sched_setaffinity(0, {free.get()})


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def command(row: str, seed: int, *, steps: int | None, workdir: Path) -> list[str]:
    """What repeats a run."""
    name, changes = CONTROLS.get(row, (row, {}))
    changes = {"seed": seed, **changes} | ({"optim.max_steps": steps} if steps else {})
    return [
        "launch.py",
        f"--config=configs/miniature.py:{name}",
        f"--workdir={folder_of(row, seed, workdir)}",
        *(f"--config.{key}={value}" for key, value in changes.items()),
    ]


def steps_of(line: Line) -> int | None:
    """The budget that a run was given; None is the config's."""
    given = re.search(r"--config\.optim\.max_steps=(\d+)", line["command"])
    return int(given[1]) if given else None


def run(row: str, seed: int, *, steps: int | None, workdir: Path) -> list[Line]:
    """Trains and scores one row with one seed."""
    words = command(row, seed, steps=steps, workdir=workdir)
    kept = ["--config.eval.predictions=true", f"--config.compile_cache={workdir / 'compiled'}"]
    finish([*words, *kept], folder_of(row, seed, workdir))
    return [line_of(row, seed, steps=steps, workdir=workdir)]


def run_together(row: str, seeds: Sequence[int], *, steps: int | None, workdir: Path) -> list[Line]:
    """Trains and scores one row with several seeds, side by side."""
    first = command(row, seeds[0], steps=steps, workdir=workdir)
    config = [word for word in first if re.match("--config[.=](?!seed)", word)]
    words = [*("-m", "experiments.together"), *config, f"--workdir={workdir / row}"]
    words += [f"--seeds={','.join(map(str, seeds))}", f"--streams={workdir / 'streams'}"]
    words += [f"--config.compile_cache={workdir / 'compiled'}"]
    # To choose the fastest of many ways to compute a product takes longer than these runs.
    chosen = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"
    finish(words, workdir / row, xla_flags=chosen)
    return [line_of(row, seed, steps=steps, workdir=workdir) for seed in seeds]


def finish(words: list[str], folder: Path, *, xla_flags: str = "") -> None:
    """Runs a command of Python; raises RuntimeError where it fails or is stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    flags = f"{os.environ.get('XLA_FLAGS', '')} {xla_flags}".strip()  # XLA takes " " for a file
    environment = os.environ | {"XLA_FLAGS": flags}
    with (folder / "log.txt").open("a") as log:
        done = subprocess.run(
            [sys.executable, *words], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
    if done.returncode:
        raise RuntimeError(
            f"{folder.name} ended with status {done.returncode}; {folder / 'log.txt'} says why, and"
            " the same command continues it."
        )


def folder_of(row: str, seed: int, workdir: Path) -> Path:
    return workdir / f"{row}-{seed}"


def line_of(row: str, seed: int, *, steps: int | None, workdir: Path) -> Line:
    """What came out of a run."""
    folder = folder_of(row, seed, workdir)
    return {
        "row": row,
        "seed": seed,
        "command": " ".join(["python", *command(row, seed, steps=steps, workdir=WORKDIR)]),
        **sizes(row),
        "loss": losses(folder),
        "splits": split_areas(folder),
    }


def split_areas(folder: Path) -> dict[str, Table]:
    """By split, from what `experiments.together` counted or from the masks themselves."""
    if (folder / AREAS).is_file():
        return json.loads((folder / AREAS).read_text())
    return {path.stem.split("-")[1]: areas(path) for path in predictions(folder)}


def predictions(folder: Path) -> list[Path]:
    return sorted((folder / "predictions").glob("*.jsonl"))


def sizes(row: str) -> dict[str, float]:
    """Parameters, trained ones, and GFLOP of a forward pass with one expression."""
    name, changes = CONTROLS.get(row, (row, {}))
    values = miniature.get_config(name)
    values.update_from_flattened_dict(changes)
    config = Config.from_dict(values)
    arch = config.architecture()
    flat = parameters.flatten(parameters.structure(arch)[1])
    counts = {path: int(np.prod(value.shape)) for path, value in flat.items()}
    frozen = tuple(config.freeze())
    trained = sum(n for path, n in counts.items() if not path.startswith(frozen or ("-",)))
    return {
        "parameters": sum(counts.values()),
        "trained": trained,
        "gflop": round(flops.forward(arch) / 1e9, 4),
    }


def losses(folder: Path) -> list[tuple[int, float]]:
    """(step, loss), as logged."""
    logged = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(row["step"], round(row["train/loss"], 5)) for row in logged if "train/loss" in row]


def areas(path: Path) -> Table:
    """Intersection and union summed over each picture's expressions, pictures in their order."""
    found: dict[int, np.ndarray] = {}
    for line in read(path):
        mask, truth = line.mask(), line.truth()
        pair = np.array([(mask & truth).sum(), (mask | truth).sum()])
        picture = line.number("image_id")
        found[picture] = found.get(picture, 0) + pair
    table = np.array([found[key] for key in sorted(found)])
    return {"intersection": table[:, 0].tolist(), "union": table[:, 1].tolist()}


def lines(path: Path) -> list[Line]:
    """What is known so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append(path: Path, line: Line) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    scores = {name: f"{oiou(table):.1f}" for name, table in line["splits"].items()}
    print(f"{line['row']} {line['seed']}: {scores}", flush=True)


def oiou(table: Table) -> float:
    """In percent."""
    return 100 * sum(table["intersection"]) / max(sum(table["union"]), 1)


if __name__ == "__main__":
    main()

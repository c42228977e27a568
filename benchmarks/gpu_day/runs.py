"""Training runs from data to scores, undisturbed and killed: a worker of `benchmarks.gpu_day`.

    python -m benchmarks.gpu_day.runs --only quickstart mini "kill -9"

`quickstart` and `mini` are recipes of configs/ to their end, the latter in larger batches, and more
of them, than two cores can do; its model goes to OUT/mini.zip. Stopped, a run saves, and continues
when it is asked for again. `kill -9` is benchmarks/kills.py's run, killed once and started again.
Keys that end in "at 64 px" are for CPUs.
"""

import argparse
import functools
import json
import shutil
import signal
import statistics
import subprocess
import sys
import time

from benchmarks import kills
from benchmarks.gpu_day import worker

QUICKSTART = ("--config=configs/quickstart.py",)
MINI = (
    "--config=configs/mini.py",
    "--config.data.shapes.length=2_000_000",
    "--config.optim.batch_size=64",
    "--config.optim.max_steps=24_000",
)
SMALL = (
    *QUICKSTART,
    "--config.model.image_size=64",
    "--config.optim.batch_size=8",
    "--config.optim.max_steps=4",
    "--config.data.shapes.length=64",
    "--config.data.shapes.eval_length=4",
    "--config.data.eval_splits=val",
    "--config.eval.batch_size=8",
    "--config.eval.every_steps=0",
    "--config.checkpoint.every_steps=2",
    "--config.train.log_every=1",
    "--config.train.pictures=0",
)
STOPPED = 75  # a run's exit status


def trained(about: argparse.Namespace, name: str, settings: tuple[str, ...]) -> dict:
    """Its scores; raises SystemExit where it was stopped, and saved."""
    workdir = about.work / name
    start, resumed = time.monotonic(), (workdir / "checkpoints").is_dir()
    words = ["launch.py", *settings, f"--workdir={workdir}"]
    done = subprocess.Popen([sys.executable, *words], cwd=kills.ROOT, stdout=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: None)  # launch.py gets it too, and saves
    if done.wait() == STOPPED:
        raise SystemExit(STOPPED)
    if done.returncode:
        raise RuntimeError(f"launch.py ended with status {done.returncode}; the log says why")
    logged = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    rates = [line["train/images_per_s"] for line in logged if "train/images_per_s" in line]
    scores = sorted((workdir / "eval").glob("shapes-*-original.json"))
    if name == "mini":
        shutil.make_archive(str(about.out / name), "zip", workdir, "model")
    return {
        "command": " ".join(["python launch.py", *settings]),
        "oIoU": {path.stem.split("-")[1]: json.loads(path.read_text())["oIoU"] for path in scores},
        "pictures_per_s": statistics.median(rates),
        "s": None if resumed else time.monotonic() - start,
    }


def killed(about: argparse.Namespace, name: str, settings: tuple[str, ...]) -> dict:
    folder = about.work / name
    shutil.rmtree(folder, ignore_errors=True)  # of a call that was cut off
    command = kills.Command(about.work.resolve() / "compiled", settings)
    return kills.once(command, folder.resolve())


RUNS = {
    "quickstart": (trained, "quickstart", QUICKSTART),
    "mini": (trained, "mini", MINI),
    "quickstart at 64 px": (trained, "quickstart", SMALL),
    "kill -9": (killed, "killed", kills.SETTINGS),
    "kill -9 at 64 px": (killed, "killed", SMALL),
}


def main() -> None:
    about = worker.parsed(__doc__)
    for key in about.only:
        run, *settings = RUNS[key]
        worker.answer(key, functools.partial(run, about, *settings))


if __name__ == "__main__":
    main()

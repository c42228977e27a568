"""Training runs from data to scores, undisturbed and killed: a worker of `benchmarks.gpu_day`.

    python -m benchmarks.gpu_day.runs --only quickstart "kill -9"

`quickstart` is the recipe of configs/quickstart.py to its end; stopped, it saves, and continues
when it is asked for again. `kill -9` is benchmarks/kills.py's run, killed once and started again.
Keys that end in "at 64 px" are for CPUs.
"""

import json
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import kills
from benchmarks.gpu_day import worker

QUICKSTART = ("--config=configs/quickstart.py",)
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


def quickstart(work: Path, settings: tuple[str, ...]) -> dict:
    """Its scores; raises SystemExit where it was stopped, and saved."""
    workdir = work / "quickstart"
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
    return {
        "oIoU": {path.stem.split("-")[1]: json.loads(path.read_text())["oIoU"] for path in scores},
        "pictures_per_s": statistics.median(rates),
        "s": None if resumed else time.monotonic() - start,
    }


def killed(work: Path, settings: tuple[str, ...]) -> dict:
    folder = work / "killed"
    shutil.rmtree(folder, ignore_errors=True)  # of a call that was cut off
    command = kills.Command(work.resolve() / "compiled", settings)
    return kills.once(command, folder.resolve())


RUNS = {
    "quickstart": (quickstart, QUICKSTART),
    "quickstart at 64 px": (quickstart, SMALL),
    "kill -9": (killed, kills.SETTINGS),
    "kill -9 at 64 px": (killed, SMALL),
}


def main() -> None:
    about = worker.parsed(__doc__)
    for key in about.only:
        run, settings = RUNS[key]
        worker.answer(key, lambda run=run, settings=settings: run(about.work, settings))


if __name__ == "__main__":
    main()

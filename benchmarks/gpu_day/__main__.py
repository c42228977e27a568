"""Measure on an NVIDIA GPU what nobody has measured there yet, the most valuable first.

    python -m benchmarks.gpu_day --minutes=8 [--parts=speed,torch] [--out=DIR] [--work=DIR]
    python -m benchmarks.gpu_day --self-test

Every result is a line of JSON in OUT/gpu_<card>.jsonl as soon as it is known, and the page
OUT/gpu_<card>.md is made of these lines; OUT is benchmarks/results. What has a line is not measured
again, so that another call continues, in another OUT too: it starts from the lines in
benchmarks/results. A failure is a line as well; delete it to try again. WORK (runs/gpu_day) keeps
compiled programs and the state of training runs: bring both along to another machine. Parts that
need packages which are not there are skipped with a sentence. Each process is given up where it
falls silent, and everything ends in time for `--minutes`.

Without a GPU, or with `--self-test`, tiny shapes go the same ways on a CPU, in a minute or two.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu_day import page
from benchmarks.gpu_day.parts import PARTS
from benchmarks.gpu_day.runner import GRACE, ROOT, Asked, Ledger, end_with_me
from benchmarks.page import RESULTS

WORK = Path("runs/gpu_day")
ASK = """
import json, jax
from benchmarks.page import machine
print(json.dumps([jax.default_backend(), jax.devices()[0].device_kind, machine()]))
"""
ON_A_CPU = {
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "XLA_FLAGS": "--xla_backend_optimization_level=0",  # to compile is most of the minute
}


def parsed(words: list[str]) -> argparse.Namespace:
    prog = "python -m benchmarks.gpu_day"
    parser = argparse.ArgumentParser(prog=prog, description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="until everything has ended")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of: " + ", ".join(PARTS))
    parser.add_argument("--out", type=Path, default=RESULTS, help="for results")
    parser.add_argument("--work", type=Path, default=WORK, help="for compiled programs and runs")
    parser.add_argument("--self-test", action="store_true", help="tiny shapes on a CPU")
    options = parser.parse_args(words)
    options.parts = [name.strip() for name in options.parts.split(",") if name.strip()]
    if unknown := [name for name in options.parts if name not in PARTS]:
        parser.error(f"no part is called {', '.join(unknown)}; expected some of {', '.join(PARTS)}")
    if options.minutes * 60 <= 2 * GRACE:
        parser.error(f"--minutes={options.minutes:g} is too short; expected at least one")
    return options


def environment(work: Path) -> dict[str, str]:
    """Programs that were compiled once are found again, JAX's and PyTorch's."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(work / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
        "TORCHINDUCTOR_CACHE_DIR": str(work / "inductor"),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "PYTHONUNBUFFERED": "1",
    }


def machine(env: dict[str, str]) -> tuple[str, str, str]:
    """JAX's backend, its device's name, and the whole machine in a sentence; asked in another
    process, since asking takes a GPU's memory."""
    command, env = [sys.executable, "-c", ASK], os.environ | env
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def short(card: str) -> str:
    """ "NVIDIA H100 80GB HBM3" → "h100"."""
    return re.split(r"[\s-]", card.removeprefix("NVIDIA ").strip())[0].lower()


def opened(out: Path, card: str) -> Ledger:
    """The lines of a card, those in benchmarks/results included."""
    out.mkdir(parents=True, exist_ok=True)
    path, known = out / f"gpu_{short(card)}.jsonl", RESULTS / f"gpu_{short(card)}.jsonl"
    if known.is_file() and not path.is_file():
        shutil.copy(known, path)
    return Ledger(path)


def main(words: list[str]) -> None:
    start, options = time.monotonic(), parsed(words)
    env = environment(options.work.resolve())
    backend, card, about = machine(env | (ON_A_CPU if options.self_test else {}))
    small = backend == "cpu"
    if small:
        print("No GPU: tiny shapes on the CPU, to show that everything runs.", flush=True)
        options.out, env = options.work / "self-test", env | ON_A_CPU
        shutil.rmtree(options.out, ignore_errors=True)
    ledger = opened(options.out, card)
    work = options.out if small else options.work.resolve()
    deadline = start + 60 * options.minutes - GRACE
    asked = Asked(work=work.resolve(), out=options.out.resolve(), deadline=deadline, env=env)
    if not any(line["part"] == "machine" for line in ledger.lines):
        command = shlex.join(["python", "-m", "benchmarks.gpu_day", *words])
        ledger.add({"part": "machine", "card": card, "about": about, "command": command})
    for name in options.parts:
        asked.part(name, PARTS[name], small=small, ledger=ledger)
        ledger.path.with_suffix(".md").write_text(page.text(ledger.lines))
    if small:
        report(ledger, options.parts)


def report(ledger: Ledger, names: list[str]) -> None:
    """Raise SystemExit where the self-test lacks an answer."""
    skipped = {line["part"] for line in ledger.lines if "skipped" in line}
    failed = [line["key"] for line in ledger.lines if "error" in line]
    for name in [name for name in names if name not in skipped]:
        failed += ledger.left(name, PARTS[name].small)
    if failed:
        raise SystemExit(f"no answer to {', '.join(failed)}; {ledger.path.parent}/log.txt says why")


if __name__ == "__main__":
    end_with_me()
    main(sys.argv[1:])

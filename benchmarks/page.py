"""A page of results: printed as it grows, kept in `benchmarks/results` when it is complete."""

import importlib.metadata
import os
import platform
import shlex
import sys
from pathlib import Path

import jax

NOTES = "\n## Notes\n"  # of people, from here on
RESULTS = Path(__file__).resolve().parent / "results"
LIBRARIES = ("jax", "torch", "opencv-python-headless", "grain")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # what decides a CPU's speed here


class Page:
    """`results/NAME.md`; as a context manager it is written where nothing failed. Notes at its end
    are kept."""

    def __init__(self, name: str, title: str):
        self.path = RESULTS / f"{name}.md"
        module = Path(sys.argv[0]).stem
        words = shlex.join(["python", "-m", f"benchmarks.{module}", *sys.argv[1:]])
        self.lines = [f"# {title}", "", f"    {words}", "", machine(), ""]
        print("\n".join(self.lines), flush=True)

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if error is None:
            before = self.path.read_text() if self.path.exists() else ""
            notes = "".join(before.partition(NOTES)[1:])
            self.path.write_text("\n".join(self.lines).rstrip() + "\n" + notes)

    def add(self, text: str = "") -> None:
        self.lines.append(text)
        print(text, flush=True)


def machine() -> str:
    """Processor, memory, devices and libraries, by their names, as one sentence."""
    cores, gib = len(os.sched_getaffinity(0)), _memory() / 2**30
    parts = [f"{cores} cores of {_processor()}, {gib:.0f} GiB"]
    if jax.default_backend() != "cpu":
        parts.append(f"{jax.device_count()} × {jax.devices()[0].device_kind}")
    parts += [f"{name} {_version(name)}" for name in LIBRARIES if _version(name)]
    return ", ".join([*parts, f"Python {platform.python_version()}"]) + "."


def _processor() -> str:
    """Its name and the vector instructions that matter (Linux)."""
    about = dict(
        (part.strip() for part in line.split(":", 1))
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if ":" in line
    )
    flags = about.get("flags", "").split()
    vectors = " ".join(name for name in INSTRUCTIONS if name in flags)
    return f"{about.get('model name', platform.machine())} ({vectors or 'no AVX'})"


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

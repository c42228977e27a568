"""Where a run's numbers come from: config, code, packages, devices; noted at every start.

`<workdir>/run.json` is a list with one entry a start: a run that was continued on other devices,
or by other code, says so.
"""

import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

RUNS = "run.json"
ROOT = Path(__file__).resolve().parents[2]
# What decides numbers. Compilers of accelerators are packages too, where they are installed.
PACKAGES = (
    *("jax", "jaxlib", "libtpu", "jax-cuda13-plugin", "flax", "optax", "orbax-checkpoint"),
    *("grain", "array_record", "numpy", "opencv-python-headless", "pillow", "pycocotools"),
    *("tokenizers", "safetensors", "ml_collections"),
)


def record(settings: dict[str, Any], mesh: Mesh) -> dict[str, Any]:
    """Code, packages, devices, mesh and the config's values by dotted key, as plain JSON."""
    devices = mesh.devices.flatten()
    return {
        "git": revision(ROOT),
        "packages": packages(),
        "python": platform.python_version(),
        "devices": {
            "kind": devices[0].device_kind,
            "platform": devices[0].platform,
            "count": len(devices),
            "processes": jax.process_count(),
        },
        "mesh": dict(mesh.shape),
        "config": settings,
    }


def code() -> dict[str, str]:
    """Packages, and what tells one state of this code from another."""
    files = hashlib.sha256()
    for path in sorted(ROOT.rglob("*.py")):
        files.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    commit = (revision(ROOT) or {}).get("commit", "unknown")
    own = f"commit {commit[:12]}, files {files.hexdigest()[:12]}"
    return {"dit_jax": own, "Python": platform.python_version(), **packages()}


def revision(folder: Path) -> dict[str, Any] | None:
    """Commit of the code, and whether files differ from it; None where there is no repository."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": bool(changed)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):  # no git here, or a stuck disk
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def packages() -> dict[str, str]:
    """Versions of the installed ones of `PACKAGES`."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of another kind of device
    return found


def note_start(workdir: Path, settings: dict[str, Any], mesh: Mesh, *, step: int) -> None:
    """Add an entry about this start to `run.json`; call it in one process.

    Raises ValueError where the file is damaged: it is never overwritten.
    """
    path = workdir / RUNS
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    entry = {"time": now, "step": step, "command": [Path(sys.argv[0]).name, *sys.argv[1:]]}
    entry |= record(settings, mesh)
    unfinished = path.with_suffix(".json.tmp")
    unfinished.write_text(json.dumps([*starts(workdir), entry], indent=2) + "\n", "utf-8")
    os.replace(unfinished, path)


def starts(workdir: Path) -> list[dict[str, Any]]:
    """All entries so far, oldest first."""
    path = workdir / RUNS
    if not path.is_file():
        return []
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: it is not JSON; remove it to go on.") from error
    if not isinstance(noted, list) or not all(isinstance(entry, dict) for entry in noted):
        raise ValueError(f"{path} is damaged: it is no list of starts; remove it to go on.")
    return noted

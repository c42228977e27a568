"""What does training each model take on each device? Writes the tables of docs/memory.md.

    python -m benchmarks.memory                          # counts every row, in seconds a row
    python -m benchmarks.memory --compile=vit_h --target=h100

The second asks the target's own compiler about the rows whose name starts so (minutes a row; no
such device is needed: see `dit_jax.plan.targets`). Answers are kept in
benchmarks/results/memory.json, and the tables in benchmarks/results/memory.md are made of all.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import jax
from absl import logging

from dit_jax import plan
from dit_jax.config import Config
from dit_jax.configs import base
from dit_jax.ops import rematerialise
from dit_jax.plan.targets import Devices

RESULTS = Path(__file__).parent / "results"
JSON, TABLE = RESULTS / "memory.json", RESULTS / "memory.md"
# Mesh → devices and settings: one device, copies on eight, pieces on eight.
MESHES = {"1": (1, 1), "data 8": (8, 1), "fsdp 8": (8, 8)}
BATCHES = (64, 16)
KINDS = (("float32", "none"), *(("bfloat16", policy) for policy in rematerialise.POLICIES))


def rows() -> Iterator[tuple[str, Config, int]]:
    """Name, config and number of devices of every row."""
    for backbone in ("vit_b", "vit_l", "vit_h"):
        for batch in BATCHES:
            for mesh, (devices, fsdp) in MESHES.items():
                for dtype, remat in KINDS:
                    name = f"{backbone} | {batch} | {mesh} | {dtype} | {remat}"
                    values = base.recipe(f"ldit_{backbone}", "paper")
                    values.model.update(dtype=dtype, remat=remat)
                    values.optim.update(batch_size=batch)
                    values.mesh.update(fsdp=fsdp)
                    yield name, Config.from_dict(values), devices


def main(compiled: str | None, target: str) -> None:
    logging.set_verbosity(logging.ERROR)  # small parameters that stay whole
    known = json.loads(JSON.read_text()) if JSON.is_file() else {}
    for name, config, devices in rows():
        if compiled is not None and not name.startswith(compiled):
            continue
        where = plan.find(target, devices) if compiled is not None else counted_for(devices)
        made = plan.examine(config, where, compiled=compiled is not None)
        entry = known.setdefault(name, {})
        entry["counted"] = made.memory["fused"].total
        if made.compiled is not None:
            entry[target] = made.compiled.refused or made.compiled.total
        JSON.write_text(json.dumps(known, indent=1) + "\n")
        print(name, entry, flush=True)
    TABLE.write_text(f"# Memory of a training step, GB a device\n\n{table(known)}")


def counted_for(devices: int) -> Devices:
    """Nothing is compiled, so what the devices are does not matter, only how many."""
    return Devices([jax.devices("cpu")[0]] * devices, "gpu", {}, simulated=True)


def table(known: dict[str, dict]) -> str:
    """Counted: a row a model and setting, a column a mesh. Then what compilers answered."""
    head = ["model", "batch", "dtype", "remat", *(f"mesh {mesh}" for mesh in MESHES)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    counted: dict[tuple[str, ...], list[str]] = {}
    for name, *_ in rows():
        backbone, batch, _, dtype, remat = name.split(" | ")
        cells = counted.setdefault((backbone, batch, dtype, remat), [])
        cells.append(shown(known.get(name, {}).get("counted")))
    lines += ["| " + " | ".join([*setting, *cells]) + " |" for setting, cells in counted.items()]
    lines += ["", "| model | batch | mesh | dtype | remat | compiler of | says | counted |"]
    lines.append("|---" * 8 + "|")
    for name, *_ in rows():
        entry = known.get(name, {})
        for target in plan.TARGETS:
            if target in entry:
                lines.append(
                    f"| {name} | {target} | {shown(entry[target])} | {shown(entry['counted'])} |"
                )
    return "\n".join(lines) + "\n"


def shown(value: int | str | None) -> str:
    """GB; a text is a compiler's refusal."""
    if value is None:
        return ""
    return "refused" if isinstance(value, str) else f"{value / plan.GB:.1f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compile", help="rows to compile, by how their names start")
    parser.add_argument("--target", default="h100", choices=plan.TARGETS)
    arguments = parser.parse_args()
    main(arguments.compile, arguments.target)

"""What does handing a model on cost? L-DIT ViT-B at its real size, random weights.

    python -m benchmarks.handing_on [--row=ldit_vit_b_both_frozen] [--folder=DIR]

Seconds to load a directory with and without its manifest, to take on a pack, to write and to run
the StableHLO program, beside the same function under `jax.jit`; and the sizes on disk. Medians of
interleaved runs. Needs 7 GiB of memory and 4 GiB of disk.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

import dit_jax
from dit_jax import variants
from dit_jax.data.shapes import VOCAB
from dit_jax.export import formats, program, run
from dit_jax.models import params as params_lib
from dit_jax.train import optim
from dit_jax.weights import directory, manifest, packs

RUNS = 3
PICTURE = (480, 640)
TEXT = ["the small red circle on the left"]


def seconds(call: Callable[[], object]) -> float:
    start = time.monotonic()
    jax.block_until_ready(call())
    return time.monotonic() - start


def median(call: Callable[[], object]) -> float:
    return statistics.median(seconds(call) for _ in range(RUNS))


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e6


def directories(row: str, folder: Path) -> None:
    """A base and a model trained from it with the row's frozen encoders."""
    variant = variants.VARIANTS[row]
    arch = variants.architecture(variant)
    base = params_lib.init(arch)
    directory.save(folder / "base", arch, base, vocab=VOCAB)
    trainable, frozen = optim.partition(base, variant.freeze)
    moved = jax.tree.map(lambda x: x + np.float32(0.01), trainable)
    directory.save(folder / "model", arch, optim.combine(moved, frozen), vocab=VOCAB)


def loading(folder: Path) -> dict[str, float]:
    """The hashes are read from memory here: the files were just written."""
    checked = median(lambda: params_lib.split(dit_jax.load(folder / "model"))[1])
    hashed = median(lambda: manifest.verify(folder / "model"))
    return {"load, s": checked, "of that the manifest's hashes, s": hashed}


def packing(folder: Path) -> dict[str, float]:
    packs.save(folder / "model", folder / "base", folder / "pack")
    opened = seconds(lambda: packs.Base.open(folder / "base").tensors)
    base = packs.Base.open(folder / "base")
    swap = median(lambda: base.params(folder / "pack")[1])
    size, whole = megabytes(folder / "pack"), megabytes(folder / "model")
    return {
        "pack, MB": size,
        "model, MB": whole,
        "pack, % of the model": 100 * size / whole,
        "open a base, s": opened,
        "take on a pack, s": swap,
    }


def running(folder: Path) -> dict[str, float]:
    write = seconds(
        lambda: formats.export(folder / "model", folder / "program", form="stablehlo").files
    )
    load = time.monotonic()
    segmenter = run.Segmenter(folder / "program")
    load = time.monotonic() - load
    image = np.random.default_rng(0).integers(0, 256, (*PICTURE, 3), dtype=np.uint8)
    first = seconds(lambda: segmenter(image, TEXT))
    arch, params = directory.read(folder / "model")
    python = run.Segmenter(folder / "program")  # the same runner around the function itself
    python.program.weights = jax.device_put(params)
    python.program.run = jax.jit(program.make(arch))
    first_python = seconds(lambda: python(image, TEXT))
    times = [
        (seconds(lambda: segmenter(image, TEXT)), seconds(lambda: python(image, TEXT)))
        for _ in range(RUNS)
    ]
    exported, direct = (statistics.median(column) for column in zip(*times, strict=True))
    return {
        "write the program, s": write,
        "program, MB": (folder / "program" / "segment.stablehlo").stat().st_size / 1e6,
        "read the program, s": load,
        "first picture, s": first,
        "first picture under jax.jit, s": first_python,
        "a picture, s": exported,
        "a picture under jax.jit, s": direct,
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--row", default="ldit_vit_b_both_frozen")
    arguments.add_argument("--folder", type=Path, help="where to write; default: a temporary one")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        directories(given.row, folder)
        found = loading(folder) | packing(folder) | running(folder)
    print(json.dumps({key: round(value, 3) for key, value in found.items()}, indent=2))


if __name__ == "__main__":
    main()

"""Pictures a second and MFU of forward and training on one accelerator, beside PyTorch there.

    python -m benchmarks.accelerator [--rows ROW …] [--batch N] [--size N] [--remat POLICY]
        [--peak TFLOPS] [--steps N] [--torch] [--torch_batch N …] [--name PAGE]

Self-contained: synthetic batches, no data packages; needs jax, flax, optax, jaxtyping, absl-py and
safetensors, and for `--torch` PyTorch. bfloat16, one layer of BERT, no dropout. MFU divides the
arithmetic of `dit_jax.models.flops` (a training step is three forwards, recomputation is not
counted) by the device's peak, which is in the same file or given. PyTorch runs
`benchmarks/accelerator_torch.py` first, training with a batch of its own for each row where
`--torch_batch` says so: its attention may not fit with the same. Without an accelerator it runs the
tiny row at a small batch in float32, says so, and gives no MFU. Large batches want
`XLA_PYTHON_CLIENT_MEM_FRACTION=0.95`. The page is benchmarks/results/accelerator.md.
"""

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import jax

from benchmarks import synthetic
from benchmarks.page import Page
from dit_jax.models import flops

TOKENS = 20


class Programs:
    """Forward and training step of a row, compiled beside those of other rows."""

    def __init__(self, row: str, options, dtype: str, pool: concurrent.futures.Executor):
        arch = synthetic.architecture(row, image_size=options.size, dtype=dtype)
        self.model = synthetic.Model(arch, remat=options.remat)
        self.batch = synthetic.batch(size=options.size, count=options.batch, tokens=TOKENS)
        state = jax.eval_shape(self.model.start)
        forward = self.model.forward.lower(self.model.params, self.batch)
        self.forward = pool.submit(forward.compile)
        self.training = pool.submit(self.model.training.lower(state, self.batch).compile)

    def measured(self, steps: int) -> dict[str, float | None]:
        """Seconds of a forward pass and of a training step, and GiB that the latter sets aside."""
        forward, training = self.forward.result(), self.training.result()
        found = {"forward": seconds(lambda: forward(self.model.params, self.batch), steps)}
        state = self.model.start()

        def step():
            nonlocal state
            state, loss = training(state, self.batch)
            return loss

        try:
            found["training"] = seconds(step, steps)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            found["training"] = None
        about = training.memory_analysis()
        set_aside = about.temp_size_in_bytes + about.argument_size_in_bytes
        return found | {"GiB": set_aside / 2**30}


def seconds(run: Callable[[], object], steps: int) -> float:
    """A call's, of `steps` calls that follow one another, after three to warm up."""
    for _ in range(3):
        jax.block_until_ready(run())
    start = time.perf_counter()
    for _ in range(steps):
        last = run()
    jax.block_until_ready(last)
    return (time.perf_counter() - start) / steps


def of_torch(row: str, options, batch: int, training_batch: int) -> list[dict]:
    sizes = dict(size=options.size, batch=batch, training_batch=training_batch, tokens=TOKENS)
    words = [f"--{name}={value}" for name, value in (sizes | dict(steps=options.steps)).items()]
    command = [sys.executable, "-m", "benchmarks.accelerator_torch", f"--row={row}", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return [json.loads(line) for line in lines]


def line(row: str, who: str, found: dict, batches: dict[str, int], options, peak) -> str:
    arch = synthetic.architecture(row, image_size=options.size)
    work = {"forward": flops.forward(arch), "training": flops.training(arch)}
    cells = [row, who]
    for what, count in work.items():
        if found[what] is None:
            cells += ["out of memory", "–"]
            continue
        rate = batches[what] / found[what]
        cells.append(f"{rate:.1f}" + f" (batch {batches[what]})" * (batches[what] != options.batch))
        cells.append("–" if peak is None else f"{100 * rate * count / peak:.1f} %")
    cells.append("–" if found["GiB"] is None else f"{found['GiB']:.1f}")
    return "| " + " | ".join(cells) + " |"


def accelerated() -> bool:
    """Whether this machine has more than a CPU; asked in another process, since asking takes a
    GPU's memory."""
    ask = "import jax; print(jax.default_backend())"
    said = subprocess.run(
        [sys.executable, "-c", ask], stdout=subprocess.PIPE, text=True, check=True
    )
    return said.stdout.split()[-1] != "cpu"


def parsed(fast: bool) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    rows = ["ldit_vit_b", "ldit_vit_h"] if fast else ["tiny"]
    parser.add_argument("--rows", nargs="+", default=rows)
    parser.add_argument("--batch", type=int, default=64 if fast else 4)
    parser.add_argument("--size", type=int, default=512 if fast else 128)
    parser.add_argument("--remat", default="none")
    parser.add_argument("--peak", type=float, help="TFLOP/s of this device in bfloat16")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--torch", action="store_true")
    parser.add_argument("--torch_batch", nargs="+", type=int, help="for training, one a row")
    parser.add_argument("--name", default="accelerator", help="of the page")
    return parser.parse_args()


def main() -> None:
    fast = "--help" not in sys.argv and accelerated()
    options = parsed(fast)
    training = dict(zip(options.rows, options.torch_batch or [], strict=False))
    theirs = {}
    for row in options.rows if options.torch else ():
        theirs[row] = of_torch(row, options, options.batch, training.get(row, options.batch))
        print(row, *theirs[row], flush=True)
    dtype, device = "bfloat16" if fast else "float32", jax.devices()[0]
    peak = options.peak * 1e12 if options.peak else flops.peak(device.device_kind)
    with Page(options.name, "Pictures a second, MFU and memory on one device") as page:
        if not fast:
            page.add(
                "No accelerator here: a small model on the CPU, to show that the script runs.\n"
            )
        page.add(
            f"{device.device_kind}, {dtype}, batch {options.batch}, {options.size} px, remat"
            f" {options.remat}; {options.steps} steps that follow one another.\n"
        )
        page.add("| row | | forward, pictures/s | MFU | training, pictures/s | MFU | GiB |")
        page.add("|---" * 7 + "|")
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            programs = {row: Programs(row, options, dtype, pool) for row in options.rows}
            for row, program in programs.items():
                same = dict.fromkeys(("forward", "training"), options.batch)
                page.add(line(row, "dit_jax", program.measured(options.steps), same, options, peak))
                for found in theirs.get(row, ()):
                    own = same | {"training": training.get(row, options.batch)}
                    who = f"PyTorch, {found['attention']}"
                    page.add(line(row, who, found, own, options, peak))


if __name__ == "__main__":
    main()

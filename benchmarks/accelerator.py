"""Pictures a second and MFU of forward and training on one accelerator, beside PyTorch there.

    python -m benchmarks.accelerator [--rows ROW …] [--batch N] [--size N] [--remat POLICY]
        [--peak TFLOPS] [--steps N] [--torch]

Self-contained: synthetic batches, no data packages; needs jax, flax, optax, jaxtyping, absl-py and
safetensors, and for `--torch` PyTorch. bfloat16, one layer of BERT, no dropout. MFU divides the
arithmetic of `dit_jax.train.flops` (a training step is three forwards, recomputation is not
counted) by the device's peak, which is in the same file or given. PyTorch runs
`benchmarks/torch_ldit.py` under bfloat16 autocast with fused attention and `torch.compile`.
Without an accelerator it runs the tiny row at a small batch in float32, says so, and gives no MFU.
The page is benchmarks/results/accelerator.md.
"""

import argparse
import statistics
import time

import jax

from benchmarks import synthetic
from benchmarks.page import Page
from dit_jax.train import flops

TOKENS = 20


def jax_seconds(row: str, options, dtype: str) -> dict[str, float]:
    """Seconds of a forward pass and of a training step, and GiB that the latter sets aside."""
    arch = synthetic.architecture(row, image_size=options.size, dtype=dtype)
    model = synthetic.Model(arch, remat=options.remat)
    batch = synthetic.batch(size=options.size, count=options.batch, tokens=TOKENS)
    state = model.start()
    forward = model.forward.lower(model.params, batch).compile()
    training = model.training.lower(state, batch).compile()

    def step():
        nonlocal state
        state, loss = training(state, batch)
        return loss

    return {
        "forward": synthetic.median_seconds(
            lambda: forward(model.params, batch), rounds=options.steps
        ),
        "training": synthetic.median_seconds(step, rounds=options.steps),
        "GiB": memory(training),
    }


def memory(compiled) -> float:
    about = compiled.memory_analysis()
    return (about.temp_size_in_bytes + about.argument_size_in_bytes) / 2**30


def torch_seconds(row: str, options, dtype: str) -> dict[str, float | None]:
    """As `jax_seconds`, for PyTorch with autocast, fused attention and `torch.compile`."""
    import numpy as np
    import torch
    import torch.nn.functional as F

    from benchmarks.torch_ldit import LDit
    from dit_jax.models import params as parameters

    gpu = torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    arch = synthetic.architecture(row, image_size=options.size)
    model = LDit(arch, attention="fused").load(parameters.init(arch)).to(device)
    batch = synthetic.batch(size=options.size, count=options.batch, tokens=TOKENS)
    images, ids, mask, target = (
        torch.from_numpy(np.array(batch[name])).to(device)
        for name in ("images", "ids", "mask", "target")
    )
    images = images.permute(0, 3, 1, 2).contiguous()
    run = torch.compile(model) if gpu else model
    adam = torch.optim.Adam(model.parameters(), lr=1e-4, fused=gpu)
    half = torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16")

    def forward():
        with torch.no_grad(), half:
            run(images, ids, mask)

    def training():
        adam.zero_grad(set_to_none=True)
        with half:
            logits = run(images, ids, mask)
        F.binary_cross_entropy_with_logits(logits.float(), target).backward()
        adam.step()

    def seconds(f) -> float:
        times = []
        for _ in range(options.steps + 3):
            start = time.perf_counter()
            f()
            if gpu:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        return statistics.median(times[3:])

    result = {"forward": seconds(forward), "training": seconds(training)}
    return result | {"GiB": torch.cuda.max_memory_allocated() / 2**30 if gpu else None}


def lines(row: str, who: str, found: dict[str, float | None], options, peak: float | None) -> str:
    arch = synthetic.architecture(row, image_size=options.size)
    work = {"forward": flops.forward(arch), "training": flops.training(arch)}
    cells = [row, who]
    for what, count in work.items():
        rate = options.batch / found[what]
        cells.append(f"{rate:.1f}")
        cells.append("–" if peak is None else f"{100 * rate * count / peak:.1f} %")
    cells.append("–" if found["GiB"] is None else f"{found['GiB']:.2f}")
    return "| " + " | ".join(cells) + " |"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    accelerated = jax.default_backend() != "cpu"
    rows = ["ldit_vit_b", "ldit_vit_h"] if accelerated else ["tiny"]
    parser.add_argument("--rows", nargs="+", default=rows)
    parser.add_argument("--batch", type=int, default=64 if accelerated else 4)
    parser.add_argument("--size", type=int, default=512 if accelerated else 128)
    parser.add_argument("--remat", default="dots" if accelerated else "none")
    parser.add_argument("--peak", type=float, help="TFLOP/s of this device in bfloat16")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--torch", action="store_true")
    return parser.parse_args()


def main() -> None:
    options, device = parsed(), jax.devices()[0]
    accelerated = device.platform != "cpu"
    dtype = "bfloat16" if accelerated else "float32"
    peak = options.peak * 1e12 if options.peak else flops.peak(device.device_kind)
    with Page("accelerator", "Pictures a second, MFU and memory on one device") as page:
        if not accelerated:
            page.add(
                "No accelerator here: a small model on the CPU, to show that the script runs.\n"
            )
        page.add(
            f"{device.device_kind}, {dtype}, batch {options.batch}, {options.size} px,"
            f" remat {options.remat}, medians of {options.steps} steps.\n"
        )
        page.add("| row | | forward, pictures/s | MFU | training, pictures/s | MFU | GiB |")
        page.add("|---" * 7 + "|")
        for row in options.rows:
            seconds = jax_seconds(row, options, dtype)
            page.add(lines(row, "dit_jax", seconds, options, peak))
            if options.torch:
                seconds = torch_seconds(row, options, dtype)
                page.add(lines(row, "PyTorch", seconds, options, peak))


if __name__ == "__main__":
    main()

"""The PyTorch side of `benchmarks/accelerator.py`, in a process of its own: a GPU has one memory.

    python -m benchmarks.accelerator_torch --row ROW --size N --batch N --training_batch N --steps N

Prints one line of JSON an attention. Under bfloat16 autocast, blocks compiled with `torch.compile`
(one program for all of them), fused Adam; on a CPU in float32 and not compiled. `fused` hands the
relative positions to `scaled_dot_product_attention` as a bias, `folded` puts them into the
channels of queries and keys, so that its flash kernels apply; `cudnn` does that and asks for
cuDNN's kernels, which PyTorch does not take by itself.
"""

import argparse
import contextlib
import json
import time
from collections.abc import Callable

import jax
import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks import synthetic
from benchmarks.torch_ldit import LDit
from dit_jax.models import params as parameters


def measured(options: argparse.Namespace, attention: str) -> dict[str, float | str | None]:
    gpu = torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    arch = synthetic.architecture(options.row, image_size=options.size)
    own = "folded" if attention == "cudnn" else attention
    model = LDit(arch, attention=own).load(parameters.init(arch)).to(device)
    if gpu:
        for block in model.visual_encoder.blocks:
            block.compile()
    adam = torch.optim.Adam(model.parameters(), lr=1e-4, fused=gpu)
    half = torch.autocast(device, torch.bfloat16, enabled=gpu)

    def batch(count: int) -> list[torch.Tensor]:
        arrays = synthetic.batch(size=options.size, count=count, tokens=options.tokens)
        names = ("images", "ids", "mask", "target")
        images, *others = (torch.from_numpy(np.array(arrays[name])).to(device) for name in names)
        return [images.permute(0, 3, 1, 2).contiguous(), *others]

    images, ids, mask, _ = batch(options.batch)

    def forward():
        with torch.no_grad(), half:
            model(images, ids, mask)

    found = {"attention": attention, "forward": seconds(forward, options.steps)}
    images, ids, mask, target = batch(options.training_batch)

    def training():
        adam.zero_grad(set_to_none=True)
        with half:
            logits = model(images, ids, mask)
        F.binary_cross_entropy_with_logits(logits.float(), target).backward()
        adam.step()

    try:
        found["training"] = seconds(training, options.steps)
    except torch.cuda.OutOfMemoryError:
        found["training"] = None
    return found | {"GiB": torch.cuda.max_memory_allocated() / 2**30 if gpu else None}


def seconds(run: Callable[[], None], steps: int) -> float:
    """A call's, of `steps` calls that follow one another, after three to warm up."""

    def wait():
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    for _ in range(3):
        run()
    wait()
    start = time.perf_counter()
    for _ in range(steps):
        run()
    wait()
    return (time.perf_counter() - start) / steps


def main() -> None:
    jax.config.update("jax_platforms", "cpu")  # it makes the weights and must not take the memory
    torch._dynamo.config.automatic_dynamic_shapes = False
    torch._dynamo.config.recompile_limit = 64
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("row", "size", "batch", "training_batch", "tokens", "steps"):
        parser.add_argument(f"--{name}", type=str if name == "row" else int, required=True)
    parser.add_argument("--attention", nargs="+", default=["fused", "folded"])
    options = parser.parse_args()
    for attention in options.attention:
        kernels = sdpa_kernel(SDPBackend.CUDNN_ATTENTION)
        with kernels if attention == "cudnn" else contextlib.nullcontext():
            print(json.dumps(measured(options, attention)), flush=True)


if __name__ == "__main__":
    main()

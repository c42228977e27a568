"""The PyTorch side of `benchmarks.gpu_day`: a worker, since a GPU has one memory.

    python -m benchmarks.gpu_day.torch_speed --only "ldit_vit_b training folded"

A key is a row, what is timed, and how it attends. Under bfloat16 autocast, blocks compiled with
`torch.compile` (one program for all of them), fused Adam; `tiny` on a CPU in float32 and not
compiled. `fused` hands the relative positions to `scaled_dot_product_attention` as a bias,
`folded` puts them into the channels of queries and keys, so that its flash kernels apply; `cudnn`
and `cudnn_fused` do as `folded` and `fused` and ask for cuDNN's kernels. Where a batch does not
fit, its half is taken.
"""

import contextlib
import functools
import gc
import itertools
import time
from collections.abc import Callable

import jax
import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks import synthetic
from benchmarks.gpu_day import worker
from benchmarks.torch_ldit import LDit
from dit_jax.models import params as parameters

CUDNN = {"cudnn": "folded", "cudnn_fused": "fused"}


class Timed:
    """A row with one way to attend."""

    def __init__(self, row: str, attention: str):
        self.sizes, self.gpu = worker.sizes(row), torch.cuda.is_available()
        if not self.gpu and row != "tiny":
            raise RuntimeError("PyTorch sees no GPU; expected a release with CUDA")
        self.device = "cuda" if self.gpu else "cpu"
        arch = synthetic.architecture(row, image_size=self.sizes["size"])
        model = LDit(arch, attention=CUDNN.get(attention, attention))
        self.model = model.load(parameters.init(arch)).to(self.device)
        if self.gpu:
            for block in self.model.visual_encoder.blocks:
                block.compile()
        self.half = torch.autocast(self.device, torch.bfloat16, enabled=self.gpu)
        self.kernels = contextlib.nullcontext
        if attention in CUDNN:
            self.kernels = functools.partial(sdpa_kernel, SDPBackend.CUDNN_ATTENTION)

    def batch(self, count: int) -> list[torch.Tensor]:
        arrays = synthetic.batch(size=self.sizes["size"], count=count, tokens=worker.TOKENS)
        names = ("images", "ids", "mask", "target")
        images, *others = (torch.from_numpy(np.array(arrays[k])).to(self.device) for k in names)
        return [images.permute(0, 3, 1, 2).contiguous(), *others]

    def forward(self, count: int) -> float:
        images, ids, mask, _ = self.batch(count)

        def run():
            with torch.no_grad(), self.half:
                self.model(images, ids, mask)

        return seconds(run, self.sizes["steps"])

    def training(self, count: int) -> float:
        images, ids, mask, target = self.batch(count)
        adam = torch.optim.Adam(self.model.parameters(), lr=1e-4, fused=self.gpu)

        def run():
            adam.zero_grad(set_to_none=True)
            with self.half:
                logits = self.model(images, ids, mask)
            F.binary_cross_entropy_with_logits(logits.float(), target).backward()
            adam.step()

        found = seconds(run, self.sizes["steps"])
        adam.zero_grad(set_to_none=True)
        return found

    def measured(self, what: str) -> dict:
        gc.collect()  # what was timed before this has memory, too
        if self.gpu:
            torch.cuda.reset_peak_memory_stats()
        with self.kernels():
            count, found = fitting(getattr(self, what), self.sizes["batch"])
        most = torch.cuda.max_memory_allocated() / 2**30 if self.gpu else None
        return {"ms": 1e3 * found, "batch": count, "GiB": most}


def fitting(run: Callable[[int], float], count: int) -> tuple[int, float]:
    """The largest batch, by halves, that a GPU has memory for, and what `run` says of it."""
    while count:
        with contextlib.suppress(torch.cuda.OutOfMemoryError):
            return count, run(count)
        torch.cuda.empty_cache()
        count //= 2
    raise MemoryError("not even one picture fits")


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
    keys = worker.parsed(__doc__).only
    jax.config.update("jax_platforms", "cpu")  # it makes the weights and must not take the memory
    torch._dynamo.config.automatic_dynamic_shapes = False
    torch._dynamo.config.recompile_limit = 64
    for (row, attention), same in itertools.groupby(keys, lambda key: key.split()[::2]):
        made = functools.cache(functools.partial(Timed, row, attention))
        for key in same:
            worker.answer(key, lambda key=key, made=made: made().measured(key.split()[1]))


if __name__ == "__main__":
    main()

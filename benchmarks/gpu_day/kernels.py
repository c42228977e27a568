"""Every kernel against plain attention in float32, and its time: a worker of `benchmarks.gpu_day`.

    python -m benchmarks.gpu_day.kernels --only "packed vit_b 512 hidden bfloat16"

A key is a back end, whose heads, pixels, what text there is (`none`, `text`, with some tokens
`hidden`, or `carried` through the blocks) and a type: compared are one head's result and all of its
gradients, as the kernel check does. `layer_norm triton vit_b bfloat16` is LayerNorm's backward
pass. `timed packed vit_b 512` is milliseconds of a block's attention, batch 64, tables' gradients
included; `timed layer_norm_triton vit_b 512` of a norm and a skip connection past it
(`layer_norm_xla`: without a kernel).
As many programs as there are cores are compiled side by side, and then run one by one.
"""

import argparse
import concurrent.futures
import functools
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks import attention
from benchmarks.gpu_day import worker
from dit_jax import variants
from dit_jax.models.architecture import PATCH
from dit_jax.ops import norm
from dit_jax.ops.attention import dispatch
from dit_jax.ops.kernel_check import verdict
from dit_jax.ops.platform import target


def comparison(key: str) -> tuple:
    """Program, arguments and definition."""
    if key.startswith("layer_norm"):
        _, way, row, dtype = key.split()
        return norm.comparison(way, variants.BACKBONES[row].width, dtype, target())
    way, row, size, text, dtype = key.split()
    vit, side = variants.BACKBONES[row], int(size) // PATCH
    tokens = 0 if text == "none" else worker.TOKENS
    image = side * side
    sizes = dict(m=image + tokens * (text == "carried"), n=image + tokens)
    about = dict(c=vit.width // vit.heads, grid=(side, side), masked=text == "hidden", dtype=dtype)
    return dispatch.comparison(way, dispatch.Problem(2, vit.heads, **sizes, **about), target())


def compiled(key: str) -> None:
    """Leaves programs in JAX's cache on disk; what fails here, `compared` says."""
    program, arguments, definition = comparison(key)
    verdict(target(), program, *arguments)
    with jax.default_matmul_precision("highest"):
        jax.jit(definition).lower(*arguments).compile()


def compared(key: str) -> dict:
    program, arguments, definition = comparison(key)
    found = verdict(target(), program, *arguments, definition=definition)
    return {"errors": found.errors, "fault": found.fault}


def timed(key: str) -> dict:
    _, way, row, size = key.split()
    small = row == "tiny"
    options = argparse.Namespace(size=int(size), batch=1 if small else 64, tokens=worker.TOKENS)
    vit, dtype = variants.BACKBONES[row], "float32" if small else "bfloat16"
    if way.startswith("layer_norm_"):
        run, arrays = norm_of(way.removeprefix("layer_norm_")), norm_arrays(vit, options, dtype)
    else:
        run = attention.way(way, options.size // PATCH)
        arrays = attention.arguments(vit, options, dtype)
    forward, both = attention.measured(run, arrays, 2 if small else 10)
    return {"forward_ms": forward, "both_ms": both}


def norm_of(kernel: str) -> Callable:
    """A function of `norm_arrays`."""

    def run(x, scale, bias):
        if kernel == "xla":
            return x + norm.layer_norm(x, scale, bias, 1e-6)
        same, y = norm.with_kernel(x, scale, bias, 1e-6, kernel)
        return same + y

    return run


def norm_arrays(vit, options, dtype) -> tuple:
    side = options.size // PATCH
    x = jax.random.normal(jax.random.key(0), (options.batch, side, side, vit.width), dtype)
    return x, jnp.ones(vit.width), jnp.zeros(vit.width)


def main() -> None:
    keys, many = worker.parsed(__doc__).only, os.cpu_count()
    for some in (keys[start : start + many] for start in range(0, len(keys), many)):
        with concurrent.futures.ThreadPoolExecutor(many) as pool:
            pool.map(compiled, [key for key in some if not key.startswith("timed")])
        for key in some:
            make = timed if key.startswith("timed") else compared
            worker.answer(key, functools.partial(make, key))


if __name__ == "__main__":
    main()

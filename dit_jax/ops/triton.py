"""Kernels for NVIDIA GPUs by Pallas and Triton: what they have in common.

On a CPU they are interpreted, for tests.
"""

from collections.abc import Callable
from typing import Any

from jax.experimental import pallas as pl

from dit_jax.ops.platform import platform


def call(kernel: Callable, *, name: str, warps: int, stages: int, **specs: Any) -> Callable:
    """`pl.pallas_call` of a kernel with so many warps a program and loads under way at once."""
    parameters = {}
    if platform() == "gpu":
        from jax.experimental.pallas import triton

        about = triton.CompilerParams(num_warps=warps, num_stages=stages)
        parameters = dict(compiler_params=about)
    interpret = platform() == "cpu"
    return pl.pallas_call(kernel, interpret=interpret, name=name, **parameters, **specs)


def powers_of_two(n: int) -> list[pl.Slice]:
    """0 … n − 1 in pieces of powers of two, the widest first, which is all that Triton knows."""
    start, result = 0, []
    for bit in reversed(range(n.bit_length())):
        if n & (1 << bit):
            result.append(pl.ds(start, 1 << bit))
            start += 1 << bit
    return result

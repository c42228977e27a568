"""Which kind of device a program is written for: this process's, unless another is planned for.

Operations that differ between devices ask here, not JAX: a program may be compiled on this machine
for devices that are elsewhere.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import jax
from jax.sharding import SingleDeviceSharding


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices that programs are for."""

    kind: str  # "cpu", "gpu" or "tpu", or "anywhere"
    device: jax.Device | None = None  # one of them, where they are not this process's
    options: tuple[tuple[str, Any], ...] = ()  # of their compiler


# Of a program that other machines run, whatever they are: it may use no device's own kernels.
ANYWHERE = Target("anywhere")
_PLANNED: ContextVar[Target | None] = ContextVar("planned", default=None)


def target() -> Target:
    return _PLANNED.get() or Target(jax.default_backend())


def platform() -> str:
    """One of "cpu", "gpu", "tpu", "anywhere"."""
    return target().kind


def refusal(target: Target, program: Callable, *arguments: Any) -> str | None:
    """Why a device cannot run a program of such arguments; None where it compiles."""
    try:
        jax.jit(program).lower(*arguments).compile(dict(target.options))
    except Exception as error:  # whatever a compiler says: something else may do
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"
    return None


def like(target: Target, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """An argument of `refusal` that lies on a target's device."""
    place = None if target.device is None else SingleDeviceSharding(target.device)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=place)


def compiler_options() -> dict[str, Any] | None:
    """What `jax.jit` should tell the compiler.

    XLA's own products on NVIDIA leave biases and residuals to kernels of their own, cuBLAS's do
    not: a forward pass of ViT-B, batch 64, took 35.2 ms instead of 37.4 on an H200.
    """
    return {"xla_gpu_enable_triton_gemm": False} if platform() == "gpu" else None


@contextlib.contextmanager
def planned_for(target: Target) -> Iterator[None]:
    """Programs that are traced inside are for these devices."""
    before = _PLANNED.set(target)
    try:
        yield
    finally:
        _PLANNED.reset(before)

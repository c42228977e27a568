"""Kernel check: a device compiles a kernel, and computes with it what its definition says.

What a compiler accepts it may still get wrong, on a device or in a release on which nobody has
compared numbers. So before the first program uses a kernel, this process's device runs it once,
beside the definition.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import SingleDeviceSharding

from dit_jax.ops.platform import Target

# Of the largest number of an array. Sixteen bits are off by up to 0.01; a wrong kernel by about 1.
TOLERANCE = 0.05
# How the fault of a kernel begins that needs what a release of JAX does not have.
GONE = f"JAX {jax.__version__} does not offer it: "


def like(target: Target, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """An argument of `kernel_fault` that lies on a target's device."""
    place = None if target.device is None else SingleDeviceSharding(target.device)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=place)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """On a kernel: why a device should not run it, and the largest error of each array that it
    computes, as a share of the array's largest number; () where nothing was compared."""

    fault: str | None
    errors: tuple[float, ...] = ()


def kernel_fault(
    target: Target, program: Callable, *arguments: Any, definition: Callable | None = None
) -> str | None:
    """Why a device should not run a program of such arguments; None where it compiles and agrees.

    As `verdict`, which says more.
    """
    return verdict(target, program, *arguments, definition=definition).fault


def verdict(
    target: Target, program: Callable, *arguments: Any, definition: Callable | None = None
) -> Verdict:
    """Whether a program of such arguments compiles for a device, and what it computes there.

    Args:
      arguments: trees of `like`.
      definition: what the program is held to, of the same arguments; computed in float32 where
        these are. Devices that are elsewhere only compile.
    """
    compares = definition is not None and target.is_here()
    try:
        compiled = jax.jit(program).lower(*arguments).compile(dict(target.options))
        if not compares:
            return Verdict(None)
        drawn = _draw(arguments)
        found = jax.block_until_ready(compiled(*drawn))
    except Warning:  # no fault: somebody asked for warnings to be errors
        raise
    except (ImportError, AttributeError) as error:
        return Verdict(f"{GONE}{error}")
    except Exception as error:  # whatever a compiler or a device says: something else may do
        return Verdict(f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}")
    with jax.default_matmul_precision("highest"), jax.default_device(target.device):
        expected = jax.jit(definition).lower(*drawn).compile()(*drawn)
    return _judged(found, expected)


def warn(kernel: str, sizes: object, fault: str) -> None:
    """Say that a kernel is not used: once for such sizes, or once for all where it is `GONE`."""
    if fault.startswith(GONE):
        _warn_once(f"{kernel} is not used. {fault}")
    else:
        logging.warning("%s is not used for %s (%s)", kernel, sizes, fault)


@functools.cache
def _warn_once(sentence: str) -> None:
    logging.warning("%s", sentence)


def _draw(arguments: Any) -> Any:
    """Numbers for arguments; of a mask all but the last three are True, or the first alone."""
    rng = np.random.default_rng(0)

    def draw(x: jax.ShapeDtypeStruct) -> np.ndarray:
        if x.dtype == bool:
            return np.broadcast_to(np.arange(x.shape[-1]) < max(1, x.shape[-1] - 3), x.shape)
        return (0.5 * rng.standard_normal(x.shape, np.float32)).astype(x.dtype)

    return jax.tree.map(draw, arguments)


def _judged(found: Any, expected: Any) -> Verdict:
    found, expected = (
        [np.asarray(x, np.float32) for x in jax.tree.leaves(tree)] for tree in (found, expected)
    )
    largest = [np.abs(x).max() for x in expected]
    least = 1e-3 * max(largest)  # what should be nothing is rounding, and no measure of itself
    errors = tuple(
        float(np.abs(one - other).max() / max(most, least))
        for one, other, most in zip(found, expected, largest, strict=True)
    )
    worst = max(errors) if np.isfinite(errors).all() else np.inf
    if worst <= TOLERANCE:
        return Verdict(None, errors)
    off = f"its numbers are off by {worst:.2g} of the largest, more than {TOLERANCE}"
    return Verdict(off, errors)

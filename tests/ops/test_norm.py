"""Our LayerNorm against PyTorch's, forward and all gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close
from hopper import written_for_hopper

from dit_jax.ops import norm, norm_kernel, norm_mosaic
from dit_jax.ops.norm import layer_norm
from dit_jax.ops.platform import ANYWHERE, Target, of, planned_for, target
from dit_jax.plan import targets


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_layer_norm(shift):
    """Also where the mean is a thousand times the deviation."""

    from peers import torch

    rng = np.random.default_rng(0)
    x, upstream = (rng.standard_normal((2, 3, 5, 24), np.float32) for _ in range(2))
    scale, bias = (rng.standard_normal(24, np.float32) for _ in range(2))
    x = x + np.float32(shift)
    y, back = jax.vjp(lambda *a: layer_norm(*a, 1e-6), *map(jnp.asarray, (x, scale, bias)))
    ours = (y, *back(jnp.asarray(upstream)))
    leaves = [torch.from_numpy(a).requires_grad_() for a in (x, scale, bias)]
    theirs = torch.nn.functional.layer_norm(leaves[0], (24,), *leaves[1:], eps=1e-6)
    gradients = torch.autograd.grad(theirs, leaves, torch.from_numpy(upstream))
    for a, b in zip(ours, (theirs, *gradients), strict=True):
        assert_close(a, b.detach().numpy(), "layer norm", tolerance=1e-5 if shift == 0 else 1e-3)


def test_half_precision_stays():
    """bfloat16 in, bfloat16 out, float32 between; gradients of the parameters in float32."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 16), np.float32), jnp.bfloat16)
    one = jnp.ones(16)
    y, back = jax.vjp(lambda *a: layer_norm(*a, 1e-6), x, one, one)
    dx, dscale, dbias = back(y)
    assert (y.dtype, dx.dtype) == (jnp.bfloat16, jnp.bfloat16)
    assert (dscale.dtype, dbias.dtype) == (jnp.float32, jnp.float32)


@pytest.mark.parametrize("kernel", [None, *norm.KERNELS])
@pytest.mark.parametrize("width", [24, 48, 80])
def test_with_skip(kernel, width, monkeypatch):
    """The input and its norm, whose gradients are summed up: as if asked for apart."""
    if kernel == norm.MOSAIC:
        plgpu = pytest.importorskip("jax.experimental.pallas.mosaic_gpu")
        if not hasattr(plgpu, "InterpretGPUParams"):
            pytest.skip(f"JAX {jax.__version__} does not interpret kernels of Mosaic GPU")
    monkeypatch.setattr(norm, "_kernel", lambda *about: kernel)  # interpreted here
    rng = np.random.default_rng(0)
    shape = (4, 32, 32, width)
    x, *upstream = (jnp.asarray(rng.standard_normal(shape, np.float32)) for _ in range(3))
    scale, bias = (jnp.asarray(rng.standard_normal(width, np.float32)) for _ in range(2))
    (same, y), back = jax.vjp(lambda *a: norm.with_skip(*a, 1e-6), x, scale, bias)
    expected, apart = jax.vjp(lambda *a: layer_norm(*a, 1e-6), x, scale, bias)
    np.testing.assert_array_equal(same, x)
    assert_close(y, expected, "norm")
    dx, dscale, dbias = apart(upstream[1])
    both = zip(back(tuple(upstream)), (dx + upstream[0], dscale, dbias), strict=True)
    for a, b in both:
        assert_close(a, b, "gradient")


def test_which_norms_have_a_kernel():
    assert norm_kernel.fits((64, 32, 32, 768))
    assert norm_kernel.fits((64, 1024, 1280))
    assert not norm_kernel.fits((64, 20, 768))  # words
    assert not norm_kernel.fits((64, 20, 20, 768))  # one picture's rows are no whole programs
    assert not norm_kernel.fits((1, 32, 32, 768))
    assert not norm_kernel.fits((64, 32, 32, 100))


@pytest.mark.parametrize("width", [768, 1024, 1280])
def test_mosaic_lowers_for_hopper(width):
    """As far as a machine without a GPU or its compiler can tell."""
    rows = jax.ShapeDtypeStruct((4, 1024, width), jnp.bfloat16)
    scale = jax.ShapeDtypeStruct((width,), jnp.float32)
    backward = jax.jit(lambda *x: norm_mosaic.backward(*x, epsilon=1e-6))
    text = written_for_hopper(backward, rows, rows, rows, scale)
    assert "mosaic_gpu" in text and "layer_norm_backward" in text


@pytest.mark.parametrize("kernel", norm.KERNELS)
def test_kernels_compile_for_an_h100_that_is_elsewhere(kernel):
    try:
        where = targets.find("h100", 1)
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    there = dataclasses.replace(of(where.devices[0]), options=tuple(where.options.items()))
    with planned_for(there):
        assert norm.fault(kernel, 768, "bfloat16", there) is None


def test_which_kernel_it_is(monkeypatch, caplog):
    """Triton's; on Hopper Mosaic's, where JAX has Triton no longer; none that is wrong."""
    faults = {}
    monkeypatch.setattr(norm, "comparison", lambda kernel, *about: (kernel, (), None))
    monkeypatch.setattr(norm, "kernel_fault", lambda target, kernel, **about: faults.get(kernel))
    monkeypatch.setattr(Target, "capability", lambda self: self.options[0][1])
    hopper, ampere = (Target("gpu", options=(("capability", which),)) for which in ("9.0", "8.0"))

    def kernel(target, width=768):
        norm._kernel.cache_clear()
        return norm._kernel(width, "bfloat16", target)

    assert (kernel(hopper), kernel(ampere), kernel(Target("cpu"))) == ("triton", "triton", None)
    faults["triton"] = "it is gone"
    assert (kernel(hopper), kernel(ampere), kernel(hopper, width=80)) == ("mosaic", None, None)
    assert "expected 9.0, Hopper" in caplog.text and "expected a multiple of 64" in caplog.text
    faults["mosaic"] = "its numbers are off"
    assert kernel(hopper) is None and "by mosaic is not used for 768 channels" in caplog.text
    norm._kernel.cache_clear()


def test_a_kernel_that_does_not_compile_is_named_once(caplog, monkeypatch):
    monkeypatch.setattr(Target, "capability", lambda self: "8.0")
    norm._kernel.cache_clear()
    for _ in range(2):
        assert not norm._kernel(768, "bfloat16", Target("cpu"))
        assert not norm._kernel(768, "bfloat16", Target("gpu", options=(("no_option", 1),)))
    records = [r.getMessage() for r in caplog.records if "layer norm" in r.getMessage()]
    assert len(records) == len(norm.KERNELS) and all("768 channels" in said for said in records)
    norm._kernel.cache_clear()


def test_programs_for_other_machines_have_no_kernel():
    """Not even where they are written on a machine with a GPU, and whatever their sizes are."""
    with planned_for(ANYWHERE):
        assert not norm._kernel(768, "bfloat16", target())
        rows = jax.export.symbolic_shape("b, h, w, 48")
        x, one = jax.ShapeDtypeStruct(rows, jnp.float32), jnp.ones(48)
        exported = jax.export.export(jax.jit(lambda x: norm.with_skip(x, one, one, 1e-6)))(x)
    assert "layer_norm_backward" not in exported.mlir_module()

"""Kernels are compared with their definition before anything uses them."""

import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from dit_jax.ops import kernel_check, norm, platform
from dit_jax.ops.attention import dispatch
from dit_jax.ops.attention.dispatch import PACKED, Problem
from dit_jax.ops.mesh import AXES, use_mesh
from dit_jax.ops.platform import Target, planned_for

CPU = Target("cpu")  # where kernels are interpreted
IMAGE = dict(b=2, heads=2, m=256, c=16, grid=(16, 16), dtype="float32")
PROBLEMS = {
    "text": Problem(n=261, masked=False, **IMAGE),
    "padding hidden": Problem(n=261, masked=True, **IMAGE),
    "no text": Problem(n=256, masked=False, **IMAGE),
}


@pytest.mark.parametrize("name", ["by_head", "pallas", PACKED])
@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_nothing_speaks_against_ours(name, problem):
    assert dispatch.failure(name, problem, CPU) is None


def wrong_result(attend):
    return lambda *x: attend(*x) * 1.1


def wrong_gradient(attend):
    """Of the last array alone: the positions along a row."""

    def attended(*x):
        *others, mask = x
        leaves, tree = jax.tree.flatten(others)
        leaves[-1] = leaves[-1] * 1.1 - jax.lax.stop_gradient(leaves[-1] * 0.1)
        return attend(*jax.tree.unflatten(tree, leaves), mask)

    return attended


def no_numbers(attend):
    return lambda *x: attend(*x) * jnp.nan


@pytest.mark.parametrize("harm", [wrong_result, wrong_gradient, no_numbers])
@pytest.mark.parametrize("name", ["by_head", PACKED])
def test_a_wrong_kernel_is_refused(name, harm, monkeypatch):
    table = dispatch.PACKERS if name == PACKED else dispatch.BACK_ENDS
    monkeypatch.setitem(table, name, harm(table[name]))
    said = dispatch.failure(name, PROBLEMS["text"], CPU)
    assert said.startswith("its numbers are off by "), said
    assert ("inf" in said) == (harm is no_numbers)


def test_what_fails_while_it_runs_is_refused(monkeypatch):
    def fails(*x):
        jax.debug.callback(lambda: 1 / 0)  # what a device says is found out late
        return dispatch.attend_plain(*x)

    monkeypatch.setitem(dispatch.BACK_ENDS, "by_head", fails)
    said = dispatch.failure("by_head", PROBLEMS["text"], CPU)
    assert said.startswith("JaxRuntimeError: ")


def test_many_scores_and_devices_elsewhere_only_compile(monkeypatch):
    wrong = wrong_result(dispatch.BACK_ENDS["by_head"])
    monkeypatch.setitem(dispatch.BACK_ENDS, "by_head", wrong)
    with monkeypatch.context() as patch:
        patch.setattr(Target, "is_here", lambda self: False)
        assert dispatch.failure("by_head", PROBLEMS["text"], CPU) is None
    here = Target("cpu", device=jax.devices("cpu")[-1])
    assert dispatch.failure("by_head", PROBLEMS["text"], here) is not None
    monkeypatch.setattr(dispatch, "SCORES_COMPARED", 256 * 256)
    assert dispatch.failure("by_head", PROBLEMS["text"], CPU) is None
    assert dispatch.failure("by_head", PROBLEMS["no text"], CPU) is not None


def test_gradients_that_are_nothing_are_no_fault():
    """One row of keys: positions in it favour none, and their gradient is rounding alone."""
    row = Problem(b=1, heads=2, m=256, n=256, c=16, grid=(1, 256), masked=False, dtype="float32")
    assert dispatch.failure("by_head", row, CPU) is None


def test_layer_norm():
    program, shapes, definition = norm.comparison(norm.TRITON, 48, "bfloat16", CPU)
    found = kernel_check.verdict(CPU, program, *shapes, definition=definition)
    assert found.fault is None
    # The gradient of x alone is of sixteen bits.
    assert found.errors[0] == pytest.approx(2**-9, rel=0.9) and max(found.errors[1:]) < 1e-4

    def forgets(x, g, skip, scale):
        return norm._by_kernel(norm.TRITON, x, g, jnp.zeros_like(skip), scale)

    assert "off by" in kernel_check.kernel_fault(CPU, forgets, *shapes, definition=definition)


def test_also_while_a_program_is_traced():
    said = []

    @jax.jit
    def program(x):
        said.append(dispatch.failure("by_head", PROBLEMS["padding hidden"], CPU))
        return x + 1

    np.testing.assert_array_equal(program(jnp.zeros(3)), 1)
    assert said == [None]


@pytest.fixture
def without_triton(monkeypatch):
    """A release of JAX that has no Triton, and GPUs before Hopper to write programs for."""
    monkeypatch.setattr(Target, "capability", lambda self: "8.0")
    monkeypatch.setitem(sys.modules, "jax.experimental.pallas.triton", None)
    monkeypatch.delattr(jax.experimental.pallas, "triton", raising=False)
    traced = norm._by_kernel  # perhaps by another test, with Triton
    monkeypatch.setattr(norm, "_by_kernel", lambda *x: traced(*x))
    caches = (dispatch.choose, dispatch._packs, norm._kernel, kernel_check._warn_once)
    for cached in caches:
        cached.cache_clear()
    with planned_for(Target("gpu")):
        yield Target("gpu")
    for cached in caches:
        cached.cache_clear()


def test_a_kernel_that_jax_no_longer_offers_is_one_warning(without_triton, monkeypatch, caplog):
    """It is named once for all sizes, and the next back end takes its place."""
    monkeypatch.setitem(dispatch.BACK_ENDS, "cudnn", dispatch.attend_plain)
    sizes = [(32, 64), (32, 80), (64, 64)]
    for side, channels in sizes:
        image = dict(m=side * side, n=side * side + 20, c=channels, grid=(side, side))
        problem = Problem(4, 12, **image, masked=False, dtype="bfloat16")
        assert not dispatch._packs(PACKED, problem, without_triton)
        assert dispatch.choose(problem, without_triton) == "cudnn"
        alone = Problem(4, 12, **image, masked=False, dtype="float32")
        assert dispatch.choose(alone, without_triton) == "plain"
    for width in (768, 1280):
        assert not norm._kernel(width, "bfloat16", without_triton)
    said = [record.getMessage() for record in caplog.records if "not offer" in record.getMessage()]
    for kernel in ("attention: packed", "attention: pallas", "layer norm"):
        (sentence,) = [one for one in said if one.startswith(kernel)]
        assert f"JAX {jax.__version__} does not offer it: " in sentence and "triton" in sentence
    assert len(said) == 3


def test_what_is_deprecated_is_no_fault_and_not_kept_quiet(monkeypatch):
    def going(*x):
        warnings.warn("it is going away", DeprecationWarning, stacklevel=2)
        return dispatch.attend_plain(*x)

    monkeypatch.setitem(dispatch.BACK_ENDS, "by_head", going)
    with pytest.warns(DeprecationWarning, match="it is going away"):
        assert dispatch.failure("by_head", PROBLEMS["text"], CPU) is None
    with pytest.raises(DeprecationWarning, match="it is going away"):  # as errors
        dispatch.failure("by_head", PROBLEMS["text"], CPU)


def test_programs_are_for_the_devices_that_arrays_are_on(monkeypatch):
    """And not for what JAX prefers on this host."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    first, last = jax.devices("cpu")[0], jax.devices("cpu")[-1]
    assert platform.target() == Target("gpu")
    with jax.default_device(last):
        assert platform.target() == Target("cpu", last)
    with jax.default_device("cpu"):
        assert platform.target() == Target("cpu", first)
    with use_mesh(Mesh(np.array([last]).reshape(1, 1, 1), AXES)):
        assert platform.target() == Target("cpu", last) and platform.target().is_here()
    elsewhere = Target("tpu")
    with planned_for(elsewhere), use_mesh(Mesh(np.array([last]).reshape(1, 1, 1), AXES)):
        assert platform.target() == elsewhere and not elsewhere.is_here()

"""Attention over packed queries, keys and values computes what the plain one does, backward too."""

import dataclasses
import functools
import logging
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close
from hopper import written_for_hopper
from places import PYTHONPATH

from benchmarks import synthetic
from dit_jax.models.architecture import Injection
from dit_jax.ops.attention import dispatch, mosaic, packed_launch
from dit_jax.ops.attention.dispatch import MOSAIC, PACKED, PACKERS, Problem, attend_packed
from dit_jax.ops.platform import Target, planned_for
from dit_jax.plan import targets

WORKER = Path(__file__).with_name("split_worker.py")
TEXT = 20
REAL = {"vit_b 512": (32, 32, 64), "vit_h 512": (32, 32, 80)}
LARGE = {"vit_b 1024": (64, 64, 64), "vit_h 1024": (64, 64, 80)}
SMALL = {"square": (16, 16, 32), "tall": (32, 16, 48), "wide": (16, 64, 16)}


def problem(h, w, c, *, text=TEXT, masked=False, b=1, heads=1):
    """((qkv, text or None, tables), mask or None, upstream)."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape, np.float32))  # noqa: E731
    qkv = draw(b, h * w, 3, heads, c)
    words = draw(b, text, 2, heads, c) if text else None
    tables = tuple(0.2 * draw(2 * side - 1, c) for side in (h, w))
    mask = None
    if masked:
        mask = jnp.asarray(np.arange(text)[None] <= np.arange(b)[:, None])
    return (qkv, words, tables), mask, draw(b, h * w, heads, c)


def plainly(qkv, text, tables, *, grid, text_mask):
    bands = (dispatch.band(table, side) for table, side in zip(tables, grid, strict=True))
    return dispatch.plain_packed(qkv, text, tuple(bands), text_mask)


def compare(h, w, c, *, attend=attend_packed, **kind):
    """Output, and the gradients of packed arrays, text and both tables: 1e-5 of the largest."""
    arrays, mask, upstream = problem(h, w, c, **kind)

    def with_gradients(f):
        def run(arrays, upstream):
            out, back = jax.vjp(lambda *x: f(*x, grid=(h, w), text_mask=mask), *arrays)
            return out, back(upstream)

        return jax.jit(run)(arrays, upstream)

    expected, actual = with_gradients(plainly), with_gradients(attend)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert_close(a, b, "attention", tolerance=1e-5)


@pytest.mark.parametrize("shape", SMALL)
def test_small_grids(shape):
    compare(*SMALL[shape], b=2, heads=2, masked=True)


@pytest.mark.parametrize("text", [0, 40])
def test_no_text_and_long_text(text):
    compare(*SMALL["tall"], text=text)


@pytest.mark.parametrize("shape", REAL)
def test_real_size(shape):
    compare(*REAL[shape])


@pytest.mark.proof
@pytest.mark.parametrize("shape", LARGE)
def test_large_size(shape):
    compare(*LARGE[shape])


def by_mosaic(qkv, text, tables, *, grid, text_mask):
    bands = (dispatch.band(table, side) for table, side in zip(tables, grid, strict=True))
    return PACKERS[MOSAIC](qkv, text, tuple(bands), text_mask)


MOSAICS = {
    "words hidden": (16, 16, 32, dict(masked=True)),
    "no text, 80 channels": (8, 32, 80, dict(text=0)),
    "long text, all stages": (16, 32, 64, dict(text=40, heads=2)),
    "wide": (8, 64, 16, dict()),
}


@pytest.mark.parametrize("about", [*MOSAICS.values()][:1])
def test_mosaic(about):
    """In JAX's interpreter of such kernels, which knows products since 0.12: also what lies where
    memory was not written."""
    plgpu = pytest.importorskip("jax.experimental.pallas.mosaic_gpu")
    if not hasattr(plgpu, "InterpretGPUParams"):
        pytest.skip(f"JAX {jax.__version__} does not interpret products of Mosaic GPU")
    h, w, c, kind = about
    compare(h, w, c, attend=by_mosaic, **kind)


@pytest.mark.proof
@pytest.mark.parametrize("about", MOSAICS.values(), ids=MOSAICS)
def test_mosaic_without_races(about, monkeypatch):
    """Every copy is waited for before it's read, and no block is overwritten that is still read."""
    plgpu = pytest.importorskip("jax.experimental.pallas.mosaic_gpu")
    if hasattr(plgpu, "InterpretGPUParams"):
        looking = functools.partial(plgpu.InterpretGPUParams, detect_races=True)
        monkeypatch.setattr(plgpu, "InterpretGPUParams", looking)
    test_mosaic(about)


def lowered_for_hopper(shape):
    h, w, c = (REAL | LARGE)[shape]
    arrays, mask, upstream = problem(h, w, c, masked=True)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (arrays, upstream))

    @jax.jit
    def run(arrays, upstream):
        run = functools.partial(by_mosaic, grid=(h, w), text_mask=mask)
        return jax.vjp(run, *arrays)[1](upstream)

    return written_for_hopper(run, *half)


def test_mosaic_lowers_for_hopper(shape="vit_h 512"):
    """As far as a machine without a GPU or its compiler can tell: layouts and shared memory fit."""
    assert "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16" in lowered_for_hopper(shape)


@pytest.mark.proof
@pytest.mark.parametrize("shape", REAL | LARGE)
def test_mosaic_lowers_for_hopper_at_every_size(shape):
    n = (REAL | LARGE)[shape][1]
    assert f"m64n{n}k16" in lowered_for_hopper(shape)


def test_mosaic_is_used_where_it_is_named(monkeypatch, caplog):
    """On Hopper, unless its numbers are wrong; then Triton's kernel takes its place."""
    reasons = iter([None, "its numbers are off"])
    monkeypatch.setattr(dispatch, "kernel_fault", lambda *x, **about: next(reasons))
    arrays = [
        jax.ShapeDtypeStruct(s, "bfloat16") for s in ((4, 1024, 3, 12, 64), (4, 20, 2, 12, 64))
    ]
    monkeypatch.setattr(Target, "capability", lambda self: self.options[0][1])
    gpus = [Target("gpu", options=(("capability", which),)) for which in ("9.0", "8.0")]

    def packers():
        dispatch._packs.cache_clear()
        found = []
        for gpu in (*gpus, Target("cpu")):
            with planned_for(gpu):
                found.append(dispatch._packer(*arrays, None, (32, 32)))
        return found

    monkeypatch.setattr(dispatch, "comparison", lambda *x: (None, (), None))
    caplog.set_level(logging.WARNING, logger="absl")
    assert packers() == [PACKED] * 3
    with dispatch.use_back_end(MOSAIC):
        assert packers() == [MOSAIC, PACKED, PACKED]
        assert packers() == [PACKED] * 3
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3 and all(one.startswith("attention: mosaic is not used") for one in said)
    assert "compute capability is 8.0; expected 9.0" in said[0] and "are off" in said[1]
    for tokens, columns in ((65, 32), (20, 128)):
        grid = 4096 // columns, columns
        large = Problem(4, 12, 4096, 4096 + tokens, 64, grid, False, "bfloat16")
        about = f"{tokens} tokens, {columns} columns; expected at most 80, 64 and 64"
        assert about in mosaic.refusal(large, gpus[0])
    dispatch._packs.cache_clear()


def test_what_fits():
    assert packed_launch.fits(grid=(32, 32), channels=80)
    assert not packed_launch.fits(grid=(14, 14), channels=64)  # SAM's windows
    assert not packed_launch.fits(grid=(40, 40), channels=64)
    assert not packed_launch.fits(grid=(32, 32), channels=24)


def test_who_packs(monkeypatch):
    """NVIDIA in half precision; nobody where another back end is asked for."""
    compiled = []

    def compiles(name, problem, target):
        compiled.append((name, problem))

    def packs(dtype: str) -> bool:
        x = jax.ShapeDtypeStruct((64, 32, 32, 768), dtype)
        text = jax.ShapeDtypeStruct((64, TEXT, 768), dtype)
        return dispatch.packs.__wrapped__(x, text, None, heads=12)

    monkeypatch.setattr(dispatch, "failure", compiles)
    dispatch._packs.cache_clear()
    assert not packs("bfloat16")  # a CPU
    with planned_for(Target("gpu")):
        assert packs("bfloat16")
        assert packs("bfloat16")
        assert not packs("float32")
        with dispatch.use_back_end("anywhere"):
            assert not packs("bfloat16")
        monkeypatch.setenv(dispatch.FORCE, "cudnn")
        assert not packs("bfloat16")
    dispatch._packs.cache_clear()
    problem = Problem(64, 12, 1024, 1044, 64, (32, 32), False, "bfloat16")
    assert compiled == [(PACKED, problem)]


@pytest.mark.proof
@pytest.mark.parametrize("injection", [Injection.LAYER_WISE, Injection.E2E])
def test_the_whole_model(injection, monkeypatch):
    """Text that is only read, and text that lives on: loss and gradients are the plain ones'."""
    arch = synthetic.architecture("tiny", image_size=256, depth=2)
    arch = dataclasses.replace(arch, injection=injection)
    model, batch = synthetic.Model(arch), synthetic.batch(size=256, count=1, tokens=9)

    def gradients():
        def loss(params):  # a new function: what was traced before is not asked again
            return jnp.mean(jnp.square(model.logits(params, batch)))

        return jax.jit(jax.value_and_grad(loss)).trace(model.params)

    expected = gradients()
    monkeypatch.setenv(dispatch.FORCE, PACKED)
    actual = gradients()
    assert "attention_by_keys" in str(actual.jaxpr)
    assert "attention_by_keys" not in str(expected.jaxpr)
    expected, actual = (x.lower().compile()(model.params) for x in (expected, actual))
    assert_close(actual[0], expected[0], "loss")
    scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(expected[1]))
    for a, b in zip(jax.tree.leaves(actual[1]), jax.tree.leaves(expected[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * scale)


def test_devices_of_a_mesh_compute_their_own_rows_and_heads():
    """Also the norm's backward pass; eight simulated devices in a process of their own."""
    path = PYTHONPATH
    run = dict(capture_output=True, text=True, timeout=900, check=False)
    done = subprocess.run([sys.executable, WORKER], env=os.environ | {"PYTHONPATH": path}, **run)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("name", ["h200", "a100"])
def test_it_compiles_for_gpus_that_are_elsewhere(name):
    try:
        where = targets.find(name, 1)
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    there = Target(where.platform, where.devices[0], tuple(where.options.items()))
    packers = [PACKED, MOSAIC] if name == "h200" else [PACKED]
    for h, w, c in (REAL | LARGE).values():
        about = Problem(2, 12, h * w, h * w + TEXT, c, (h, w), True, "bfloat16")
        with planned_for(there):
            assert {packer: dispatch.failure(packer, about, there) for packer in packers} == (
                dict.fromkeys(packers)
            )

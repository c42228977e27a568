"""Every back end of attention computes what the plain one does, and so do its gradients."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

from dit_jax import variants
from dit_jax.ops.attention import by_head, dispatch, folded, pallas
from dit_jax.ops.attention.plain import attend_plain
from dit_jax.ops.platform import Target, planned_for
from dit_jax.plan import targets

TEXT = 20
SIDES = (512, 1024)  # pixels
VITS = {name: variants.BACKBONES[name] for name in ("vit_b", "vit_l", "vit_h")}
REAL = {
    f"{name} {side}": (side // 16, side // 16, vit.width // vit.heads)
    for name, vit in VITS.items()
    for side in SIDES
    if name != "vit_l"  # its heads are ViT-B's
}
SMALL = {"tiny": (8, 8, 32), "uneven": (5, 7, 16), "flat": (3, 40, 24)}

BACK_ENDS = {
    "by_head": by_head.attend_by_head,
    "pallas": pallas.attend_pallas,
    "pallas, blocks of a GPU": functools.partial(pallas.attend_pallas, platform="gpu"),
    "pallas, blocks of a TPU": functools.partial(pallas.attend_pallas, platform="tpu"),
    "folded": functools.partial(folded.attend_folded, implementation="xla"),
}

ONE_OF_EACH = ("by_head", "pallas", "folded")


def problem(h, w, c, *, text=TEXT, asks=False, masked=False, b=1, heads=1, seed=0):
    """((q, k, v, rel), mask, upstream); `asks`: text has queries too."""
    rng = np.random.default_rng(seed)
    image = h * w
    m, n = image + text * asks, image + text
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape, np.float32))  # noqa: E731
    q, k, v = draw(b, heads, m, c), draw(b, heads, n, c), draw(b, heads, n, c)
    rel = tuple(draw(b, heads, image, side) for side in (h, w))
    mask = None
    if masked:
        mask = jnp.asarray(np.arange(n)[None] < image + 1 + np.arange(b)[:, None])
    return (q, k, v, rel), mask, draw(b, heads, m, c)


def with_gradients(back_end, arrays, mask, upstream):
    def run(arrays, upstream):
        out, back = jax.vjp(lambda *x: back_end(*x, mask), *arrays)
        return out, back(upstream)

    return jax.jit(run)(arrays, upstream)


def compare(back_end, *task):
    """Output, and the gradients of q, k, v and both relative terms: 1e-5 of the largest value."""
    expected, actual = (with_gradients(f, *task) for f in (attend_plain, back_end))
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert_close(a, b, "attention", tolerance=1e-5)


@pytest.mark.parametrize("name", BACK_ENDS)
@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ("tiny", dict(b=2, heads=2)),
        ("tiny", dict(text=0)),
        ("uneven", dict(asks=True, masked=True, b=2, heads=2)),
        ("flat", dict(asks=True)),
    ],
    ids=["tiny", "no text", "uneven, text asks, padding hidden", "flat, text asks"],
)
def test_back_ends_agree(name, shape, kind):
    compare(BACK_ENDS[name], *problem(*SMALL[shape], **kind))


@pytest.mark.parametrize("name", ["by_head", "pallas", "pallas, blocks of a GPU"])
@pytest.mark.parametrize("shape", [s for s in REAL if s.endswith("512")])
def test_back_ends_agree_at_real_size(name, shape):
    compare(BACK_ENDS[name], *problem(*REAL[shape]))


@pytest.mark.proof
@pytest.mark.parametrize("name", ["by_head", "pallas", "pallas, blocks of a GPU"])
@pytest.mark.parametrize("shape", [s for s in REAL if s.endswith("1024")])
def test_back_ends_agree_at_large_size(name, shape):
    compare(BACK_ENDS[name], *problem(*REAL[shape], asks=True))


@pytest.mark.parametrize("rel", [True, False])
def test_blocks_of_queries_and_no_positions(monkeypatch, rel):
    """A CPU's head in several blocks, the last one not full."""
    monkeypatch.setattr(by_head, "SCORES_OF_A_BLOCK", 1500)
    (q, k, v, terms), mask, upstream = problem(5, 7, 16, asks=True, masked=True, b=2, heads=2)
    compare(BACK_ENDS["by_head"], (q, k, v, terms if rel else None), mask, upstream)


def test_splash_agrees():
    """The forward pass; JAX's own tests cover its gradients."""
    arrays, mask, _ = problem(8, 8, 32, heads=2, asks=True, masked=True, b=2)
    ours = folded.attend_splash(*arrays, mask, interpret=True)
    assert_close(ours, attend_plain(*arrays, mask), "splash", tolerance=1e-5)


def test_tables_get_the_same_gradients():
    """The relative-position tables themselves, through `relative_terms`, by every back end."""
    rng = np.random.default_rng(0)
    (q, k, v, _), _, upstream = problem(8, 8, 32)
    tables = tuple(jnp.asarray(rng.standard_normal((15, 32), np.float32)) for _ in range(2))

    def gradients(back_end):
        def loss(tables):
            rel = dispatch.relative_terms(q, *tables, grid=(8, 8))
            return jnp.sum(back_end(q, k, v, rel, None) * upstream)

        return jax.jit(jax.grad(loss))(tables)

    expected = gradients(attend_plain)
    for name in ONE_OF_EACH:
        for a, b in zip(gradients(BACK_ENDS[name]), expected, strict=True):
            assert_close(a, b, name, tolerance=1e-5)


def test_half_precision_is_close():
    arrays, mask, upstream = problem(8, 8, 32, masked=True)
    whole = with_gradients(attend_plain, arrays, mask, upstream)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (arrays, upstream))
    for name in ONE_OF_EACH:
        result = with_gradients(BACK_ENDS[name], half[0], mask, half[1])
        for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(whole), strict=True):
            assert a.dtype == jnp.bfloat16
            assert_close(a.astype(jnp.float32), b, name, tolerance=0.03)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("shape", ["vit_b 512", "vit_h 512", "vit_b 1024"])
def test_kernels_lower_for_accelerators(monkeypatch, platform, shape):
    """As far as a machine without one can tell: both directions become Triton or Mosaic code."""
    monkeypatch.setattr(pallas, "interpreted", lambda: False)
    kind = "gpu" if platform == "cuda" else platform
    arrays, mask, upstream = problem(*REAL[shape], asks=True, masked=True)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (arrays, upstream))
    run = functools.partial(pallas.attend_pallas, platform=kind)

    def both(arrays, upstream):
        out, back = jax.vjp(lambda *x: run(*x, mask), *arrays)
        return out, back(upstream)

    where = AbstractDevice(
        "NVIDIA H100" if kind == "gpu" else "TPU v5p", num_cores=1, platform=kind
    )
    with use_abstract_mesh(AbstractMesh((1,), ("x",), abstract_device=where)):
        lowered = jax.jit(both).trace(*half).lower(lowering_platforms=(platform,))
    assert lowered.as_text().count("custom_call") >= 4


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", targets.TARGETS)
def test_kernels_compile_for_devices_that_are_elsewhere(name, dtype):
    """Both directions at every real size, by the compilers of TPUs and GPUs."""
    try:
        where = targets.find(name, 1)
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    there = Target(where.platform, where.devices[0], tuple(where.options.items()))
    back_ends = ["pallas", "splash"] if where.platform == "tpu" else ["pallas"]
    for h, w, c in REAL.values():
        about = dispatch.Problem(2, 12, h * w, h * w + TEXT, c, (h, w), True, dtype)
        with planned_for(there):
            failures = {
                back_end: dispatch.failure(back_end, about, there) for back_end in back_ends
            }
        assert not any(failures.values()), failures


def test_no_scores_in_memory():
    """Neither direction of the CPU's path makes an array of all heads' scores."""
    h, w, c = REAL["vit_b 512"]
    arrays, _, upstream = problem(h, w, c, heads=12)

    def both(arrays, upstream):
        out, back = jax.vjp(lambda *x: dispatch.attend(*x[:3], rel=x[3]), *arrays)
        return out, back(upstream)

    compiled = jax.jit(both).lower(arrays, upstream).compile()
    whole = 12 * h * w * (h * w + TEXT) * 4
    assert compiled.memory_analysis().temp_size_in_bytes < whole


def test_the_choice_is_logged_once(caplog, monkeypatch):
    """By size on a CPU; on an accelerator never the slow path in silence."""
    monkeypatch.setattr(pallas, "interpreted", lambda: False)
    dispatch.choose.cache_clear()
    large = dispatch.Problem(1, 12, 1024, 1044, 64, (32, 32), False, "bfloat16")
    assert dispatch.choose(large, Target("cpu")) == "by_head"
    gpu = Target("gpu")
    small = dispatch.Problem(1, 3, 64, 84, 32, (8, 8), False, "float32")
    assert dispatch.choose(small, gpu) == "plain"
    caplog.set_level(logging.INFO, logger="absl")
    assert dispatch.choose(large, gpu) == "plain"  # there is none here
    assert dispatch.choose(large, gpu) == "plain"
    (record,) = [r for r in caplog.records if "attention" in r.getMessage()]
    assert record.levelname == "WARNING"
    for part in ("slow", "cudnn: ", "pallas: "):
        assert part in record.getMessage()


def test_candidates():
    half = dispatch.Problem(64, 12, 1024, 1044, 64, (32, 32), False, "bfloat16")
    wide = dispatch.Problem(64, 12, 4096, 4116, 64, (64, 64), False, "bfloat16")
    whole = dispatch.Problem(64, 12, 1024, 1044, 64, (32, 32), False, "float32")
    assert half.folded() == 128
    assert dispatch.candidates(half, "gpu") == ["cudnn", "pallas"]
    assert dispatch.candidates(wide, "gpu") == ["pallas", "cudnn"]
    assert dispatch.candidates(whole, "gpu") == ["pallas"]
    assert dispatch.candidates(half, "tpu") == ["splash", "pallas"]
    assert dispatch.candidates(wide, "tpu") == ["pallas", "splash"]


def test_few_scores_are_plain_and_nobody_is_warned(caplog):
    """The decoder's tokens look at an image without relative positions."""
    dispatch.choose.cache_clear()
    decoder = dispatch.Problem(64, 8, 25, 1024, 16, None, False, "bfloat16")
    assert dispatch.choose(decoder, Target("gpu")) == "plain"
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_a_forced_back_end(monkeypatch):
    arrays, _, _ = problem(8, 8, 32)
    monkeypatch.setenv(dispatch.FORCE, "pallas")
    text = str(jax.make_jaxpr(lambda *x: dispatch.attend(*x[:3], rel=x[3]))(*arrays))
    assert "pallas_call" in text
    monkeypatch.setenv(dispatch.FORCE, "cudn")
    with pytest.raises(ValueError, match=r"DIT_JAX_ATTENTION is 'cudn'.*nearest: cudnn"):
        dispatch.attend(*arrays[:3], rel=arrays[3])

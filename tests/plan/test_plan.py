"""Memory and arithmetic, counted: against what XLA allocates and counts."""

import dataclasses
import importlib.util
import math
import os
import re
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import pytest
from absl import logging
from command_line import launched
from compiler import COMPILES_FASTER
from jax.sharding import AbstractMesh, AxisType
from places import ROOT
from runs import shallow

from dit_jax import variants
from dit_jax.config import Config
from dit_jax.configs import base, mini_sam
from dit_jax.models import flops
from dit_jax.models import params as parameters
from dit_jax.ops.attention import dispatch
from dit_jax.ops.platform import Target, planned_for
from dit_jax.plan import command as plan
from dit_jax.plan import compile, memory, suggest, targets
from dit_jax.train.placement import sharding

# A CPU's compiler orders work for speed, not for memory, and keeps what a fusion could recompute.
CPU_FACTOR = 2


def mesh_of(data=1, fsdp=1, tensor=1):
    return AbstractMesh((data, fsdp, tensor), sharding.AXES, axis_types=(AxisType.Auto,) * 3)


def promised():
    """(chips, settings) of the table of slices."""
    rows = re.findall(
        r"^\| v\w+, ([\d ×]+)(?: chips)? \|[^|]+\|([^|]+)\|",
        (ROOT / "docs/tpu.md").read_text(),
        re.MULTILINE,
    )
    return [
        (
            math.prod(map(int, chips.split("×"))),
            {name: int(value) for name, value in re.findall(r"`([\w.]+)=(\d+)`", said)},
        )
        for chips, said in rows
        if "mesh." in said
    ]


def config(row="ldit_vit_b", *, recipe="official", **changes):
    values = base.recipe(row, recipe)
    values.model.update({k: v for k, v in changes.items() if k in values.model})
    values.optim.update({k: v for k, v in changes.items() if k in values.optim})
    return Config.from_dict(values)


@pytest.fixture(autouse=True)
def two_blocks(monkeypatch):
    """ViT-B's widths with two blocks: real proportions, and compiled within seconds."""
    vit = dataclasses.replace(variants.BACKBONES["vit_b"], depth=2, global_blocks=(1,))
    monkeypatch.setitem(variants.BACKBONES, "vit_b", vit)


def one_cpu():
    return targets.Devices(jax.devices()[:1], "cpu", {}, simulated=False)


@pytest.mark.proof
@pytest.mark.parametrize(
    "changes",
    [
        dict(image_size=256, batch_size=8),
        dict(image_size=512, batch_size=4),
        dict(image_size=256, accumulate=2),
    ],
)
def test_the_count_against_the_compiler(monkeypatch, changes):
    """The state is exact; what else a step takes is within a factor."""
    # No BERT layer that is never read: a CPU's compiler writes out even their zero gradients.
    monkeypatch.setitem(variants.TEXT_ENCODERS, "base", variants.Bert(vocab=512, depth=1))
    large = config(**(dict(batch_size=8) | changes))
    counted = memory.estimate(large, mesh_of(), attention=memory.expected(large))
    found = compile.compile_step(large, one_cpu())
    assert abs(found.arguments - counted.state - counted.batch) <= 64  # step, key, padding
    assert counted.temporary / CPU_FACTOR < found.temporary < counted.temporary * CPU_FACTOR


def test_meshes_divide_what_they_should():
    alone = memory.estimate(config(), mesh_of(), attention="plain")
    spread = memory.estimate(config(), mesh_of(fsdp=8), attention="plain")
    copied = memory.estimate(config(), mesh_of(data=8), attention="plain")
    assert copied.state == alone.state
    assert copied.activations == pytest.approx(alone.activations / 8)
    assert spread.activations == copied.activations
    # Norms and other small parameters stay whole.
    for field in ("trainable", "optimizer", "ema", "gradients"):
        share = getattr(spread, field) / getattr(alone, field)
        assert 1 / 8 <= share < 1.04 / 8, field
    split = memory.estimate(config(), mesh_of(tensor=4), attention="plain")
    assert alone.activations / 4 < split.activations < alone.activations / 2


def test_settings_have_their_effect():
    """Of each: what it is for, and nothing else."""
    plain = memory.estimate(config(), mesh_of(), attention="plain")
    fused = memory.estimate(config(), mesh_of(), attention="fused")
    remat = memory.estimate(config(remat="full"), mesh_of(), attention="plain")
    half = memory.estimate(config(dtype="bfloat16"), mesh_of(), attention="fused")
    parts = memory.estimate(config(accumulate=8), mesh_of(), attention="fused")
    no_average = memory.estimate(config(ema=0.0), mesh_of(), attention="plain")
    assert {m.state for m in (plain, fused, remat, half, parts)} == {plain.state}
    assert fused.activations < 0.7 * plain.activations
    assert remat.activations < 0.25 * plain.activations
    assert half.activations < 0.55 * fused.activations
    assert parts.activations - parts.trainable == pytest.approx(fused.activations / 8)
    assert plain.state - no_average.state == plain.trainable


def test_frozen_encoders_have_no_gradients():
    frozen = memory.estimate(config("ldit_vit_b_both_frozen"), mesh_of(), attention="plain")
    assert frozen.frozen > frozen.trainable > 0
    assert frozen.optimizer == 2 * frozen.trainable + 4  # and the count of steps
    assert frozen.gradients == frozen.trainable


# ------------------------------------------------------------------------------ arithmetic


def forward_of(arch):
    """XLA's count for a forward pass of one pair; loops and layers are written out."""
    graph, params = parameters.structure(arch)
    size, l = arch.image_size, arch.text_tokens  # noqa: E741
    words = jax.ShapeDtypeStruct((1, l), jnp.int32)
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)

    def forward(params, images, words):
        return parameters.merge(graph, params)(images, words, words).logits

    return jax.jit(forward).lower(params, images, words).cost_analysis()["flops"]


@pytest.mark.parametrize(
    "row", ["edit_vit_b", "ldit_vit_b", "crossatt_vit_b", "crossatt_ffn_vit_b"]
)
def test_arithmetic_is_xlas(monkeypatch, row):
    monkeypatch.setattr(dispatch, "SCORES_AT_ONCE", 1 << 60)
    arch = dataclasses.replace(shallow(row), image_size=256)
    # XLA also counts norms, softmax and resizing.
    assert flops.forward(arch) == pytest.approx(forward_of(arch), rel=0.03)


def test_arithmetic_of_frozen_encoders():
    arch = config("ldit_vit_b").architecture()
    assert flops.training(arch) == 3 * flops.forward(arch)
    both = flops.training(arch, freeze=("image_encoder", "text_encoder"))
    image = flops.training(arch, freeze=("image_encoder",))
    assert flops.forward(arch) < both < image < flops.training(arch)


def test_utilisation():
    arch = config("ldit_vit_b").architecture()
    work = flops.training(arch)
    of = dict(device_kind="NVIDIA H100 80GB HBM3", devices=2)
    assert flops.mfu(989e12 / work, arch, **of) == pytest.approx(0.5)
    assert flops.mfu(1.0, arch, device_kind="cpu", devices=1) is None
    assert flops.peak("TPU v5 lite") == 197e12
    assert flops.peak("TPU v5") == 459e12


# ----------------------------------------------------------------------------- suggestions


def test_changes_are_ordered_by_cost():
    found = list(suggest.changes(config(batch_size=64), 8))
    assert found[:3] == [{"model.remat": policy} for policy in ("dots", "full", "scan")]
    assert found[3] == {"optim.accumulate": 2}
    assert {"mesh.fsdp": 2, "mesh.data": -1} in found
    dear = [any("batch_size" in key for key in change) for change in found]
    assert dear == sorted(dear)  # nothing that keeps the recipe comes after what changes it
    for change in found:
        smaller = suggest.changed(config(), change)
        sharding.check_batches(smaller.optim, smaller.eval, mesh_of(8))


def test_no_change_is_one_that_training_refuses():
    own = mini_sam.get_config()
    prompts = Config.from_dict(own)
    found = [change.get("model.remat") for change in suggest.changes(prompts, 1)]
    assert {"dots", "full"} <= set(found) and "scan" not in found
    with pytest.raises(ValueError, match="remat is scan, whose blocks are alike"):
        suggest.changed(prompts, {"model.remat": "scan"})


@pytest.mark.parametrize(("chips", "settings"), promised())
def test_what_is_promised_of_a_slice_can_be_run(chips, settings):
    """The rows of docs/tpu.md, by the check that training makes first."""
    own = config()
    for name, value in settings.items():
        own = suggest.changed(own, {name: value})
    sizes = sharding.mesh_sizes(own.mesh, chips)
    sharding.check_batches(own.optim, own.eval, mesh_of(*sizes))


def advised(limit, **changes):
    devices = targets.Devices(jax.devices() * 8, "gpu", {}, simulated=True)
    return plan.advice(config(**changes), devices, hbm_gb=limit, compiled=False)


@pytest.mark.proof
def test_every_kind_of_change_is_found():
    # A sum of gradients is one more copy of them: less than this does not help.
    assert "that fits: --config.optim.accumulate=8: " in advised(3.0)
    assert "accumulate=4 --config.mesh.fsdp=4 --config.mesh.data=-1: " in advised(1.4, remat="full")
    assert "No change of remat, accumulate" in advised(0.01)


def test_the_cheapest_change_that_fits(caplog):
    assert "that fits: --config.model.remat=dots: " in advised(5.0)
    # Each would have named the parameters that stay whole; what comes later is heard again.
    assert not caplog.records
    logging.warning("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]


# ------------------------------------------------------------------------------ the command


SMALL = (
    *("--mode=plan", "--config=configs/quickstart.py", "--config.model.image_size=64"),
    *("--config.eval.batch_size=8", "--config.optim.batch_size=8"),
    "--config.optim.warmup_epochs=0.0",
)


def launch(*arguments):
    env = os.environ | {"JAX_PLATFORMS": "", "XLA_FLAGS": COMPILES_FASTER}
    how = dict(cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    return subprocess.run([sys.executable, "launch.py", *SMALL, *arguments], **how)


@pytest.mark.proof
def test_more_devices_than_there_are():
    done = launch("--devices=8", "--config.mesh.fsdp=4", "--hbm_gb=0.001", "--workdir=unread")
    assert done.returncode == 0, done.stderr
    assert "data 2 × fsdp 4 × tensor 1" in done.stdout
    assert re.search(r"compiler of cpu +0\.\d{3}  too much: ", done.stdout), done.stdout
    assert "The compiler's figure is that of CPUs" in done.stdout
    assert "It does not fit into 0.001 GB." in done.stdout
    assert not (ROOT / "unread").exists()


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        (dict(devices=-1), "--devices is -1; expected a number above 0, or 0 for all."),
        (dict(target="h10"), r"--target is 'h10'; expected one of .* \(nearest: h100\)."),
        (dict(hbm_gb=0.0), "--hbm_gb is 0; expected a number above 0."),
    ],
)
def test_mistakes(how, sentence):
    usual = dict(hbm_gb=80.0, devices=0, target="", compiled=False)
    with pytest.raises(ValueError, match=sentence):
        plan.plan(config(), **(usual | how))


def test_programs_are_written_for_the_planned_device():
    """Head by head on a CPU, all at once elsewhere."""
    q = jax.ShapeDtypeStruct((1, 4, 1024, 8), jnp.float32)
    big = jax.ShapeDtypeStruct((1, 4, 2048, 8), jnp.float32)

    def program():  # a new function each time: traces are kept
        return str(jax.make_jaxpr(lambda q, k: dispatch.attend(q, k, k))(q, big))

    assert "scan" in program()
    with planned_for(Target("tpu")):
        assert "scan" not in program()
    assert "scan" in program()


def test_a_targets_compiler_that_is_missing():
    if importlib.util.find_spec("libtpu"):
        pytest.skip("libtpu is installed")
    failed = launched(*SMALL, "--target=v5e", "--devices=4")
    assert failed.returncode == 1
    assert 'needs its compiler: pip install "jax[tpu]"' in failed.stderr


def test_libtpu_need_not_look_for_a_tpu(monkeypatch):
    """Nor complain on the user's terminal that there is none; what a user says is kept."""
    seen = {}

    def describe(name, platform):
        seen.update(os.environ, name=name)
        return types.SimpleNamespace(devices=jax.devices() * 8)

    monkeypatch.setattr(os, "environ", {"TPU_ACCELERATOR_TYPE": "v6e-8"})
    monkeypatch.setattr(targets.topologies, "get_topology_desc", describe)
    assert len(targets.find("v5e", 8).devices) == 8
    assert seen["name"] == "v5e:2x4"
    found = {name: seen[name] for name in targets.UNASKED}
    assert found == targets.UNASKED | {"TPU_ACCELERATOR_TYPE": "v6e-8"}


def test_the_command_of_the_docs():
    text = (ROOT / "docs" / "memory.md").read_text().replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if line.startswith("    python launch.py")]
    _, *words = line.split()
    how = dict(cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    done = subprocess.run([sys.executable, *words], **how)
    assert done.returncode == 0, done.stderr
    assert "It fits into 16 GB." in done.stdout

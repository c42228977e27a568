"""What a step on several devices sends: parameters and gradients, never the rows of a batch.

Read from the program after XLA has split it, for eight simulated devices of a second client of this
process. Nothing runs.
"""

import functools
import math
import re

import jax
import pytest
from jaxlib import xla_client
from runs import config_of, shrink

from dit_jax.models import params as parameters
from dit_jax.models.architecture import Injection
from dit_jax.plan import compile
from dit_jax.train import abstract, optim
from dit_jax.train import step as steps
from dit_jax.train.placement import sharding

MESHES = {"data": (8, 1, 1), "fsdp": (1, 8, 1), "both": (2, 4, 1)}  # (data, fsdp, tensor)
# Of a batch on one device. No axis of a parameter is a multiple of it, so an axis that is one shows
# a batch, and how much of it, however it was folded.
ROWS = 11
KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
SENT = re.compile(rf"= (.*?) (?:{KINDS})(?:-start)?\(")


@functools.cache
def eight_devices():
    return xla_client.make_cpu_client(num_devices=8).devices()


@pytest.fixture(autouse=True)
def small(monkeypatch):
    shrink(monkeypatch)
    monkeypatch.setattr(sharding, "SMALLEST_SHARDED", 2**10)  # the test's parameters are small


def config_on(mesh, **changes):
    shape = dict(zip(("mesh__data", "mesh__fsdp", "mesh__tensor"), mesh, strict=True))
    rows = ROWS * math.prod(mesh[:2]) * changes.get("optim__accumulate", 1)
    return config_of(**shape, optim__batch_size=rows, eval__batch_size=rows, **changes)


def training(mesh, **changes) -> list[str]:
    """The shapes of all that a training step sends."""
    config = config_on(mesh, **changes)
    return sent(compile.lower(config, sharding.make_mesh(config.mesh, eight_devices())))


def sent(lowered) -> list[str]:
    lines = lowered.compile().as_text().splitlines()
    return [found[1] for found in map(SENT.search, lines) if found]


def of_a_batch(shapes, rows=ROWS) -> list[str]:
    """Those with an axis that is a multiple of this many rows."""

    def axes(shape):
        return (int(n) for listed in re.findall(r"\[([\d,]+)\]", shape) for n in listed.split(","))

    return [shape for shape in shapes if any(n and n % rows == 0 for n in axes(shape))]


def test_fsdp_gathers_weights_and_nothing_else():
    shapes = training(MESHES["fsdp"])
    assert any("[32,96]" in shape for shape in shapes)  # a block's qkv
    assert not of_a_batch(shapes)


@pytest.mark.proof
@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("injection", Injection)
def test_every_method_on_every_mesh(injection, mesh):
    shapes = training(MESHES[mesh], model__injection=injection, model__presence=True)
    assert shapes
    assert not of_a_batch(shapes)


@pytest.mark.proof
@pytest.mark.parametrize(
    "changes",
    [
        dict(model__remat="full", model__dropout=True),
        dict(model__mask_padding=True, model__dtype="bfloat16"),
        dict(optim__accumulate=2),
        dict(model__task="text+clicks", optim__iou_weight=1.0, optim__rounds=1),
        dict(model__task="prompts", optim__rounds=1, eval__protocols=("box",), eval__best="box"),
    ],
    ids=lambda changes: next(iter(changes)).split("__")[1],
)
def test_other_settings(changes):
    assert not of_a_batch(training(MESHES["fsdp"], **changes))


@pytest.mark.proof
@pytest.mark.parametrize("injection", Injection)
def test_a_loop_sends_as_often_however_deep(monkeypatch, injection):
    found = {}
    for depth in (4, 6):
        shrink(monkeypatch, depth=depth)
        found[depth] = training(MESHES["fsdp"], model__injection=injection, model__remat="scan")
        assert not of_a_batch(found[depth])
    assert len(found[4]) == len(found[6])


@pytest.mark.proof
@pytest.mark.parametrize("injection", Injection)
def test_tensor_shares_a_devices_own_rows(injection):
    """Halves of heads and channels add up activations, but of no more rows than a device has."""
    data, fsdp, _ = mesh = (2, 2, 2)
    shapes = training(mesh, model__injection=injection)
    assert of_a_batch(shapes)
    tokens = (1, 20, 25, 16, 36)  # words, prompts, patches, patches and words
    every = {f"{ROWS * data * fsdp * n}" for n in tokens}
    assert not [shape for shape in shapes if every & set(re.findall(r"\d+", shape))]


@pytest.mark.proof
@pytest.mark.parametrize("injection", Injection)
def test_answers_too(injection):
    config = config_on(MESHES["fsdp"], model__injection=injection)
    mesh, arch = sharding.make_mesh(config.mesh, eight_devices()), config.architecture()
    state = abstract.state(arch, mesh, freeze=(), rules=config.optim)
    graph, _ = parameters.structure(arch)
    params = optim.combine(state.trainable, state.frozen)
    placement = jax.tree.map(lambda leaf: leaf.sharding, params)
    batch = abstract.batch(arch, mesh, rows=config.eval.batch_size)
    answer = steps.make_predict_step(graph, mesh=mesh, placement=placement)
    lowered = jax.jit(lambda *given: vars(answer(*given))).lower(params, batch)
    assert not of_a_batch(sent(lowered))

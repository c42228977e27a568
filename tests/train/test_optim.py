"""Freezing, clipping, optimizers, schedules and the average against slow statements of them."""

import dataclasses
import functools
import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import config_of, shallow

from dit_jax import variants
from dit_jax.config import Config
from dit_jax.configs import base
from dit_jax.models import params as parameters
from dit_jax.train import abstract, optim
from dit_jax.train.placement import sharding


@pytest.mark.parametrize("row", variants.VARIANTS)
def test_freezing(row):
    freeze = variants.VARIANTS[row].freeze
    _, shapes = parameters.structure(shallow(row))
    trainable, frozen = (parameters.flatten(x) for x in optim.partition(shapes, freeze))
    assert trainable.keys() | frozen.keys() == parameters.flatten(shapes).keys()
    assert "prompt_encoder.pe_layer.gaussian_matrix" in frozen
    for path in trainable.keys() | frozen.keys():
        new = path.startswith(("image_encoder.injector.", "image_encoder.prob_text."))
        encoder = path.split(".")[0]
        expected = (encoder in freeze and not new) or path.endswith("gaussian_matrix")
        assert (path in frozen) == expected, path


def test_combine_inverts_partition():
    params = {"text_proj": {"bias": 1}, "text_encoder": {"layer": {"0": {"norm": {"bias": 2}}}}}
    trainable, frozen = optim.partition(params, ("text_encoder",))
    assert (trainable, frozen) == (
        {"text_proj": {"bias": 1}},
        {"text_encoder": {"layer": {"0": {"norm": {"bias": 2}}}}},
    )
    assert optim.combine(trainable, frozen) == params


def test_unknown_parameter():
    with pytest.raises(ValueError, match="image_encoder.adapter.kernel matches no row"):
        optim.group("image_encoder.adapter.kernel")


@pytest.mark.parametrize("limit", [0.15, 1e6])
def test_clip_is_torchs(limit):
    from peers import torch

    rng = np.random.default_rng(0)
    grads = {"a": rng.normal(size=(5, 7)), "b": {"c": rng.normal(size=3)}}
    grads = jax.tree.map(lambda x: x.astype(np.float32), grads)
    tensors = [torch.nn.Parameter(torch.zeros(x.shape)) for x in (grads["a"], grads["b"]["c"])]
    for tensor, value in zip(tensors, (grads["a"], grads["b"]["c"]), strict=True):
        tensor.grad = torch.from_numpy(value.copy())
    norm = torch.nn.utils.clip_grad_norm_(tensors, limit)
    clipped, ours = optim.clip(grads, limit)
    np.testing.assert_allclose(ours, norm.item(), rtol=1e-6)
    np.testing.assert_allclose(clipped["a"], tensors[0].grad, rtol=1e-6)
    np.testing.assert_allclose(clipped["b"]["c"], tensors[1].grad, rtol=1e-6)


def test_no_clip():
    clipped, norm = optim.clip({"a": jnp.array([3.0, 4.0])}, 0.0)
    np.testing.assert_array_equal(clipped["a"], [3.0, 4.0])
    assert norm == 5.0


def slow_cosine(step, *, warmup, total):
    if step < warmup:
        return 1e-7 + step * (1e-4 - 1e-7) / warmup
    return 1e-6 + (1e-4 - 1e-6) / 2 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def test_cosine():
    rules = Config.from_dict(base.recipe("ldit_vit_b", "official")).optim
    rate = optim.schedule(rules, steps_per_epoch=10)
    for step in (0, 1, 15, 29, 30, 31, 200, 399):
        expected = slow_cosine(step, warmup=30, total=400)
        np.testing.assert_allclose(rate(step), expected, rtol=1e-5, err_msg=f"step {step}")


def test_steps():
    rules = Config.from_dict(base.recipe("ldit_vit_b", "paper")).optim
    rate = optim.schedule(rules, steps_per_epoch=10)
    expected = {30: 1e-4, 299: 1e-4, 300: 2e-5, 349: 2e-5, 350: 4e-6, 399: 4e-6}
    for step, value in expected.items():
        np.testing.assert_allclose(rate(step), value, rtol=1e-5, err_msg=f"step {step}")
    np.testing.assert_allclose(rate(15), (1e-7 + 1e-4) / 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("referents", "batch_size", "steps"),
    [
        (42_404, 64, 662),  # RefCOCO: the released code leaves the last batch out
        (42_278, 64, 660),  # RefCOCO+
        (42_226, 64, 659),  # RefCOCOg
        (100, 64, 1.5625),  # 40 epochs are 62.5 steps, not 40
        (10, 64, 0.15625),
        (128, 64, 2),
    ],
)
def test_an_epoch_is_all_of_the_data(referents, batch_size, steps):
    assert optim.epoch_steps(referents, batch_size) == steps


def test_length():
    rules = config_of().optim
    assert optim.total_steps(rules, 100) == 4
    assert optim.total_steps(dataclasses.replace(rules, max_steps=0, epochs=2.5), 100) == 250
    short = dataclasses.replace(rules, max_steps=0, epochs=0.1)
    with pytest.raises(ValueError, match="warmup_epochs lasts 10 steps; expected fewer .* run, 10"):
        optim.schedule(short, steps_per_epoch=100)


@pytest.mark.parametrize("recipe", ["paper", "official"])
@pytest.mark.parametrize("steps", [3, 30])
def test_a_run_within_the_warm_up_only_rises(recipe, steps):
    rules = Config.from_dict(base.recipe("ldit_vit_b", recipe)).optim
    rate = optim.schedule(dataclasses.replace(rules, max_steps=steps), steps_per_epoch=10)
    whole = optim.schedule(rules, steps_per_epoch=10)
    rates = [float(rate(step)) for step in range(steps)]
    assert all(a < b for a, b in itertools.pairwise(rates))
    assert rates == [float(whole(step)) for step in range(steps)]
    assert math.isfinite(rate(steps))


@pytest.mark.parametrize(
    ("recipe", "length", "said"),
    [
        ("paper", {}, None),
        ("paper", dict(epochs=30.0), r"optim.epochs=30 ends the run before its rate .* step 300: "),
        ("paper", dict(epochs=30.5), None),
        ("official", dict(epochs=20.0), None),
        ("paper", dict(max_steps=30), r"=30 .* within its warm-up of 30 steps: .*_epochs=3 is in"),
        ("paper", dict(max_steps=300), r"=300 .* before its rate .* at step 300: .* in epochs"),
        ("paper", dict(max_steps=301), None),
        ("official", dict(max_steps=30), "within its warm-up of 30 steps"),
        ("official", dict(max_steps=31), None),
    ],
)
def test_a_run_that_its_length_cuts_short_is_told(recipe, length, said):
    rules = Config.from_dict(base.recipe("ldit_vit_b", recipe)).optim
    found = optim.cut_short(dataclasses.replace(rules, **length), steps_per_epoch=10)
    assert (found is None) if said is None else re.search(said, found)


def test_average():
    ema, param = {"a": jnp.array([1.0])}, {"a": jnp.array([2.0])}
    for step, decay in ((0, 0.1), (8, 0.5), (10**6, 0.9997)):
        new = optim.average(ema, param, step=jnp.int32(step), limit=0.9997)
        np.testing.assert_allclose(new["a"], [decay + (1 - decay) * 2], rtol=1e-6)


def test_adam_is_torchs():
    from peers import torch

    rules = Config.from_dict(base.recipe("ldit_vit_b", "official")).optim
    rng = np.random.default_rng(0)
    start = rng.normal(size=6).astype(np.float32)
    tensor = torch.nn.Parameter(torch.from_numpy(start.copy()))
    reference = torch.optim.Adam([tensor], lr=0.01, betas=rules.betas, eps=rules.eps)
    params = {"a": jnp.asarray(start)}
    state = optim.direction(rules).init(params)
    for _ in range(5):
        grad = rng.normal(size=6).astype(np.float32)
        tensor.grad = torch.from_numpy(grad)
        reference.step()
        direction, state = optim.direction(rules).update({"a": jnp.asarray(grad)}, state)
        params = {"a": params["a"] - 0.01 * direction["a"]}
    np.testing.assert_allclose(params["a"], tensor.detach().numpy(), rtol=2e-5)


def orthogonal(matrix):
    """Five of Jordan's steps, in float64."""
    x = matrix / np.linalg.norm(matrix)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x


def test_muon_moves_matrices_along_their_orthogonal_momentum_and_the_rest_as_adam():
    rules = dataclasses.replace(
        Config.from_dict(base.recipe("ldit_vit_b", "official")).optim, name="muon"
    )
    rng = np.random.default_rng(0)
    shapes = {"a": {"kernel": (9, 16), "bias": (16,)}, "table": (9, 16), "head": {"kernel": (9, 4)}}
    is_shape = lambda x: isinstance(x, tuple)  # noqa: E731
    draw = functools.partial(jax.tree.map, lambda shape: rng.normal(size=shape), is_leaf=is_shape)
    moves, adam = optim.direction(rules), optim.direction(dataclasses.replace(rules, name="adam"))
    params = jax.tree.map(jnp.asarray, draw(shapes))
    state, plain = moves.init(params), adam.init(params)
    momentum, beta = np.zeros((9, 16)), 0.95
    for step in range(1, 4):
        grads = draw(shapes)
        momentum = beta * momentum + (1 - beta) * grads["a"]["kernel"]
        ahead = beta * momentum / (1 - beta ** (step + 1))
        ahead += (1 - beta) * grads["a"]["kernel"] / (1 - beta**step)
        found, state = moves.update(jax.tree.map(jnp.asarray, grads), state)
        expected, plain = adam.update(jax.tree.map(jnp.asarray, grads), plain)
        # Of the size of Adam's: as if all entries of the longer side were 0.2.
        expected["a"]["kernel"] = orthogonal(ahead) * 0.2 * 16**0.5
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5), found, expected
        )


def test_muon_keeps_one_moment_of_a_matrix_where_its_parameter_lies():
    config = config_of(optim__name="muon")
    arch, mesh = config.architecture(), sharding.make_mesh(config.mesh, jax.devices()[:1])
    state = abstract.state(arch, mesh, freeze=(), rules=config.optim)
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim)
    flat = parameters.flatten(state.trainable)
    of = parameters.flatten(optim.matrices(state.trainable))
    chosen = {path for path, is_one in of.items() if is_one}
    assert "image_encoder.blocks.0.attn.qkv.kernel" in chosen
    assert not [path for path in chosen if re.search("embed|table|conv|norm|gaussian", path)]
    once = sum(flat[path].size for path in chosen)
    twice = sum(leaf.size for path, leaf in flat.items() if path not in chosen)
    assert moments == once + 2 * twice + 3  # the polynomial

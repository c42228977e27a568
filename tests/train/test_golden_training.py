"""Recorded loss, gradients and five optimiser steps of the PyTorch references."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import TOLERANCE, assert_close
from goldens import VARIANTS, Golden, channels_last

from dit_jax.config import Config
from dit_jax.configs import quickstart
from dit_jax.convert import layout
from dit_jax.models import params as params_lib
from dit_jax.train import optim, state, step
from dit_jax.weights import directory


class Run:
    """A recorded model as training sees it."""

    def __init__(self, golden):
        arch, self.params = directory.read(golden.directory)
        self.params = jax.tree.map(jnp.asarray, self.params)
        self.graph, _ = params_lib.structure(arch)
        ref, self.recorded = golden.arrays, golden.about["train"]
        self.inputs = {
            "images": jnp.asarray(golden.images()),
            "input_ids": ref["in_input_ids"].astype(np.int32),
            "attention_mask": ref["in_attention_mask"].astype(np.int32),
            "target": jnp.asarray(channels_last(ref["in_target"])[..., 0]),
        }
        names = ("eps", "lr", "min_lr", "warmup_lr", "clip", "ema")
        self.rules = dataclasses.replace(
            Config.from_dict(quickstart.get_config()).optim,
            name="adam",
            betas=tuple(self.recorded["betas"]),
            schedule="cosine",
            epochs=float(self.recorded["epochs"]),
            warmup_epochs=float(self.recorded["warmup_epochs"]),
            max_steps=0,
            **{name: self.recorded[name] for name in names},
        )
        self.gradients = jax.jit(self.loss_and_grads)

    def loss_and_grads(self, trainable, frozen, inputs):
        metrics, grads = step.loss_and_grads(self.graph, trainable, frozen, inputs, None)
        return metrics["loss"], grads

    def start(self):
        return state.create(self.params, freeze=(), rules=self.rules)


@pytest.fixture(scope="module", params=VARIANTS)
def golden(request, shared, tmp_path_factory):
    return Golden(shared, request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def run(golden):
    return Run(golden)


def in_torch(params):
    """Our nested parameters under the reference's names and axes."""
    return {
        layout.torch_name(path): layout.to_torch(path, np.asarray(value))
        for path, value in params_lib.flatten(params).items()
    }


def test_loss_and_gradients(golden, run):
    start = run.start()
    loss, grads = run.gradients(start.trainable, start.frozen, run.inputs)
    assert_close(loss, golden.arrays["loss"], "loss")
    grads, weights, about = in_torch(grads), golden.weights, golden.about
    largest = max(norm for norm in about["grad_norm"].values() if norm)
    for name, norm in about["grad_norm"].items():
        if name not in grads:  # declared by the reference, never used
            assert norm is None or norm == 0.0, name
            continue
        actual = np.linalg.norm(grads[name].astype(np.float64))
        assert abs(actual - (norm or 0.0)) <= TOLERANCE * largest, f"norm of {name}"
        projection = about["grad_projection"][name] or 0.0
        difference = abs(weights.projection(name, grads[name]) - projection)
        assert difference <= TOLERANCE * max(abs(projection), norm or 0.0, 1e-2 * largest), name


STEPS = [
    name if name == "layer_wise" else pytest.param(name, marks=pytest.mark.proof)
    for name in VARIANTS
]


@pytest.mark.parametrize("golden", STEPS, indirect=True, scope="module")
def test_five_steps(golden, run):
    """Loss, rate and gradient norm of every step; parameters and averages after the last."""
    recorded = run.recorded
    rate = optim.schedule(run.rules, steps_per_epoch=recorded["steps_per_epoch"])
    update = jax.jit(
        lambda s, grads, loss: step.apply_gradients(
            s, grads, loss=loss, rules=run.rules, rate=rate(s.step)
        )
    )
    now = run.start()
    for entry in recorded["log"]:
        loss, grads = run.gradients(now.trainable, now.frozen, run.inputs)
        assert_close(loss, entry["loss"], f"loss of step {entry['step']}")
        assert_close(rate(now.step), entry["lr"], f"lr of step {entry['step']}")
        now, norm = update(now, grads, loss)
        assert_close(norm, entry["grad_norm"], f"gradient norm of step {entry['step']}")
    compare(golden, optim.combine(now.trainable, now.frozen), recorded["param_projection"])
    compare(golden, now.ema, recorded["ema_projection"])


def compare(golden, params, projections):
    """Projections, relative to the norm of what is projected."""
    for name, value in in_torch(params).items():
        actual = golden.weights.projection(name, value)
        scale = max(abs(projections[name]), np.linalg.norm(value.astype(np.float64)))
        assert abs(actual - projections[name]) <= TOLERANCE * scale, name

"""Steps whose loss or gradients are no numbers: they change nothing, are named and counted."""

import json

import jax
import numpy as np
import pytest
from runs import FIVE_STEPS, config_of, train_step_of

from dit_jax.train import loop
from dit_jax.train import step as steps
from dit_jax.train.checkpoint import Checkpoints
from dit_jax.train.logs.nonfinite import NonFinite
from dit_jax.train.run import Run

pytestmark = pytest.mark.usefixtures("small")

# Scored at the end alone: an evaluation places batches too, which `poison` counts.
CHANGES = FIVE_STEPS | dict(eval__every_steps=0, checkpoint__every_steps=0, train__max_nonfinite=2)
CONFIG = config_of(**CHANGES)


def poisoned(batch):
    """The batch with masks of no numbers, and so a loss and gradients of none."""
    return batch | {"mask": np.full(batch["mask"].shape, np.nan, np.float32)}


def poison(monkeypatch, *numbers):
    """Make the batches of these steps (from 1) such ones."""
    left, place = iter(range(1, 1000)), steps.place_batch

    def placed(batch, mesh):
        return place(poisoned(batch) if next(left) in numbers else batch, mesh)

    monkeypatch.setattr(loop.steps, "place_batch", placed)


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("accumulate", [1, pytest.param(2, marks=pytest.mark.proof)])
def test_a_step_without_numbers_changes_nothing_but_the_count(tmp_path, accumulate):
    run = Run.of(config_of(**FIVE_STEPS, optim__accumulate=accumulate), tmp_path)
    placement, train_step = train_step_of(run)
    state = run.first_state(placement)
    batch = next(run.batches)
    run.batches.close()
    before = jax.device_get(state)
    wrong = steps.place_batch(poisoned(batch), run.model.mesh)
    state, metrics = train_step(state, wrong, jax.random.key(0))
    assert not np.isfinite(metrics["loss"]) and not np.isfinite(metrics["grad_norm"])
    after = jax.device_get(state)
    assert (before.step, after.step) == (0, 1)
    for tree in ("trainable", "opt_state", "ema", "frozen"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, tree), getattr(before, tree))
    state, metrics = train_step(state, steps.place_batch(batch, run.model.mesh), jax.random.key(0))
    assert np.isfinite(metrics["loss"])


def test_such_steps_are_named_counted_and_survived(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        poison(patch, 2, 4)
        loop.train(CONFIG, tmp_path)
    said = capsys.readouterr().out
    for step in (2, 4):
        text = f"step {step} changed nothing: loss is nan and grad_norm is nan, expected numbers;"
        assert said.count(f"{text} records shapes train item ") == 1
    rows = [line for line in lines(tmp_path) if "train/lr" in line]
    assert [line.get("train/nonfinite", 0) for line in rows] == [0, 1, 1, 2, 2]
    assert ["train/loss" in line for line in rows] == [True, False, True, False, True]
    with Checkpoints(tmp_path, CONFIG.checkpoint) as checkpoints:
        assert checkpoints.meta(5)["nonfinite"] == {"total": 2, "in_a_row": 0}


def test_too_many_in_a_row_end_the_run_and_harm_nothing(trained, tmp_path, monkeypatch):
    config = config_of(**CHANGES | dict(checkpoint__every_steps=2))
    with monkeypatch.context() as patch:
        poison(patch, 3, 4)
        with pytest.raises(ValueError, match="step 4 changed nothing: .* number 2 in a row, so tr"):
            loop.train(config, tmp_path)
    assert loop.train(config, tmp_path)  # the data are well again
    expected = (trained / "model_final" / "model.safetensors").read_bytes()
    for name in ("model", "model_final"):
        assert (tmp_path / name / "model.safetensors").read_bytes() == expected


def test_the_count_in_a_row_outlives_a_restart():
    failures = NonFinite(3)
    failures.add(1, {"loss": float("nan"), "grad_norm": 1.0}, names=["a"])
    again = NonFinite(3)
    again.restore(failures.record())
    text = again.add(2, {"loss": 0.0, "grad_norm": float("inf")}, names=["b", "c"])
    assert text == "step 2 changed nothing: grad_norm is inf, expected numbers; records b, c."
    with pytest.raises(ValueError, match="number 3 in a row"):
        again.add(3, {"loss": float("nan"), "grad_norm": 1.0}, names=["d"])
    again.passed()
    assert again.record() == {"nonfinite": {"total": 3, "in_a_row": 0}}

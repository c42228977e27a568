"""SAM's loss on the predicted IoU: its arithmetic, what it reaches, and who says that it was on."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import config_of, small_runs, train_step_of
from small_models import PLAIN, architecture, random_params

from dit_jax.config import Config
from dit_jax.configs import base, grefcoco, own_data, quickstart
from dit_jax.models import params as parameters
from dit_jax.models.architecture import from_json, to_json
from dit_jax.models.dit_sam import Prediction
from dit_jax.train import step as steps
from dit_jax.train import workdir
from dit_jax.train.model import check_architecture
from dit_jax.train.objective import TEXT, Objective, iou_loss
from dit_jax.train.run import Run
from dit_jax.weights import directory

HEAD = "mask_decoder.iou_prediction_head.layers.2.kernel"
FAST = dict(xla_backend_optimization_level=0, xla_llvm_disable_expensive_passes=True)


def test_the_loss_is_that_of_the_mask_that_is_answered():
    """Above 0.35, without the padding, and 1 where nothing is meant and nothing found."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 16, 16)).astype(np.float32)
    target = rng.random((4, 16, 16)).astype(np.float32)
    content = np.array([[0, 0, 16, 16], [4, 0, 8, 16], [0, 3, 16, 9], [0, 0, 16, 16]], np.int32)
    logits[3], target[3] = -9.0, 0.0
    predicted = np.array([0.2, 0.9, -0.3, 0.75], np.float32)
    squares = []
    for row, (top, left, height, width) in enumerate(content.tolist()):
        here = (row, slice(top, top + height), slice(left, left + width))
        mask, truth = 1 / (1 + np.exp(-logits[here])) > 0.35, target[here] > 0.5
        union = (mask | truth).sum()
        iou = (mask & truth).sum() / union if union else 1.0
        squares.append((predicted[row] - iou) ** 2)
    said = Prediction(jnp.asarray(logits), logits[:, ::4, ::4], jnp.asarray(predicted), None)
    inputs = {"content": jnp.asarray(content), "target": jnp.asarray(target)}
    found = iou_loss(said, inputs)
    assert found.dtype == jnp.float32
    assert float(found) == pytest.approx(np.mean(squares), rel=1e-6)


def test_without_a_weight_it_is_not_there_and_with_one_it_trains_the_head():
    arch = architecture()
    graph, params = parameters.structure(arch)[0], random_params(arch)
    rng = np.random.default_rng(1)
    inputs = dict(
        images=rng.normal(size=(2, 64, 64, 3)).astype(np.float32),
        content=np.array([[0, 0, 64, 64], [8, 0, 48, 64]], np.int32),
        input_ids=rng.integers(5, 90, (2, 12), dtype=np.int32),
        attention_mask=np.ones((2, 12), np.int32),
        target=rng.random((2, 64, 64)).astype(np.float32),
        present=np.ones(2, bool),
    )
    inputs = jax.tree.map(jnp.asarray, inputs)
    how = dict(dropout=False, remat="none")
    alone = compiled(lambda p: TEXT(parameters.merge(graph, p), inputs, None, **how), params)
    assert alone.keys() == {"loss"}
    step = functools.partial(steps.loss_and_grads, graph, frozen={}, inputs=inputs, key=None)
    metrics, grads = compiled(functools.partial(step, objective=Objective(iou_weight=0.5)), params)
    added = float(metrics["loss"]) - 0.5 * float(metrics["iou_loss"])
    assert float(alone["loss"]) == pytest.approx(added, rel=1e-5)
    assert float(metrics["iou_loss"]) > 0
    # Only of the first mask, which is the one that is answered.
    kernel = np.asarray(parameters.flatten(grads)[HEAD])
    assert np.abs(kernel[:, 0]).max() > 1e-6
    assert not kernel[:, 1:].any()


def compiled(function, params):
    """Its value; compiling takes longer than running."""
    return jax.jit(function).lower(params).compile(compiler_options=FAST)(params)


def test_recipes_say_whether_it_is_on():
    """Off where a paper or a released checkpoint is to be repeated."""
    rows = [base.recipe("ldit_vit_b", name) for name in base.RECIPES] + [grefcoco.get_config()]
    for config in map(Config.from_dict, rows):
        assert config.optim.iou_weight == 0
        assert config.architecture().score_kind == "confidence"
    for made in (quickstart.get_config(), own_data.get_config(), own_data.get_config("ldit_vit_b")):
        config = Config.from_dict(made)
        assert config.optim.iou_weight > 0
        assert config.architecture().score_kind == "predicted_iou"


def test_a_run_of_before_goes_on_without_it(tmp_path):
    """It had no such key, and trained no head."""
    workdir.write_json(tmp_path / workdir.CONFIG, {"seed": 0})
    workdir.check_same(tmp_path, {"seed": 0} | workdir.FORMER)
    with pytest.raises(ValueError, match=r"optim.iou_weight: 0.0 → 0.1"):
        workdir.check_same(tmp_path, {"seed": 0} | workdir.FORMER | {"optim.iou_weight": 0.1})


@pytest.mark.parametrize(("changes", "trained"), [({}, False), (PLAIN, True)])
def test_a_directory_says_whether_its_head_was_trained(changes, trained):
    """Also an older one: SAM's was, a DIT's was not."""
    arch = architecture(**changes)
    older = {key: value for key, value in to_json(arch).items() if key != "iou_trained"}
    assert from_json(older).iou_trained is from_json(to_json(arch)).iou_trained is trained
    other = architecture(**changes, iou_trained=not trained)
    assert from_json(to_json(other)).iou_trained is not trained
    check_architecture(other, arch, folder="models/x")  # training decides anew


def test_a_run_notes_that_its_head_was_trained(trained):
    """In the directory, in its scores, and so wherever either is read."""
    assert directory.read_contents(trained / "model").architecture.iou_trained
    files = sorted((trained / "eval").glob("*.json"))
    rows = [json.loads(path.read_text()) for path in files]
    assert rows and {row["score_kind"] for row in rows} == {"predicted_iou"}
    assert all(0 <= row["AURC"] <= 100 and row["ECE"] >= 0 for row in rows)
    assert "AURC" in (trained / "eval" / "scores.md").read_text()


@pytest.mark.proof
def test_it_learns_how_good_its_masks_are(tmp_path):
    """On one batch: masks get better, and the head knows by how much."""
    with small_runs(tmp_path):
        run = Run.of(config_of(optim__iou_weight=0.1, optim__max_steps=150), tmp_path)
        placement, train_step = train_step_of(run)
        batch = steps.place_batch(next(run.batches), run.model.mesh)
        run.batches.close()
        state, losses = run.first_state(placement), []
        for _ in range(150):
            state, metrics = train_step(state, batch, jax.random.key(0))
            losses.append(metrics["iou_loss"])
    assert float(losses[-1]) < 0.01 < float(losses[0])

"""The train step: it learns, compiles once, leaves frozen weights alone, accumulates exactly."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import FIVE_STEPS, config_of, train_step_of

from dit_jax.data.pixels.transforms import letterbox
from dit_jax.models import params as parameters
from dit_jax.ops.pixels import MEAN, STD, normalize
from dit_jax.train import optim
from dit_jax.train import step as steps
from dit_jax.train.objective import Objective
from dit_jax.train.placement import sharding
from dit_jax.train.run import Run
from dit_jax.train.state import evaluated

pytestmark = pytest.mark.usefixtures("small")

FIRST = "image_encoder.patch_embed.proj.kernel"
HEAD = "mask_decoder.presence_head.layers.2.kernel"


def prepared(tmp_path, **changes):
    """(run, state, step function, a batch on the devices)."""
    run = Run.of(config_of(**changes), tmp_path)
    placement, train_step = train_step_of(run)
    batch = steps.place_batch(next(run.batches), run.model.mesh)
    run.batches.close()
    return run, run.first_state(placement), train_step, batch


def test_learns_and_compiles_once(tmp_path):
    _, state, train_step, batch = prepared(tmp_path, **FIVE_STEPS)
    losses, rates, before = [], [], train_step._cache_size()
    for _ in range(5):
        state, metrics = train_step(state, batch, jax.random.key(0))
        losses.append(float(metrics["loss"]))
        rates.append(float(metrics["lr"]))
    assert metrics.keys() == {"loss", "iou_loss", "lr", "grad_norm"}
    assert losses[-1] < 0.7 * losses[0]
    assert rates[0] < rates[1]
    assert int(state.step) == 5
    assert train_step._cache_size() <= before + 1  # another test may have compiled it
    assert isinstance(metrics["loss"], jax.Array)


@pytest.mark.parametrize("changes", [dict(model__presence=True), dict(model__task="text+clicks")])
def test_a_process_that_computes_in_64_bits_keeps_the_types_of_a_state(tmp_path, changes):
    with jax.enable_x64(True):
        _, state, train_step, batch = prepared(tmp_path, **FIVE_STEPS | changes)
        after, metrics = jax.eval_shape(train_step, state, batch, jax.random.key(0))
    assert jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(lambda x: x.dtype, state)
    assert {x.dtype for x in jax.tree.leaves(after.trainable)} == {np.dtype("float32")}
    assert metrics["loss"].dtype == np.dtype("float32")


@pytest.mark.proof
@pytest.mark.parametrize("presence", [False, True])
def test_in_a_process_that_computes_in_64_bits(tmp_path, presence):
    """Where a user's own code asked for them: a step takes and gives what it does without."""
    changes = FIVE_STEPS | dict(model__presence=presence)
    _, state, train_step, batch = prepared(tmp_path, **changes)
    _, expected = train_step(state, batch, jax.random.key(0))
    with jax.enable_x64(True):
        _, state, train_step, batch = prepared(tmp_path, **changes)
        after, found = train_step(state, batch, jax.random.key(0))
    assert {x.dtype for x in jax.tree.leaves(after.trainable)} == {np.dtype("float32")}
    assert float(found["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-5)


def test_frozen_weights_stay(tmp_path):
    """Both encoders'; the injection and the decoder with its presence head learn."""
    _, state, train_step, batch = prepared(
        tmp_path, model__freeze=("image_encoder", "text_encoder"), model__presence=True
    )
    before = jax.device_get(state.frozen)
    trainable = jax.device_get(state.trainable)
    moments = parameters.flatten(state.opt_state.mu).keys()
    assert moments == parameters.flatten(trainable).keys()
    assert moments == parameters.flatten(state.ema).keys()
    for _ in range(2):
        state, metrics = train_step(state, batch, jax.random.key(0))
    assert {"presence_loss", "presence_accuracy"} < metrics.keys()
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(state.frozen))
    changed = parameters.flatten(jax.device_get(state.trainable))
    assert FIRST in parameters.flatten(before)
    for path in ("image_encoder.injector.probs.0.kernel", HEAD):
        assert np.any(changed[path] != parameters.flatten(trainable)[path])
        assert np.any(parameters.flatten(jax.device_get(state.ema))[path] != changed[path])


def test_what_is_not_needed_is_not_computed(tmp_path):
    """Of a frozen BERT only the layers that are read run, and none of them backwards."""
    run = Run.of(config_of(model__freeze=("image_encoder", "text_encoder")), tmp_path)
    run.batches.close()
    rows = products(run, freeze=("image_encoder", "text_encoder"))
    backwards = products(run, freeze=("image_encoder",))
    assert 0 < rows < backwards
    bert = run.model.arch.bert
    deeper = dataclasses.replace(run.model.arch, bert=dataclasses.replace(bert, depth=3))
    assert products(run, freeze=("image_encoder", "text_encoder"), arch=deeper) == rows


def products(run, *, freeze, arch=None):
    """Matrix products that read a word's features, after dead code is gone."""
    graph, abstract = parameters.structure(arch or run.model.arch)
    trainable, frozen = optim.partition(abstract, freeze)
    shape = jax.ShapeDtypeStruct
    words = shape((2, 20), jnp.int32)
    inputs = dict(
        images=shape((2, 64, 64, 3), jnp.float32),
        input_ids=words,
        attention_mask=words,
        target=shape((2, 64, 64), jnp.float32),
        present=shape((2,), bool),
    )
    step = functools.partial(steps.loss_and_grads, graph, key=None)
    fast = dict(xla_backend_optimization_level=0, xla_llvm_disable_expensive_passes=True)
    lowered = jax.jit(step).lower(trainable, frozen, inputs)
    text = lowered.compile(compiler_options=fast).as_text()
    return len(re.findall(r" dot\(", text))


def test_accumulation_is_one_large_batch(tmp_path):
    """Without dropout, the gradients of the parts average to those of the whole; remat or not."""
    run, state, _, batch = prepared(tmp_path, model__presence=True)
    batch |= {"present": jnp.arange(8) % 3 > 0}  # the halves differ

    @functools.partial(jax.jit, static_argnames="config")
    def grads(state, batch, config):
        about = dict(parts=config.optim.accumulate, mesh=run.model.mesh)
        about |= dict(objective=Objective.of(config), remat=config.model.remat)
        return steps.accumulated(run.model.graph, state, batch, None, **about)

    in_parts = config_of(optim__accumulate=2, model__remat="dots")
    whole, parts = grads(state, batch, run.config), grads(state, batch, in_parts)
    assert whole[0].keys() == {"loss", "presence_loss", "presence_accuracy", "iou_loss"}
    assert float(whole[0]["presence_accuracy"]) == pytest.approx(5 / 8)  # all "something" so far
    scales = (whole[0]["loss"], whole[1])
    largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(scales))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * largest), parts, whole
    )


def test_normalize():
    image = np.full((20, 32, 3), 100, np.uint8)
    canvas, content = letterbox(image, 32)
    normal = normalize(jnp.asarray(canvas)[None], jnp.asarray([content]))[0]
    top, left, h, w = content
    inside = np.zeros((32, 32), bool)
    inside[top : top + h, left : left + w] = True
    np.testing.assert_array_equal(normal[~inside], 0.0)
    expected = (100 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(normal[inside], np.tile(expected, (inside.sum(), 1)), rtol=1e-5)


def test_predict_step(tmp_path):
    run, state, _, batch = prepared(tmp_path, **FIVE_STEPS)
    _, abstract = parameters.structure(run.model.arch)
    placement = sharding.shardings(abstract, run.model.mesh)
    predict = steps.make_predict_step(run.model.graph, mesh=run.model.mesh, placement=placement)
    answers = predict(evaluated(state), batch)
    assert answers.logits.shape == (8, 64, 64)
    assert answers.logits.dtype == jnp.float32
    assert answers.presence is None

"""Points and boxes in rounds: sampling and losses against statements in NumPy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close
from runs import config_of
from small_models import PLAIN, architecture, random_params

from dit_jax.models import params as parameters
from dit_jax.models.dit_sam import Prediction
from dit_jax.models.mask_decoder import EVERY, SEVERAL, SINGLE
from dit_jax.models.prompting import Answering, Prompts, nothing
from dit_jax.train import clicks, interactive, objective, step
from dit_jax.train import state as states
from dit_jax.train.placement import sharding

SIZE = 64
KEY = jax.random.key(7)


def masks() -> jax.Array:
    """A disk, a bar, a single pixel and nothing."""
    y, x = np.mgrid[:SIZE, :SIZE]
    found = [(x - 20) ** 2 + (y - 40) ** 2 < 100, (y > 50) & (x > 30), (x == 5) & (y == 9), x < 0]
    return jnp.asarray(np.stack(found))


@functools.cache
def sam():
    """(model, embedding of four noise pictures)"""
    arch = architecture(**PLAIN)
    params = jax.tree.map(jnp.asarray, random_params(arch))
    model = parameters.merge(parameters.structure(arch)[0], params)
    noise = np.random.default_rng(0).standard_normal((4, SIZE, SIZE, 3)).astype(np.float32)
    return model, jax.jit(lambda images: model.image_encoder(images))(noise)


def test_boxes_lie_around_masks_within_the_noise():
    given = masks()[:3]
    tight = np.asarray(clicks.bounds(given))
    expected = []
    for mask in np.asarray(given):
        ys, xs = np.nonzero(mask)
        expected.append([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    np.testing.assert_array_equal(tight, expected)
    drawn = np.stack([clicks.boxes(jax.random.key(i), given) for i in range(200)])
    moved, sides = drawn - tight, np.tile(tight[:, 2:] - tight[:, :2], 2)
    assert np.abs(moved).max() <= clicks.MOST_NOISE * SIZE + 1e-5
    assert drawn.min() >= 0 and drawn.max() <= SIZE
    free = moved[:, 2]  # a single pixel: its noise is never cut
    assert free.std() == pytest.approx(0.1 * sides[2, 0], rel=0.1)


def test_points_are_uniform_over_their_region():
    region = masks()[:1]
    found = np.concatenate([clicks.points(jax.random.key(i), region) for i in range(600)])
    x, y = found.astype(int).T
    assert np.asarray(region)[0][y, x].all()
    assert found.mean(axis=0) == pytest.approx([20, 40], abs=1)
    assert found.std(axis=0) == pytest.approx([5, 5], rel=0.15)  # of a disk of radius 10


def test_corrections_are_wrong_pixels_with_their_labels():
    truth = np.asarray(masks())[[0, 1, 0]]
    answer = np.stack([np.zeros_like(truth[0]), truth[1] | (np.arange(SIZE) < 3), truth[2]])
    found, labels = clicks.corrections(KEY, *map(jnp.asarray, (truth, answer)))
    x, y = np.asarray(found).astype(int).T
    assert truth[0][y[0], x[0]] and answer[1][y[1], x[1]] and not truth[1][y[1], x[1]]
    assert truth[2][y[2], x[2]]  # nothing is wrong: a pixel of the object
    assert np.asarray(labels).tolist() == [1, 0, 1]


def test_mask_losses_are_focal_and_dice():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (2, 3, 8, 8))
    logits[0, 0, 0, :4] = [90, -90, 30, -30]  # probabilities of 0 and 1 in float32
    target = rng.random((2, 8, 8)) < 0.3
    p = 1 / (1 + np.exp(-logits))
    t = np.broadcast_to(target[:, None], p.shape)
    right, balance = np.where(t, p, 1 - p), np.where(t, 0.25, 0.75)
    surprise = np.logaddexp(0, np.where(t, -logits, logits))  # -log(right)
    focal = (balance * (1 - right) ** 2 * surprise).mean((2, 3))
    dice = 1 - (2 * (p * t).sum((2, 3)) + 1) / (p.sum((2, 3)) + t.sum((2, 3)) + 1)
    found = interactive.mask_losses(jnp.asarray(logits, jnp.float32), jnp.float32(target))
    assert_close(found, 20 * focal + dice, "mask losses")
    slope = jax.grad(lambda x: interactive.mask_losses(x, jnp.float32(target)).sum())
    assert np.isfinite(slope(jnp.asarray(logits, jnp.float32))).all()


def test_rows_of_different_prompts_equal_decode():
    """A box, a point, and a point with a box: each as `decode` answers it alone."""
    model, embedding = sam()
    embedding = embedding[:3]
    boxes = np.float32([[5, 6, 40, 50], [0, 0, 0, 0], [8, 9, 30, 60]])
    points = np.float32([[[0, 0]], [[12, 33]], [[15, 20]]])
    labels, given = np.int32([[0], [1], [0]]), np.array([[False], [True], [True]])
    prompts = Prompts(points, labels, given, boxes, np.array([True, False, True]))
    alone = (
        dict(boxes=boxes[:1]),
        dict(points=(points[1:2], labels[1:2])),
        dict(points=(points[2:], labels[2:]), boxes=boxes[2:]),
    )

    @jax.jit
    def answers(embedding):
        rows = [
            [model.decode(embedding[i : i + 1], **prompt, multimask=m) for m in (False, True)]
            for i, prompt in enumerate(alone)
        ]
        return Answering(model, embedding)(prompts, wanted=EVERY), rows

    (whole, small, iou), rows = answers(embedding)
    for row, kinds in enumerate(rows):
        for wanted, said in zip((SINGLE, SEVERAL), kinds, strict=True):
            assert_close(small[row, wanted], said.low_res_logits[0], f"row {row}")
            assert_close(whole[row, wanted], said.logits[0], f"row {row}")
            assert_close(iou[row, wanted], said.iou[0], f"row {row}")


def test_first_round_is_the_best_of_three_or_a_box():
    model, embedding = sam()
    truth = masks()
    start = interactive.starting(jax.random.split(KEY)[0], truth, rounds=0)

    @jax.jit
    def measured(embedding):
        answering = Answering(model, embedding)
        whole, _, predicted = answering(start, wanted=EVERY)
        each = interactive.mask_losses(whole, jnp.float32(truth))
        metrics = interactive.prompt_losses(answering, jnp.float32(truth), KEY, rounds=0)
        return whole, predicted, each, metrics["loss"]

    whole, predicted, each, loss = map(np.asarray, measured(embedding))
    pairs = zip(whole, np.asarray(truth), strict=True)
    found = np.array([[_iou(one > 0, mask) for one in row] for row, mask in pairs])
    errors = (predicted - found) ** 2
    boxed = np.asarray(start.boxed)[:3]
    assert boxed.any() and not boxed.all()  # the key gives both kinds
    rows = [
        each[i, 0] + errors[i, 0] if box else each[i, 1:].min() + errors[i, 1:].mean()
        for i, box in enumerate(boxed)  # the last row has no object
    ]
    assert float(loss) == pytest.approx(np.mean(rows), rel=1e-5)


def test_rounds_correct_and_add_up():
    """Five rounds: the first, two points, the mask alone in between and at the end."""
    model, embedding = sam()
    truth = masks()
    answering, target = Answering(model, embedding), jnp.float32(truth)

    @jax.jit
    def measured(embedding, key):
        there = dataclasses.replace(answering, embedding=embedding)
        return interactive.prompt_losses(there, target, key, rounds=2)

    alone = measured(embedding, KEY)
    other = measured(embedding.at[3].add(1.0), KEY)  # the row without an object
    for name, value in alone.items():
        assert np.isfinite(value) and float(value) == pytest.approx(float(other[name]), rel=1e-6)
    start = interactive._Round(nothing(4, places=2), *jnp.zeros((2, 4, SIZE, SIZE)))
    start = dataclasses.replace(start, small=jnp.zeros((4, SIZE // 4, SIZE // 4)))
    about = dict(rounds=2, first=0, weights=jnp.float32([1, 1, 1, 0]))
    about |= dict(judge=interactive._cross_entropy)
    losses, last = interactive.later(answering, start, truth, target, KEY, **about)
    assert losses.shape == (4,) and last.shape == (4,)


def test_answers_before_are_not_differentiated():
    """The gradient by a mask's embedding flows through its own round alone."""
    model, embedding = sam()
    truth, target = masks(), jnp.float32(masks())

    def loss(before):
        start = interactive._Round(nothing(4, places=1), jnp.zeros((4, SIZE, SIZE)), before)
        about = dict(rounds=1, first=0, weights=jnp.ones(4), judge=interactive._cross_entropy)
        answering = Answering(model, embedding)
        return interactive.later(answering, start, truth, target, KEY, **about)[0].sum()

    small = jnp.zeros((4, SIZE // 4, SIZE // 4))
    assert not np.asarray(jax.jit(jax.grad(loss))(small)).any()


def areas(answering, target, *others, rounds):
    """In place of losses: the mean area of objects."""
    found = interactive._mean(target.sum(axis=(1, 2)), target.any(axis=(1, 2)).astype(jnp.float32))
    return {"loss": found, "click_loss": found}


@pytest.mark.parametrize("parts", [1, 2, 4])  # the last of four has no object
def test_an_object_counts_as_much_in_whatever_part_of_a_batch_it_is(monkeypatch, parts):
    def measured(graph, trainable, frozen, inputs, key):
        return objective.of_part(areas(None, inputs["target"], rounds=0), inputs), trainable

    monkeypatch.setattr(step, "loss_and_grads", measured)
    rows = dict.fromkeys(step.USED, jnp.zeros((4, 1))) | {"mask": jnp.uint8(255) * masks()}
    rows |= dict(image=jnp.zeros((4, 8, 8, 3), jnp.uint8), content=jnp.zeros((4, 4), jnp.int32))
    rules = config_of()
    about = dict(parts=parts, mesh=sharding.make_mesh(rules.mesh, jax.devices()[:1]))
    graph = parameters.structure(architecture(**PLAIN))[0]
    state = states.create({}, freeze=(), rules=rules.optim)
    metrics, _ = step.accumulated(graph, state, rows, None, **about)
    assert float(metrics["loss"]) == pytest.approx(float(masks().sum() / 3))


def test_losses_of_objects_are_weighted_in_a_part_of_a_batch(monkeypatch):
    monkeypatch.setattr(objective, "prompt_losses", areas)
    monkeypatch.setattr(objective, "click_losses", areas)
    (model, embedding), expected = sam(), pytest.approx(float(masks().sum() / 6))
    inputs = {"target": jnp.float32(masks()), "objects": jnp.float32(0.5)}

    @jax.jit
    def pointed(images):
        about = dict(dropout=False, remat="none")
        return objective.Objective("prompts")(model, inputs | {"images": images}, KEY, **about)

    assert float(pointed(jnp.zeros((4, SIZE, SIZE, 3)))["loss"]) == expected
    logits, small = jnp.zeros((4, SIZE, SIZE)), jnp.zeros((4, SIZE // 4, SIZE // 4))
    answer = Prediction(logits, small, jnp.zeros(4), None)
    clicked = objective.Objective("text+clicks", rounds=1, click_share=1.0).of_clicks
    metrics = clicked(Answering(model, embedding), answer, inputs, KEY)
    assert float(metrics["click_loss"]) == expected and metrics["clicked"] == 1


def _iou(answer, truth) -> float:
    union = (answer | truth).sum()
    return (answer & truth).sum() / union if union else 1.0

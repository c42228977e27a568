"""Losses of points and boxes, given in rounds as SAM was trained (Kirillov et al. 2023, App. A).

First a point of the object or a jittered box, equally often; then `rounds` times a point where the
answer is wrong, with the answer before as a mask; and twice more the mask alone, once in between
and once at the end. `task=text+clicks` starts from a text instead. A round's answers are not
differentiated through the next.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from dit_jax.models.mask_decoder import EVERY, SEVERAL
from dit_jax.models.prompting import Answering, Canvas, Prompts, nothing
from dit_jax.ops.arrays import Array
from dit_jax.train import clicks

FOCAL, DICE = 20.0, 1.0  # weights of the losses; Sec. 3 of the SAM paper
ALPHA, GAMMA = 0.25, 2  # Lin et al. 2017
WITHOUT_MASK = 0.5  # share of the answers before that are not shown, so that points do alone too

Metrics = dict[str, Array]


def prompt_losses(
    answering: Answering, target: Float[Array, "b S S"], key: Array, *, rounds: int
) -> Metrics:
    """Of plain SAM: `loss`, and the mean IoU after the first round and after the last.

    The loss is focal 20 : dice 1 and the squared error of the predicted IoU, the mean over rounds.
    A single point is answered three times, and the best answer counts. Rows without an object
    count for nothing.
    """
    truth = target > 0.5
    weights = truth.any(axis=(1, 2)).astype(jnp.float32)
    first, draws = jax.random.split(key)
    prompts = starting(first, truth, rounds=rounds)
    whole, small, predicted = answering(prompts, wanted=EVERY)
    found = ious(whole, truth)
    losses = mask_losses(whole, target)
    errors = jnp.square(predicted - found)
    boxed = prompts.boxed
    # Not `min`, whose gradient compares values: where a compiler computes them twice, to different
    # bits, none is the least, and the gradient is no number.
    best = _pick(losses, jnp.where(boxed, 0, 1 + losses[:, SEVERAL].argmin(axis=1)))
    judged = jnp.where(boxed, errors[:, 0], errors[:, SEVERAL].mean(axis=1))
    chosen = jnp.where(boxed, 0, 1 + predicted[:, SEVERAL].argmax(axis=1))
    start = _Round(prompts, *(_pick(x, chosen) for x in (whole, small)))
    about = dict(rounds=rounds, first=1, weights=weights, judge=_segmentation)
    more, last = later(answering, start, truth, target, draws, **about)
    total = (_mean(best + judged, weights) + more.sum()) / (1 + len(more))
    measures = {"first_iou": _pick(found, chosen), "last_iou": last}
    return {"loss": total} | {name: _mean(value, weights) for name, value in measures.items()}


def click_losses(
    answering: Answering,
    target: Float[Array, "b S S"],
    logits: Float[Array, "b S S"],
    small: Float[Array, "b h w"],
    key: Array,
    *,
    rounds: int,
) -> Metrics:
    """Of clicks that correct a text's answer: `loss`, the paper's cross-entropy over rounds."""
    truth = target > 0.5
    weights = truth.any(axis=(1, 2)).astype(jnp.float32)
    start = _Round(nothing(len(truth), places=rounds), logits, small)
    about = dict(rounds=rounds, first=0, weights=weights, judge=_cross_entropy)
    more, last = later(answering, start, truth, target, key, **about)
    return {"click_loss": more.mean(), "last_iou": _mean(last, weights)}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Round:
    """What is known after a round: prompts so far, and the answer."""

    prompts: Prompts
    whole: Float[Array, "b S S"]
    small: Float[Array, "b h w"]


def later(
    answering: Answering,
    start: _Round,
    truth: clicks.Masks,
    target: Float[Array, "b S S"],
    key: Array,
    *,
    rounds: int,
    first: int,
    weights: Float[Array, " b"],
    judge,
) -> tuple[Float[Array, " rounds"], Float[Array, " b"]]:
    """Losses of the rounds that follow, and the IoU after the last one.

    Args:
      first: the place of the first point that is put.
    """
    if not rounds:
        return jnp.zeros((0,)), ious(start.whole[:, None], truth)[:, 0]
    between, key = jax.random.split(key)
    steps = jnp.arange(rounds + 2)
    pointed = (steps != jax.random.randint(between, (), 0, rounds + 1)) & (steps != rounds + 1)
    places = first + jnp.cumsum(pointed) - 1

    def one(known: _Round, step) -> tuple[_Round, tuple[Array, Array]]:
        number, point, place = step
        where, hide = jax.random.split(jax.random.fold_in(key, number))
        spot, label = clicks.corrections(where, truth, known.whole > 0)
        with_point = known.prompts.put(place, spot, label)
        prompts = jax.tree.map(
            lambda new, old: jnp.where(point, new, old), with_point, known.prompts
        )
        hidden = jax.random.bernoulli(hide, WITHOUT_MASK, (len(truth),)) & point
        whole, small, predicted = answering(prompts, before=known.small, shown=~hidden)
        found = ious(whole, truth)
        loss = _mean(judge(whole, target, predicted, found), weights)
        whole, small = jax.lax.stop_gradient((whole[:, 0], small[:, 0]))
        return _Round(prompts, whole, small), (loss, found[:, 0])

    start = jax.lax.stop_gradient(start)
    _, (losses, found) = jax.lax.scan(jax.checkpoint(one), start, (steps, pointed, places))
    return losses, found[-1]


def starting(key: Array, truth: clicks.Masks, *, rounds: int) -> Prompts:
    """A point of each object or a box around it, and places for later points."""
    which, where, around = jax.random.split(key, 3)
    rows = len(truth)
    boxed = jax.random.bernoulli(which, 0.5, (rows,))
    empty = nothing(rows, places=rounds + 1)
    with_point = empty.put(0, clicks.points(where, truth), jnp.ones((rows,), jnp.int32))
    given = with_point.given & ~boxed[:, None]
    return dataclasses.replace(
        with_point, given=given, boxes=clicks.boxes(around, truth), boxed=boxed
    )


def mask_losses(logits: Canvas, target: Float[Array, "b S S"]) -> Float[Array, "b m"]:
    """Focal 20 : dice 1 of each mask."""
    target, probability = target[:, None], jax.nn.sigmoid(logits)
    # Not optax's focal loss, whose gradient is no number where a probability is 0 or 1.
    wrong = probability * (1 - target) + (1 - probability) * target
    balance = ALPHA * target + (1 - ALPHA) * (1 - target)
    focal = balance * wrong**GAMMA * optax.sigmoid_binary_cross_entropy(logits, target)
    both = (probability * target).sum(axis=(2, 3))
    size = probability.sum(axis=(2, 3)) + target.sum(axis=(2, 3))
    dice = 1 - (2 * both + 1) / (size + 1)
    return FOCAL * focal.mean(axis=(2, 3)) + DICE * dice


def ious(logits: Canvas, truth: clicks.Masks) -> Float[Array, "b m"]:
    """IoU of each mask at probability 0.5; 1 where both are empty."""
    answer, truth = logits > 0, truth[:, None]
    union = (answer | truth).sum(axis=(2, 3))
    return jnp.where(union, (answer & truth).sum(axis=(2, 3)) / jnp.maximum(union, 1), 1.0)


def _segmentation(whole, target, predicted, found) -> Float[Array, " b"]:
    return (mask_losses(whole, target) + jnp.square(predicted - found))[:, 0]


def _cross_entropy(whole, target, predicted, found) -> Float[Array, " b"]:
    return optax.sigmoid_binary_cross_entropy(whole[:, 0], target).mean(axis=(1, 2))


def _pick(values: Array, which: Int[Array, " b"]) -> Array:
    """Mask `which` of each row."""
    return jax.vmap(lambda row, one: row[one])(values, which)


def _mean(values: Float[Array, " b"], weights: Float[Array, " b"]) -> Float[Array, ""]:
    """Over rows that have an object."""
    return (values * weights).sum() / jnp.maximum(weights.sum(), 1.0)

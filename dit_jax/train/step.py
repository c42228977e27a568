"""One training step: normalise → forward → loss → gradients → clip → Adam → moving average.

Everything is one `jax.jit` over plain dicts, donated and sharded. Metrics come back as device
arrays; nothing here waits for the device.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from dit_jax import config as configs
from dit_jax.eval.predictions import Answers
from dit_jax.eval.protocols import THRESHOLD, logit
from dit_jax.models import params as parameters
from dit_jax.models.dit_sam import Prediction
from dit_jax.models.params import Params
from dit_jax.ops.mesh import use_mesh
from dit_jax.ops.pixels import inside, normalize
from dit_jax.ops.platform import compiler_options
from dit_jax.train import optim
from dit_jax.train.placement import hosts, sharding
from dit_jax.train.state import TrainState

Batch = dict[str, Array]  # as `dit_jax.data.pipeline` yields it
# images f32 [b,S,S,3], content [b,4], input_ids, attention_mask [b,l], target [b,S,S],
# present bool [b]
Inputs = dict[str, Array]
Metrics = dict[str, Array]
TrainStep = Callable[[TrainState, Batch, Array], tuple[TrainState, Metrics]]
# What travels to the device.
USED = ("image", "content", "input_ids", "attention_mask", "mask", "present")


def prepare(batch: Batch) -> Inputs:
    """The model's inputs and the soft target in [0, 1]."""
    return {
        "images": normalize(batch["image"], batch["content"]),
        "content": batch["content"],
        "input_ids": batch["input_ids"],
        "attention_mask": batch["attention_mask"],
        "target": batch["mask"].astype(jnp.float32) / 255,
        "present": batch["present"],
    }


def losses(
    graph: nnx.GraphDef,
    params: Params,
    inputs: Inputs,
    *,
    presence_weight: float,
    iou_weight: float,
    rngs: nnx.Rngs | None,
    remat: str = "none",
) -> Metrics:
    """`loss`, which is minimised: mean binary cross-entropy over all pixels, padding included
    (released code), also where the expression means nothing and every pixel is background.

    A model with a presence head adds `presence_weight` times the cross-entropy of its answers,
    reported as `presence_loss` with `presence_accuracy`, the share that is right at 0.5. Where
    `iou_weight` is not 0, it is that of `iou_loss`.
    """
    model = parameters.merge(graph, params)
    prediction = model(
        inputs["images"], inputs["input_ids"], inputs["attention_mask"], remat=remat, rngs=rngs
    )
    with jax.named_scope("loss"):
        logits = prediction.logits.astype(jnp.float32)
        pixels = optax.sigmoid_binary_cross_entropy(logits, inputs["target"]).mean()
    metrics = {"loss": pixels}
    if prediction.presence is not None:
        # `present`, not the target's pixels: a small object may leave none on a smaller canvas.
        presence, present = prediction.presence, inputs["present"]
        answers = optax.sigmoid_binary_cross_entropy(presence, present.astype(jnp.float32)).mean()
        metrics["loss"] += presence_weight * answers
        metrics |= {
            "presence_loss": answers,
            "presence_accuracy": jnp.mean((presence > 0) == present),
        }
    if iou_weight:
        metrics["iou_loss"] = iou_loss(prediction, inputs)
        metrics["loss"] += iou_weight * metrics["iou_loss"]
    return metrics


@jax.named_scope("iou_loss")
def iou_loss(prediction: Prediction, inputs: Inputs) -> Float[Array, ""]:
    """Mean squared difference of the predicted IoU and the one that the mask has (Kirillov et al.
    2023, appendix A).

    The mask is the one that is answered: above THRESHOLD and without the padding. Its IoU is that
    of the protocol `original`, 1 where nothing is meant and nothing found.
    """
    logits = prediction.logits.astype(jnp.float32)
    within = inside(inputs["content"], logits.shape[1])
    found, truth = within & (logits > logit(THRESHOLD)), within & (inputs["target"] > 0.5)
    pixels = dict(axis=(1, 2), dtype=jnp.float32)  # exact: no canvas has more than 2**24
    hit, union = jnp.sum(found & truth, **pixels), jnp.sum(found | truth, **pixels)
    iou = jnp.where(union > 0, hit / jnp.maximum(union, 1), 1.0)
    return jnp.mean((prediction.iou - iou) ** 2)


def loss_and_grads(
    graph: nnx.GraphDef,
    trainable: Params,
    frozen: Params,
    inputs: Inputs,
    key: Array | None,
    *,
    presence_weight: float = 0.0,
    iou_weight: float = 0.0,
    remat: str = "none",
) -> tuple[Metrics, Params]:
    """The losses, and the gradient of `loss` by the trainable parameters alone.

    Args:
      key: of dropout; None for none.
    """

    def of_trainable(values: Params) -> tuple[Array, Metrics]:
        rngs = None if key is None else nnx.Rngs(dropout=key)  # counts, so made inside the trace
        about = dict(presence_weight=presence_weight, iou_weight=iou_weight, rngs=rngs, remat=remat)
        metrics = losses(graph, optim.combine(values, frozen), inputs, **about)
        return metrics["loss"], metrics

    (_, metrics), grads = jax.value_and_grad(of_trainable, has_aux=True)(trainable)
    return metrics, grads


def apply_gradients(
    state: TrainState, grads: Params, *, loss: Array, rules: configs.Optim, rate: Array
) -> tuple[TrainState, Float[Array, ""]]:
    """Clip, Adam, moving average; and the gradients' norm before clipping.

    Where the loss or that norm is no number, nothing changes but the count of steps.
    """
    with jax.named_scope("clip"):
        grads, norm = optim.clip(grads, rules.clip)
    with jax.named_scope("adam"):
        direction, opt_state = optim.adam(rules).update(grads, state.opt_state)
        trainable = jax.tree.map(lambda p, d: p - rate * d, state.trainable, direction)
    ema = state.ema
    if rules.ema:
        with jax.named_scope("ema"):
            ema = optim.average(ema, trainable, step=state.step, limit=rules.ema)
    new, old = (trainable, opt_state, ema), (state.trainable, state.opt_state, state.ema)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    kept = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, old)
    trainable, opt_state, ema = kept
    return TrainState(state.step + 1, trainable, state.frozen, opt_state, ema), norm


def make_train_step(
    graph: nnx.GraphDef,
    rules: configs.Optim,
    *,
    dropout: bool,
    remat: str,
    mesh: Mesh,
    placement: TrainState,
    steps_per_epoch: float | int,
) -> TrainStep:
    """`(state, batch, key) → (state, {loss, …, lr, grad_norm})`; the state is donated.

    Args:
      remat: a policy of `dit_jax.ops.rematerialise`.
      placement: the state's shardings.
    """
    schedule = optim.schedule(rules, steps_per_epoch=steps_per_epoch)

    def train_step(state: TrainState, batch: Batch, key: Array) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(key, state.step) if dropout else None
        with use_mesh(mesh):
            about = dict(rules=rules, remat=remat, mesh=mesh)
            metrics, grads = accumulated(graph, state, batch, key, **about)
        rate = schedule(state.step)
        state, norm = apply_gradients(state, grads, loss=metrics["loss"], rules=rules, rate=rate)
        return state, metrics | {"lr": rate, "grad_norm": norm}

    whole = sharding.replicated(mesh)
    with use_mesh(mesh):
        options = compiler_options()
    return jax.jit(
        train_step,
        in_shardings=(placement, sharding.batch_sharding(mesh), whole),
        out_shardings=(placement, whole),
        donate_argnums=0,
        compiler_options=options,
    )


def make_predict_step(
    graph: nnx.GraphDef, *, mesh: Mesh, placement: Params
) -> Callable[[Params, Batch], Answers]:
    """`(params, batch) → Answers`: float32 logits at the canvas's size, and what else it says."""

    def predict_step(
        params: Params, batch: Batch
    ) -> tuple[Float[Array, "b S S"], Float[Array, " b"] | None, Float[Array, " b"] | None]:
        model = parameters.merge(graph, params)
        images = normalize(batch["image"], batch["content"])
        with use_mesh(mesh):
            prediction = model(images, batch["input_ids"], batch["attention_mask"])
        iou = prediction.iou if model.arch.iou_trained else None
        return prediction.logits.astype(jnp.float32), prediction.presence, iou

    rows = sharding.batch_sharding(mesh)
    places = dict(in_shardings=(placement, rows), out_shardings=rows)
    with use_mesh(mesh):
        options = compiler_options()
    answer = jax.jit(predict_step, **places, compiler_options=options)
    return lambda params, batch: Answers(*answer(params, batch))


def place_batch(batch: dict, mesh: Mesh) -> Batch:
    """This process's rows to the devices; only what a step reads travels."""
    share = hosts.share(mesh)
    return {key: share.place(batch[key], mesh=mesh) for key in USED}


def accumulated(
    graph: nnx.GraphDef,
    state: TrainState,
    batch: Batch,
    key: Array | None,
    *,
    rules: configs.Optim,
    remat: str,
    mesh: Mesh,
) -> tuple[Metrics, Params]:
    """Mean losses and gradients over `optim.accumulate` micro-batches, one after another."""
    parts = rules.accumulate
    weights = dict(presence_weight=rules.presence_weight, iou_weight=rules.iou_weight)
    about = dict(remat=remat, **weights)

    def of_rows(rows: Batch, key: Array | None) -> tuple[Metrics, Params]:
        inputs = prepare(rows)
        return loss_and_grads(graph, state.trainable, state.frozen, inputs, key, **about)

    if parts == 1:
        return of_rows(batch, key)

    def add(total, part):
        number, rows = part
        own = None if key is None else jax.random.fold_in(key, number)
        metrics, grads = of_rows(rows, own)
        return jax.tree.map(jnp.add, total, grads), metrics

    micro = jax.tree.map(lambda x: _split(x, parts, mesh), batch)
    zero = jax.tree.map(jnp.zeros_like, state.trainable)
    total, metrics = jax.lax.scan(add, zero, (jnp.arange(parts), micro))
    return jax.tree.map(jnp.mean, metrics), jax.tree.map(lambda x: x / parts, total)


def _split(x: Array, parts: int, mesh: Mesh) -> Array:
    """[b, …] → [parts, b / parts, …], each device keeping its own rows."""
    x = x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)
    rows = jax.sharding.PartitionSpec(None, *sharding.BATCH)
    return jax.lax.with_sharding_constraint(x, jax.sharding.NamedSharding(mesh, rows))

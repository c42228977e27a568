"""One training step: normalise → forward → loss → gradients → clip → Adam or Muon → average.

Everything is one `jax.jit` over plain dicts, donated and sharded. Metrics come back as device
arrays; nothing here waits for the device.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from dit_jax import config as configs
from dit_jax.eval.predictions import Answers
from dit_jax.models import params as parameters
from dit_jax.models.params import Params
from dit_jax.ops.mesh import use_mesh
from dit_jax.ops.pixels import normalize
from dit_jax.ops.platform import compiler_options
from dit_jax.train import optim
from dit_jax.train.objective import TEXT, Inputs, Metrics, Objective
from dit_jax.train.placement import hosts, sharding
from dit_jax.train.state import TrainState

Batch = dict[str, Array]  # as `dit_jax.data.pipeline` yields it
TrainStep = Callable[[TrainState, Batch, Array], tuple[TrainState, Metrics]]
# What travels to the device.
USED = ("image", "content", "input_ids", "attention_mask", "mask", "present")


def prepare(batch: Batch) -> Inputs:
    """The model's inputs and the soft target in [0, 1]."""
    seen = {"before": batch["before"]} if "before" in batch else {}
    return {
        **(seen or {"images": normalize(batch["image"], batch["content"])}),
        "content": batch["content"],
        "input_ids": batch["input_ids"],
        "attention_mask": batch["attention_mask"],
        "target": batch["mask"].astype(jnp.float32) / 255,
        "present": batch["present"],
    }


def loss_and_grads(
    graph: nnx.GraphDef,
    trainable: Params,
    frozen: Params,
    inputs: Inputs,
    key: Array | None,
    *,
    objective: Objective = TEXT,
    dropout: bool = False,
    remat: str = "none",
) -> tuple[Metrics, Params]:
    """What the objective measures, and the gradient of its `loss` by the trainable parameters.

    Args:
      key: of dropout and clicks; None where there is neither.
    """

    def of_trainable(values: Params) -> tuple[Array, Metrics]:
        model = parameters.merge(graph, optim.combine(values, frozen))
        metrics = objective(model, inputs, key, dropout=dropout, remat=remat)
        return metrics["loss"], metrics

    (_, metrics), grads = jax.value_and_grad(of_trainable, has_aux=True)(trainable)
    return metrics, grads


def apply_gradients(
    state: TrainState, grads: Params, *, loss: Array, rules: configs.Optim, rate: Array
) -> tuple[TrainState, Float[Array, ""]]:
    """Clip, the optimizer's step, moving average; and the gradients' norm before clipping.

    Where the loss or that norm is no number, nothing changes but the count of steps.
    """
    with jax.named_scope("clip"):
        grads, norm = optim.clip(grads, rules.clip)
    with jax.named_scope(rules.name):
        direction, opt_state = optim.direction(rules).update(grads, state.opt_state)
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


def make_update(
    graph: nnx.GraphDef,
    rules: configs.Optim,
    *,
    objective: Objective,
    dropout: bool,
    remat: str,
    mesh: Mesh,
    steps_per_epoch: float | int,
) -> TrainStep:
    """`(state, batch, key) → (state, {loss, …, lr, grad_norm})`, to be traced.

    Args:
      remat: a policy of `dit_jax.ops.rematerialise`.
    """
    schedule = optim.schedule(rules, steps_per_epoch=steps_per_epoch)

    def update(state: TrainState, batch: Batch, key: Array) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(key, state.step) if dropout or objective.random else None
        with use_mesh(mesh):
            about = dict(parts=rules.accumulate, mesh=mesh)
            about |= dict(objective=objective, dropout=dropout, remat=remat)
            metrics, grads = accumulated(graph, state, batch, key, **about)
        rate = schedule(state.step)
        state, norm = apply_gradients(state, grads, loss=metrics["loss"], rules=rules, rate=rate)
        return state, metrics | {"lr": rate, "grad_norm": norm}

    return update


def make_train_step(
    graph: nnx.GraphDef, rules: configs.Optim, *, mesh: Mesh, placement: TrainState, **about
) -> TrainStep:
    """`make_update`, compiled; the state is donated.

    Args:
      placement: the state's shardings.
      about: what else `make_update` is told.
    """

    def train_step(state: TrainState, batch: Batch, key: Array) -> tuple[TrainState, Metrics]:
        return update(state, batch, key)

    update = make_update(graph, rules, mesh=mesh, **about)
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
    used = {"before", *USED} - {"image"} if "before" in batch else USED
    return {key: share.place(batch[key], mesh=mesh) for key in used}


def accumulated(
    graph: nnx.GraphDef,
    state: TrainState,
    batch: Batch,
    key: Array | None,
    *,
    parts: int,
    mesh: Mesh,
    **about,
) -> tuple[Metrics, Params]:
    """Mean losses and gradients over `parts` micro-batches, one after another.

    Those of objects too: a part counts by how many it has. `about` is for `loss_and_grads`.
    """

    def of_rows(rows: Batch, key: Array | None, **share: Array) -> tuple[Metrics, Params]:
        inputs = prepare(rows) | share
        return loss_and_grads(graph, state.trainable, state.frozen, inputs, key, **about)

    if parts == 1:
        return of_rows(batch, key)

    def add(total, part):
        number, rows = part
        own = None if key is None else jax.random.fold_in(key, number)
        metrics, grads = of_rows(rows, own, objects=_objects(rows) / each)
        return jax.tree.map(jnp.add, total, grads), metrics

    each = jnp.maximum(_objects(batch), 1.0) / parts
    micro = jax.tree.map(lambda x: _split(x, parts, mesh), batch)
    zero = jax.tree.map(jnp.zeros_like, state.trainable)
    total, metrics = jax.lax.scan(add, zero, (jnp.arange(parts), micro))
    return jax.tree.map(jnp.mean, metrics), jax.tree.map(lambda x: x / parts, total)


def _objects(rows: Batch) -> Float[Array, ""]:
    """How many rows have an object, as `interactive` counts them."""
    return (rows["mask"] > 127).any(axis=(1, 2)).sum(dtype=jnp.float32)


def _split(x: Array, parts: int, mesh: Mesh) -> Array:
    """[b, …] → [parts, b / parts, …], each device keeping its own rows."""
    x = x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)
    rows = jax.sharding.PartitionSpec(None, *sharding.BATCH)
    return jax.lax.with_sharding_constraint(x, jax.sharding.NamedSharding(mesh, rows))

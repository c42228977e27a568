"""What is trained and how: the freezing table, Adam or Muon, clipping, schedules, moving average.

Numbers follow the released code (Sec. 4.3 of the paper where it says so): the clip is
`torch.nn.utils.clip_grad_norm_`'s, the average's decay grows as (1 + t) / (10 + t).
"""

import functools
import math
import operator
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float
from optax import contrib as muons

from dit_jax import config as configs
from dit_jax.models.params import Params, flatten, unflatten

Schedule = Callable[[Array | int], Array]

BUFFER = "buffer"  # never trained
FEW = 8  # outputs of a head
ADAMS_RMS = 0.2  # of a direction, as measured by Liu et al.
GROUPS = (
    (r"prompt_encoder\.pe_layer\.gaussian_matrix", BUFFER),
    # New parameters in the middle of a frozen encoder: at zero they would let no text in.
    (r"image_encoder\.(injector|prob_text)\..*", "injection"),
    (r"image_encoder\.(patch_embed|blocks|neck)\..*|image_encoder\.pos_embed", "image_encoder"),
    (r"text_encoder\..*", "text_encoder"),
    (r"text_proj\..*", "text_proj"),
    (r"prompt_encoder\..*", "prompt_encoder"),
    (r"mask_decoder\..*", "mask_decoder"),
)


def group(path: str) -> str:
    """The part of the model that a parameter belongs to; first match wins."""
    for pattern, name in GROUPS:
        if re.fullmatch(pattern, path):
            return name
    raise ValueError(f"parameter {path} matches no row of the freezing table; add one.")


def partition(params: Params, freeze: tuple[str, ...]) -> tuple[Params, Params]:
    """(trainable, frozen) parameters."""
    trainable, frozen = {}, {}
    for path, value in flatten(params).items():
        target = frozen if group(path) in (BUFFER, *freeze) else trainable
        target[path] = value
    return unflatten(trainable), unflatten(frozen)


def combine(trainable: Params, frozen: Params) -> Params:
    """Inverse of `partition`."""
    return unflatten(flatten(trainable) | flatten(frozen))


def direction(optim: configs.Optim) -> optax.GradientTransformation:
    """What `optim.name` moves along, without the learning rate.

    "adam": (1 − β) moments with bias correction. "muon" (Jordan et al. 2024): of matrices the
    momentum, made orthogonal, and as large as Adam's directions are (Liu et al. 2025), so that one
    rate serves both; of everything else Adam's.
    """
    b1, b2 = optim.betas
    adam = optax.scale_by_adam(b1=b1, b2=b2, eps=optim.eps)
    if optim.name == "adam":
        return adam
    muon = optax.chain(
        muons.scale_by_muon(weight_dimension_numbers=_dimensions), optax.stateless(_as_adam)
    )
    others = functools.partial(jax.tree.map, operator.not_)
    return optax.chain(
        optax.masked(muon, matrices), optax.masked(adam, lambda tree: others(matrices(tree)))
    )


def matrices(params: Params) -> Params:
    """Which parameters multiply: no tables, convolutions or heads of a few numbers."""
    return unflatten(
        {
            path: path.endswith("kernel") and value.ndim == 2 and min(value.shape) > FEW
            for path, value in flatten(params).items()
        }
    )


def _dimensions(tree: Params) -> Params:
    return jax.tree.map(lambda _: muons.MuonDimensionNumbers(), tree)


def _as_adam(tree: Params, _) -> Params:
    return jax.tree.map(lambda x: x * (ADAMS_RMS * max(x.shape) ** 0.5), tree)


def clip(grads: Params, limit: float) -> tuple[Params, Float[Array, ""]]:
    """Gradients scaled to a global norm of at most `limit` (0 = any), and their norm before."""
    norm = optax.tree.norm(grads)
    if limit <= 0:
        return grads, norm
    factor = jnp.minimum(limit / (norm + 1e-6), 1.0)
    return jax.tree.map(lambda g: g * factor, grads), norm


def average(ema: Params, params: Params, *, step: Array, limit: float) -> Params:
    """The moving average after the update that made `step` updates of it."""
    decay = jnp.minimum(limit, (1 + step) / (10 + step)).astype(jnp.float32)
    return jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, ema, params)


def epoch_steps(referents: int, batch_size: int) -> float:
    """How many batches an epoch is, as schedules and lengths count it.

    The released code leaves the last, short batch out, and so do we where that is less than 1 %:
    RefCOCO's 42,404 referents are 662 batches of 64, and 36 are left. Of smaller data it would be
    up to all of an epoch.
    """
    whole, left = divmod(referents, batch_size)
    return float(whole) if left < 0.01 * referents else referents / batch_size


def total_steps(optim: configs.Optim, steps_per_epoch: float | int) -> int:
    """The length of the run."""
    return optim.max_steps or math.ceil(optim.epochs * steps_per_epoch)


def cut_short(optim: configs.Optim, *, steps_per_epoch: float | int) -> str | None:
    """A sentence where a run ends before its rate has done what the recipe means."""
    warmup = optim.warmup_epochs * steps_per_epoch
    if 0 < optim.max_steps <= warmup:
        return (
            f"optim.max_steps={optim.max_steps} ends the run within its warm-up of {warmup:g}"
            f" steps: the rate never reaches optim.lr. optim.warmup_epochs={optim.warmup_epochs:g}"
            " is in epochs."
        )
    first = min(optim.milestones, default=0) * steps_per_epoch
    if optim.schedule == "steps" and total_steps(optim, steps_per_epoch) <= first:
        length = f"max_steps={optim.max_steps}" if optim.max_steps else f"epochs={optim.epochs:g}"
        return (
            f"optim.{length} ends the run before its rate first falls, at step {first:g}:"
            " optim.milestones are in epochs."
        )
    return None


def schedule(optim: configs.Optim, *, steps_per_epoch: float | int) -> Schedule:
    """step (from 0) → learning rate: linear warm-up, then the recipe's decay.

    A run that `max_steps` ends within the warm-up only sees the rate rise.
    """
    warmup = optim.warmup_epochs * steps_per_epoch
    total = total_steps(optim, steps_per_epoch)
    if warmup >= total and not optim.max_steps:
        raise ValueError(
            f"optim.warmup_epochs lasts {warmup:g} steps; expected fewer than the run, {total}."
        )
    decay = {"cosine": _cosine, "steps": _steps}[optim.schedule]

    def rate(step: Array | int) -> Array:
        step = jnp.asarray(step, jnp.float32)
        rising = optim.warmup_lr + step * ((optim.lr - optim.warmup_lr) / max(warmup, 1))
        falling = decay(optim, step, warmup, total, steps_per_epoch)
        return jnp.where(step < warmup, rising, falling)

    return rate


def _cosine(optim: configs.Optim, step, warmup: float, total: int, steps_per_epoch: float | int):
    done = jnp.clip((step - warmup) / max(total - warmup, 1.0), 0.0, 1.0)
    return optim.min_lr + 0.5 * (optim.lr - optim.min_lr) * (1 + jnp.cos(jnp.pi * done))


def _steps(optim: configs.Optim, step, warmup: float, total: int, steps_per_epoch: float | int):
    passed = sum((step >= epoch * steps_per_epoch).astype(jnp.int32) for epoch in optim.milestones)
    return optim.lr * jnp.power(jnp.float32(optim.decay), passed)

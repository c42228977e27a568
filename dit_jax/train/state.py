"""The state of a training run: a frozen dataclass of plain nested dicts."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from dit_jax import config as configs
from dit_jax.models.params import Params
from dit_jax.train import optim


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a step reads and writes; `ema` is {} where there is no moving average.

    Its leaves are arrays; trees of the same form hold their shapes or their shardings.
    """

    step: Any  # updates made so far, an int32 scalar
    trainable: Params
    frozen: Params
    opt_state: Any
    ema: Params


def create(params: Params, *, freeze: tuple[str, ...], rules: configs.Optim) -> TrainState:
    """The state before the first step."""
    trainable, frozen = optim.partition(params, freeze)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        trainable=trainable,
        frozen=frozen,
        opt_state=optim.direction(rules).init(trainable),
        ema=jax.tree.map(jnp.array, trainable) if rules.ema else {},  # copies: both are donated
    )


def evaluated(state: TrainState) -> Params:
    """The parameters that are scored and exported: the moving average where there is one."""
    return optim.combine(state.ema or state.trainable, state.frozen)

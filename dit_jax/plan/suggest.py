"""Changes that make a run fit into memory, from cheap to dear.

What each costs: recomputed blocks up to a third more time; accumulation smaller products; `fsdp`
messages between devices; bfloat16 other rounding; a smaller batch another recipe. A change is tried
before every dearer one, alone and together with the cheaper ones.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

from dit_jax import config as configs
from dit_jax.ops.rematerialise import POLICIES, SCAN
from dit_jax.train.placement import sharding

Change = dict[str, Any]  # config key → value

# Cheapest first; each is dearer than all before it together.
KINDS = ("remat", "accumulate", "fsdp", "dtype", "batch_size")


def changed(config: configs.Config, change: Change) -> configs.Config:
    """The config with other values of dotted keys."""
    for path, value in change.items():
        section, key = path.split(".")
        part = dataclasses.replace(getattr(config, section), **{key: value})
        config = dataclasses.replace(config, **{section: part})
    return config


def changes(config: configs.Config, devices: int) -> Iterator[Change]:
    """All changes that this config can take on so many devices, from cheap to dear."""
    options = [_options(config, kind, devices) for kind in KINDS]
    found = [
        {k: v for option in chosen for k, v in option.items()}
        for chosen in itertools.product(*options)
    ]
    costs = {id(change): _cost(config, change) for change in found}
    for change in sorted(found, key=lambda change: costs[id(change)]):
        if change and _possible(config, change, devices):
            yield change


def _options(config: configs.Config, kind: str, devices: int) -> list[Change]:
    """Nothing, and every value of one kind of change."""
    model, optim = config.model, config.optim
    policies = POLICIES[POLICIES.index(model.remat) + 1 :]
    if model.task == "prompts":
        policies = [policy for policy in policies if policy != SCAN]  # not of blocks with windows
    data, fsdp, _ = sharding.mesh_sizes(config.mesh, devices)
    values = {
        "remat": [{"model.remat": policy} for policy in policies],
        "accumulate": [{"optim.accumulate": n} for n in _doubled(optim.accumulate, 64)],
        "fsdp": [{"mesh.fsdp": n, "mesh.data": -1} for n in _doubled(fsdp, data * fsdp)],
        "dtype": [{"model.dtype": "bfloat16"}] if model.dtype == "float32" else [],
        "batch_size": [{"optim.batch_size": n} for n in _halved(optim.batch_size)],
    }
    return [{}, *values[kind]]


def _doubled(value: int, limit: int) -> list[int]:
    return [value * 2**i for i in range(1, 8) if value * 2**i <= limit]


def _halved(value: int) -> list[int]:
    return [value // 2**i for i in range(1, 12) if value % 2**i == 0]


def _cost(config: configs.Config, change: Change) -> tuple[int, float]:
    """Which kinds, as binary digits; of equal ones, how far from the config."""
    kinds = {path.split(".")[1] for path in change}
    digits = sum(2**i for i, kind in enumerate(KINDS) if kind in kinds)
    steps = float(POLICIES.index(change.get("model.remat", config.model.remat)))
    for path in ("optim.accumulate", "mesh.fsdp", "optim.batch_size"):
        section, key = path.split(".")
        before = getattr(getattr(config, section), key)
        after = change.get(path, before)
        steps += max(before, after) / min(before, after)
    return digits, steps


def _possible(config: configs.Config, change: Change, devices: int) -> bool:
    """Whether batches divide evenly into parts, and these over the devices."""
    batch = change.get("optim.batch_size", config.optim.batch_size)
    parts = change.get("optim.accumulate", config.optim.accumulate)
    return batch % (parts * devices // config.mesh.tensor) == 0

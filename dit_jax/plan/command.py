"""`--mode=plan`: whether a run fits into its devices' memory, before anything is allocated.

    python launch.py --mode=plan --config=configs/ldit_vit_h.py --devices=8 --target=h100

Parameters, optimiser, moving average, gradients and batch follow from shapes and the sharding
table; activations from `memory.saved`; the peak from the compiler itself, which needs no device:
see `targets`. No data set and no weights need to exist.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator

from absl import logging
from jax.sharding import AbstractMesh, AxisType

from dit_jax import config as configs
from dit_jax.plan import compile, memory, suggest, targets
from dit_jax.plan.compile import Compiled
from dit_jax.plan.memory import Attention, Memory
from dit_jax.plan.suggest import Change
from dit_jax.plan.targets import Devices
from dit_jax.train.placement import sharding

GB = 1e9  # a device sold as 80 GB has 80 GiB; the difference is left to its runtime
TRIES = 3  # suggestions that are compiled before the dearest that was counted to fit is named
ROWS = {
    "trainable": "parameters, trained",
    "frozen": "parameters, frozen",
    "optimizer": "Adam's two moments",
    "ema": "moving average",
    "gradients": "gradients",
    "batch": "batch",
    "activations": "activations kept for the backward pass",
    "workspace": "workspace of one block",
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one config needs on one mesh, per device."""

    config: configs.Config
    mesh: AbstractMesh
    memory: dict[Attention, Memory]
    expected: Attention
    compiled: Compiled | None
    decisive: bool  # whether the compiler that was asked is that of the devices

    @property
    def total(self) -> int:
        """Bytes: the compiler's where it was asked and decides, or the count."""
        if self.compiled is not None and self.decisive:
            return self.compiled.total
        return self.memory[self.expected].total

    def fits(self, limit: float) -> bool:
        refused = self.compiled is not None and self.decisive and self.compiled.refused
        return self.total <= limit and not refused


def plan(
    config: configs.Config, *, hbm_gb: float, devices: int, target: str, compiled: bool
) -> None:
    """Print what a step needs on each device, whether it fits, and the cheapest change if not.

    Args:
      hbm_gb: memory of a device, in 10⁹ bytes.
      devices: how many; 0 = all of this machine.
      target: a row of `targets.TARGETS`, or "" for this machine's kind (simulated, if `devices`).
      compiled: ask the compiler too; False only counts, in a second.

    Raises ValueError for a mesh or batch that does not divide, ModuleNotFoundError where a
    target's compiler is not installed.
    """
    if not 0 < hbm_gb < float("inf"):
        raise ValueError(f"--hbm_gb is {hbm_gb:g}; expected a number above 0.")
    where = targets.find(target, devices, slices=config.mesh.slices)
    sharding.check_batches(config.optim, config.eval, mesh_of(config, len(where.devices)))
    made = examine(config, where, compiled=compiled)
    print(text(made, where, hbm_gb=hbm_gb), flush=True)
    if not made.fits(hbm_gb * GB):
        print(advice(config, where, hbm_gb=hbm_gb, compiled=compiled))


def mesh_of(config: configs.Config, count: int) -> AbstractMesh:
    sizes = sharding.mesh_sizes(config.mesh, count)
    return AbstractMesh(sizes, sharding.AXES, axis_types=(AxisType.Auto,) * 3)


def examine(config: configs.Config, where: Devices, *, compiled: bool) -> Plan:
    """Count, and compile where the devices' own compiler is to be asked."""
    mesh = mesh_of(config, len(where.devices))
    kinds: tuple[Attention, ...] = ("plain", "fused")
    about = dict(tpu=where.platform == "tpu")
    counted = {kind: memory.estimate(config, mesh, attention=kind, **about) for kind in kinds}
    found = compile.compile_step(config, where) if compiled else None
    return Plan(config, mesh, counted, memory.expected(config), found, not where.simulated)


def text(plan: Plan, where: Devices, *, hbm_gb: float) -> str:
    """The table, the totals and the verdict."""
    expected = plan.memory[plan.expected]
    lines = [title(plan, where), "", f"{'per device':42}{'GB':>9}"]
    lines += [f"{name:42}{getattr(expected, field) / GB:9.3f}" for field, name in ROWS.items()]
    lines.append("")
    for kind, counted in plan.memory.items():
        shown = f"{counted.total / GB:9.3f}  {verdict(counted.total, hbm_gb)}"
        lines.append(f"{f'counted, attention {kind}':42}{shown}")
    if plan.compiled is not None:
        lines.append(compiler_line(plan.compiled, where, hbm_gb=hbm_gb))
    lines += ["", kept(plan), *remarks(plan, where), ""]
    name = "fits" if plan.fits(hbm_gb * GB) else "does not fit"
    lines.append(f"It {name} into {hbm_gb:g} GB.")
    return "\n".join(lines)


def title(plan: Plan, where: Devices) -> str:
    model, optim, shape = plan.config.model, plan.config.optim, plan.mesh.shape
    sizes = " × ".join(f"{axis} {count}" for axis, count in shape.items())
    accumulated = f" in {optim.accumulate} parts" if optim.accumulate > 1 else ""
    remat = "" if model.remat == "none" else f", remat {model.remat}"
    kind = "any device (simulated)" if where.simulated else where.kind
    return (
        f"{model.variant}, {model.image_size} px, batch {optim.batch_size}{accumulated},"
        f" {model.dtype}{remat}; {len(where.devices)} × {kind}, {sizes}"
    )


def verdict(total: float, hbm_gb: float) -> str:
    return "fits" if total <= hbm_gb * GB else "too much"


def compiler_line(compiled: Compiled, where: Devices, *, hbm_gb: float) -> str:
    if compiled.refused:
        return f"{f'compiler of {where.kind}':42}{'–':>9}  refused: {compiled.refused}"
    return (
        f"{f'compiler of {where.kind}':42}{compiled.total / GB:9.3f}"
        f"  {verdict(compiled.total, hbm_gb)}: {compiled.arguments / GB:.3f} of state and batch"
        f" + {compiled.temporary / GB:.3f}"
    )


def kept(plan: Plan) -> str:
    """The terms behind the activations."""
    arch, tensor = plan.config.architecture(), plan.mesh.shape["tensor"]
    terms = memory.saved(arch, attention=plan.expected, tensor=tensor)
    listed = ", ".join(f"{name} {value / 1e6:.1f}" for name, value in terms.items())
    every, share = sum(terms.values()), memory.kept(arch, plan.config.model.remat, terms)
    return (
        f"A block's backward pass uses, in MB an image: {listed}; of {every / 1e6:.1f} in all,"
        f" {share / 1e6:.1f} are kept."
    )


def remarks(plan: Plan, where: Devices) -> list[str]:
    """What a reader has to know about the figures."""
    lines = []
    if where.simulated and plan.compiled is not None:
        lines.append(
            "The compiler's figure is that of CPUs, which keep bfloat16 as float32 and merge"
            " recomputed blocks with the first computation: for TPU or GPU read the counted lines"
            f" or name a --target ({', '.join(targets.TARGETS)}); the verdict is by the count."
        )
    if plan.compiled is None and plan.mesh.shape["fsdp"] > 1:
        lines.append(
            "Where fsdp keeps pieces, a compiler's order of work decides how much is whole at a"
            " time: without --compile=false it is asked, and its figure decides."
        )
    if plan.config.optim.accumulate > 1:
        lines.append("Gradients are there twice: of one part, and their sum.")
    return lines


def advice(config: configs.Config, where: Devices, *, hbm_gb: float, compiled: bool) -> str:
    """The cheapest change that fits, compiled as the config itself was."""
    count, limit = len(where.devices), hbm_gb * GB
    counted = (
        change
        for change in suggest.changes(config, count)
        if examine(suggest.changed(config, change), where, compiled=False).fits(limit)
    )
    with _without_warnings():  # parameters that stay whole were named once
        for change in itertools.islice(counted, TRIES):
            made = examine(suggest.changed(config, change), where, compiled=compiled)
            if made.fits(limit):
                return f"Cheapest change that fits: {written(change)}: {made.total / GB:.3f} GB."
    return (
        "No change of remat, accumulate, fsdp, dtype or batch_size was found that fits; expected"
        " more devices, with mesh.fsdp or mesh.tensor, or smaller pictures."
    )


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def written(change: Change) -> str:
    """As the command line takes it."""
    return " ".join(f"--config.{key}={str(value).lower()}" for key, value in change.items())

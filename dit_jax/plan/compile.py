"""The compiler's own account of a training step: made from shapes alone, nothing is allocated."""

import dataclasses
from collections.abc import Callable

import jax
from jax.sharding import Mesh

from dit_jax import config as configs
from dit_jax.models import params as parameters
from dit_jax.ops.platform import Target, planned_for
from dit_jax.plan.targets import Devices
from dit_jax.train import abstract
from dit_jax.train import step as steps
from dit_jax.train.objective import Objective
from dit_jax.train.placement import sharding

STEPS_PER_EPOCH = 1000  # of the schedule, which takes no memory


@dataclasses.dataclass(frozen=True)
class Compiled:
    """Bytes per device; `refused` says why a compiler that knows its device's memory gave up."""

    arguments: int = 0  # state and batch
    temporary: int = 0
    refused: str = ""

    @property
    def total(self) -> int:
        return self.arguments + self.temporary


def compile_step(config: configs.Config, where: Devices) -> Compiled:
    """Compile a training step of this config for these devices, and ask what memory it takes."""
    mesh = sharding.make_mesh(config.mesh, where.devices)
    return ask(lambda: lower(config, mesh), where)[0]


def ask(
    lowered: Callable[[], jax.stages.Lowered], where: Devices
) -> tuple[Compiled, jax.stages.Compiled | None]:
    """What a program takes that is lowered for these devices; and the program, unless refused."""
    target = Target(where.platform, where.devices[0], tuple(where.options.items()))
    try:
        with planned_for(target):
            program = lowered().compile(where.options)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Compiled(refused=str(error).strip().splitlines()[0]), None
    stats = program.memory_analysis()
    # The new state takes the old one's place: `alias`. What is left of the output are metrics.
    fresh = stats.output_size_in_bytes - stats.alias_size_in_bytes
    return Compiled(stats.argument_size_in_bytes, stats.temp_size_in_bytes + fresh), program


def lower(config: configs.Config, mesh: Mesh) -> jax.stages.Lowered:
    """A training step as the compiler gets it."""
    arch, rules = config.architecture(), config.optim
    graph, _ = parameters.structure(arch)
    state = abstract.state(arch, mesh, freeze=config.freeze(), rules=rules)
    train_step = steps.make_train_step(
        graph,
        rules,
        objective=Objective.of(config),
        dropout=config.model.dropout,
        remat=config.model.remat,
        mesh=mesh,
        placement=jax.tree.map(lambda leaf: leaf.sharding, state),
        steps_per_epoch=STEPS_PER_EPOCH,
    )
    batch = abstract.batch(arch, mesh, rows=rules.batch_size)
    return train_step.lower(state, batch, abstract.key(mesh))

"""The parts of a run that do not change while it runs: model, data stream, length."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from dit_jax import config as configs
from dit_jax.data.pipeline import TrainBatches, train_batches
from dit_jax.data.tokenizer import Tokenizer
from dit_jax.models import params as parameters
from dit_jax.models.architecture import Architecture
from dit_jax.models.params import Params
from dit_jax.train import abstract, optim, setup, sources
from dit_jax.train import state as states
from dit_jax.train import step as steps
from dit_jax.train.placement import hosts, sharding
from dit_jax.train.sources import Leaks
from dit_jax.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class Model:
    """What predicting needs besides parameters."""

    arch: Architecture
    graph: nnx.GraphDef
    tokenizer: Tokenizer
    mesh: Mesh
    placement: Params  # shardings of all parameters

    @staticmethod
    def of(arch: Architecture, vocab: Path, mesh: Mesh) -> "Model":
        graph, abstract = parameters.structure(arch)
        tokenizer = setup.open_tokenizer(vocab, arch)
        return Model(arch, graph, tokenizer, mesh, sharding.shardings(abstract, mesh))

    @functools.cached_property
    def predict(self) -> Callable:
        return steps.make_predict_step(self.graph, mesh=self.mesh, placement=self.placement)


@dataclasses.dataclass(frozen=True)
class Run:
    """The parts of a training run that do not change while it runs."""

    config: configs.Config
    workdir: Path
    model: Model
    batches: TrainBatches
    leaks: Leaks
    steps_per_epoch: int
    total: int
    every: int  # steps between evaluations; 0 = only at the end

    @staticmethod
    def of(
        config: configs.Config,
        workdir: Path,
        *,
        devices: list[jax.Device] | None = None,
        allow_leak: bool = False,
    ) -> "Run":
        """On all devices, or on the given ones; see `sources.training` for `allow_leak`."""
        mesh = sharding.make_mesh(config.mesh, devices)
        sharding.check_batches(config, mesh)
        sources.check_evaluation(config)
        model = Model.of(config.architecture(), setup.vocabulary(config), mesh)
        data = sources.training(config, allow_leak=allow_leak)
        batches = train_batches(
            data.source,
            model.tokenizer,
            size=model.arch.image_size,
            batch_size=config.optim.batch_size,
            augmentation=setup.augmentation(config),
            seed=config.seed,
            own=hosts.share(mesh).rows(config.optim.batch_size),
            workers=config.data.workers,
            on_error=config.data.on_error,
            parts=data.source.lengths if config.data.weights else (),
            weights=config.data.weights,
        )
        per_epoch = max(1, data.epoch // config.optim.batch_size)
        every = config.eval.every_steps or round(config.eval.every_epochs * per_epoch)
        total = optim.total_steps(config.optim, per_epoch)
        return Run(config, workdir, model, batches, data.leaks, per_epoch, total, every)

    def meta(self) -> dict[str, Any]:
        """What is to be known about every checkpoint and score of this run."""
        return {
            "total": self.total,
            "dataset": "+".join(map(str, sources.parts(self.config))),
            "split": self.config.data.train_split,
            "leaks": self.leaks.record(),
        }

    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state."""
        return abstract.state(self.config, self.model.mesh)

    def first_state(self, placement: TrainState) -> TrainState:
        """The state before step 0, on the devices."""
        params = setup.first_params(self.config, self.model.arch)
        fresh = states.create(params, freeze=self.config.freeze(), rules=self.config.optim)
        return jax.device_put(fresh, placement)

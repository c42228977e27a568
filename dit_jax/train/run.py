"""From a config to the parts of a run, once: data, model, scorer, stream of batches, length."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
from absl import logging

from dit_jax import config as configs
from dit_jax import vocabulary
from dit_jax.data.pipeline import TrainBatches, train_batches
from dit_jax.models.architecture import Architecture
from dit_jax.strict import flatten
from dit_jax.train import abstract, optim
from dit_jax.train import model as models
from dit_jax.train import state as states
from dit_jax.train import step as steps
from dit_jax.train.model import Model
from dit_jax.train.objective import Objective
from dit_jax.train.placement import hosts, sharding
from dit_jax.train.scoring import Scorer
from dit_jax.train.sources import Datasets, Leaks
from dit_jax.train.state import TrainState
from dit_jax.train.step import TrainStep
from dit_jax.train.workdir import Settings

LARGE = 768  # channels of an encoder that nobody trains from nothing: ViT-B's
# Where its weights come from, if not from a whole model's directory.
SOURCES = {"image_encoder": "sam=SAM.pth", "text_encoder": "bert=BERT"}


@dataclasses.dataclass(frozen=True)
class Run:
    """The parts of a training run that do not change while it runs."""

    config: configs.Config
    workdir: Path
    datasets: Datasets
    leaks: Leaks
    model: Model
    scorer: Scorer
    batches: TrainBatches
    steps_per_epoch: float
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
        """On all devices, or on the given ones; see `Datasets.training` for `allow_leak`."""
        rules = config.optim
        mesh = sharding.make_mesh(config.mesh, devices)
        sharding.check_batches(rules, config.eval, mesh)

        datasets = Datasets.of(config.data, size=config.model.image_size)
        datasets.check()
        arch = config.architecture()
        init = models.weights(config.model)
        models.check_bert(init, arch)
        vocab = models.vocabulary(config.model, drawn=datasets.drawn)
        if init.bert:
            vocabulary.fitting(vocab, arch.bert.vocab, source=init.bert)
        model = Model.of(arch, vocab, mesh)
        training = datasets.training(allow_leak=allow_leak)
        batches = train_batches(
            training.source,
            model.tokenizer,
            size=model.arch.image_size,
            batch_size=rules.batch_size,
            augmentation=datasets.augmentation(),
            seed=config.seed,
            own=hosts.share(mesh).rows(rules.batch_size),
            workers=config.data.workers,
            ahead_bytes=config.data.ahead_bytes(),
            corner=model.arch.bert is None,
            on_error=config.data.on_error,
            parts=training.source.lengths if config.data.weights else (),
            weights=config.data.weights,
        )
        per_epoch = optim.epoch_steps(training.epoch, rules.batch_size)
        if warning := optim.cut_short(rules, steps_per_epoch=per_epoch):
            logging.warning(warning)
        return Run(
            config,
            workdir,
            datasets,
            training.leaks,
            model,
            Scorer.of(config, workdir, model=model, datasets=datasets),
            batches,
            steps_per_epoch=per_epoch,
            total=optim.total_steps(rules, per_epoch),
            every=config.eval.every_steps or math.ceil(config.eval.every_epochs * per_epoch),
        )

    def settings(self) -> Settings:
        """Every value of the config, as records of the run keep them."""
        return flatten(self.config)

    def meta(self) -> dict[str, Any]:
        """What is to be known about every checkpoint and score of this run."""
        return {
            "total": self.total,
            "dataset": "+".join(map(str, self.datasets.parts)),
            "split": self.config.data.train_split,
            "leaks": self.leaks.record(),
        }

    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state."""
        rules, freeze = self.config.optim, self.config.freeze()
        return abstract.state(self.model.arch, self.model.mesh, freeze=freeze, rules=rules)

    def first_state(self, placement: TrainState) -> TrainState:
        """The state before step 0, on the devices."""
        init, seed = models.weights(self.config.model), self.config.seed
        check_weights(init, self.model.arch, freeze=self.config.freeze())
        params = models.first_params(init, self.model.arch, seed=seed)
        fresh = states.create(params, freeze=self.config.freeze(), rules=self.config.optim)
        return jax.device_put(fresh, placement)

    def train_step(self, placement: TrainState) -> TrainStep:
        """`step.make_train_step` of this run; `placement` is the state's shardings."""
        return steps.make_train_step(**self._update(), placement=placement)

    def update(self) -> TrainStep:
        """`step.make_update` of this run."""
        return steps.make_update(**self._update())

    def _update(self) -> dict[str, Any]:
        return dict(
            graph=self.model.graph,
            rules=self.config.optim,
            objective=Objective.of(self.config),
            dropout=self.config.model.dropout,
            remat=self.config.model.remat,
            mesh=self.model.mesh,
            steps_per_epoch=self.steps_per_epoch,
        )


def check_weights(init: configs.Init, arch: Architecture, *, freeze: tuple[str, ...]) -> None:
    """Warn of large encoders that start from random numbers; raise ValueError of frozen ones."""
    named = {"image_encoder": init.sam} | ({"text_encoder": init.bert} if arch.bert else {})
    bare = [encoder for encoder, source in named.items() if not (source or init.model)]
    if not bare or arch.vit.width < LARGE:
        return
    give = " ".join(f"--config.model.init.{SOURCES[encoder]}" for encoder in bare)
    if kept := [encoder for encoder in bare if encoder in freeze]:
        raise ValueError(
            f"{' and '.join(kept)} would stay at random numbers: frozen, and without weights;"
            f" expected {give}, or --config.model.init.model=DIR."
        )
    logging.warning(
        f"NO WEIGHTS WERE GIVEN for {' and '.join(bare)}: what starts from random numbers will not"
        f" reach any published score. Give {give}, or --config.model.init.model=DIR."
    )

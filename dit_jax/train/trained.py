"""A trained model, from a model directory or from a run's best checkpoint."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
from absl import logging
from jax.sharding import Mesh

from dit_jax import config as configs
from dit_jax import storage
from dit_jax.eval.protocols import PRESENCE_THRESHOLD
from dit_jax.models import params as parameters
from dit_jax.models.params import Params
from dit_jax.strict import flatten
from dit_jax.train import abstract
from dit_jax.train import model as models
from dit_jax.train.checkpoint import Checkpoints
from dit_jax.train.model import Model
from dit_jax.train.placement import sharding
from dit_jax.train.sources import Datasets
from dit_jax.train.workdir import check_model, check_place
from dit_jax.weights import directory, manifest

TRAINING = ("dataset", "split", "leaks")  # of `Run.meta`


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model with parameters, which are on the devices."""

    model: Model
    params: Params
    about: dict[str, Any] | None  # what it was trained on; None where nobody noted it
    folder: Path | None  # model directory that holds these parameters; None where there is none


def expect(workdir: Path, model_dir: Path | None) -> None:
    """Raise FileNotFoundError where there is nothing to load, before anything is written, and
    ValueError as `check_place` does."""
    check_place(workdir)
    if model_dir is None and not storage.direct(workdir / "checkpoints").is_dir():
        raise FileNotFoundError(f"{workdir} holds no checkpoints; train first or give --model=DIR.")


def load(config: configs.Config, workdir: Path, *, model_dir: Path | None) -> Trained:
    """A model directory, or the best checkpoint of `workdir`: `expect` them first."""
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batches(config.optim, config.eval, mesh)
    if model_dir is not None:
        return _of_directory(model_dir, mesh, asked=config.model)
    check_model(workdir, flatten(config))
    drawn = Datasets.of(config.data, size=config.model.image_size).drawn
    arch = config.architecture()
    model = Model.of(arch, models.vocabulary(config.model, drawn=drawn), mesh)
    state = abstract.state(arch, mesh, freeze=config.freeze(), rules=config.optim)
    with Checkpoints(workdir, config.checkpoint) as checkpoints:
        best = checkpoints.best()
        if best is None:
            raise FileNotFoundError(f"{workdir} holds no checkpoint yet; train longer.")
        params = checkpoints.restore_params(best, state)
        about = training_of(checkpoints.meta(best))
        return Trained(model, params, about, _exported(workdir / "model", step=best))


def _exported(folder: Path, *, step: int) -> Path | None:
    """A run's model directory, where it holds the parameters of this step."""
    noted = manifest.read(folder)
    return folder if noted is not None and noted.provenance.get("step") == step else None


def presence_threshold(rules: configs.Eval, folder: Path | None) -> float:
    """What the config says, else what the model directory was calibrated to, else 0.5."""
    if rules.presence_threshold is not None:
        return rules.presence_threshold
    stored = None if folder is None else manifest.presence_threshold(folder)
    return stored or PRESENCE_THRESHOLD


def _of_directory(folder: Path, mesh: Mesh, *, asked: configs.Model) -> Trained:
    arch, params = parameters.to_float32(*directory.read(folder))
    arch = dataclasses.replace(arch, products=asked.products or arch.products)
    for key in ("image_size", "dtype"):  # which every config says, whether it is meant or not
        own, other = getattr(arch, key), getattr(asked, key)
        if own != other:
            logging.warning(f"{folder} is asked at its own {key}, {own}; the config says {other}.")
    about = directory.read_provenance(folder)
    if arch.bert is None and asked.task != "prompts":
        raise ValueError(
            f"{folder} is plain SAM, which reads no text; expected a model with a text encoder, or"
            " a config with model.task=prompts."
        )
    if arch.bert is not None and asked.task == "prompts":
        raise ValueError(f"{folder} reads text, and model.task is 'prompts'; expected plain SAM.")
    model = Model.of(arch, directory.vocab_path(folder) if arch.bert else None, mesh)
    return Trained(model, jax.device_put(params, model.placement), training_of(about), folder)


def training_of(noted: dict[str, Any]) -> dict[str, Any] | None:
    """What checkpoints and model directories of a run note about its training data."""
    about = {key: noted[key] for key in TRAINING if key in noted}
    return about if set(about) == set(TRAINING) else None

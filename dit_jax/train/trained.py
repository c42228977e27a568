"""A trained model, from a model directory or from a run's best checkpoint."""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from dit_jax import config as configs
from dit_jax.models.params import Params
from dit_jax.train.checkpoint import Checkpoints, check_same
from dit_jax.train.placement import sharding
from dit_jax.train.run import Model, Run
from dit_jax.weights import directory

TRAINING = ("dataset", "split", "leaks")  # of `Run.meta`


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model with parameters, which are on the devices."""

    model: Model
    params: Params
    about: dict[str, Any] | None  # what it was trained on; None where nobody noted it


def load(config: configs.Config, workdir: Path, *, model_dir: Path | None) -> Trained:
    """A model directory, or the best checkpoint of `workdir`."""
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batches(config, mesh)
    if model_dir is not None:
        arch, params = directory.read(model_dir)
        about = directory.read_provenance(model_dir)
        if arch.bert is None:
            raise ValueError(
                f"{model_dir} is plain SAM, which reads no text; expected a model with a text"
                " encoder."
            )
        model = Model.of(arch, directory.vocab_path(model_dir), mesh)
        return Trained(model, jax.device_put(params, model.placement), training_of(about))
    if not (workdir / "checkpoints").is_dir():
        raise FileNotFoundError(f"{workdir} holds no checkpoints; train first or give --model=DIR.")
    check_same(workdir, config, only=("model.", "optim.ema"))
    run = Run.of(config, workdir, allow_leak=True)  # nothing is trained
    with Checkpoints(workdir, config.checkpoint) as checkpoints:
        best = checkpoints.best()
        if best is None:
            raise FileNotFoundError(f"{workdir} holds no checkpoint yet; train longer.")
        params = checkpoints.restore_params(best, run.abstract_state())
        return Trained(run.model, params, training_of(checkpoints.meta(best)))


def training_of(noted: dict[str, Any]) -> dict[str, Any] | None:
    """What checkpoints and model directories of a run note about its training data."""
    about = {key: noted[key] for key in TRAINING if key in noted}
    return about if set(about) == set(TRAINING) else None

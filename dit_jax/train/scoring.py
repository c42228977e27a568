"""Scores of a model on a run's evaluation splits: during training, at its end, or alone."""

from pathlib import Path

import jax

from dit_jax import config as configs
from dit_jax import model_directory
from dit_jax.data.pipeline import Batch
from dit_jax.eval import evaluate as evaluation
from dit_jax.models.params import Params
from dit_jax.train import setup, sharding
from dit_jax.train import step as steps
from dit_jax.train.checkpoint import Checkpoints, check_same
from dit_jax.train.run import Model, Run
from dit_jax.train.stop import Stop, Stopped

Scores = dict[str, dict]  # protocol → scores


def score_split(
    config: configs.Config, model: Model, params: Params, split: str, *, stop: Stop | None = None
) -> tuple[Scores, list[evaluation.Sample]]:
    """Scores of every protocol on one split, and some predictions."""

    def predict(batch: Batch) -> jax.Array:
        if stop is not None and stop.asked:
            raise Stopped
        return model.predict(params, steps.place_batch(batch, model.mesh))

    return evaluation.evaluate(
        predict,
        setup.open_source(config, split),
        model.tokenizer,
        size=model.arch.image_size,
        batch_size=config.eval.batch_size,
        protocols=config.eval.protocols,
        threshold=config.eval.threshold,
        limit=config.data.eval_limit,
        keep=config.train.pictures,
    )


def score_all(
    config: configs.Config,
    workdir: Path,
    model: Model,
    params: Params,
    *,
    stop: Stop | None = None,
) -> None:
    """Score every evaluation split; print the table and write the JSON files."""
    results = {}
    for split in config.data.eval_splits:
        results[split], _ = score_split(config, model, params, split, stop=stop)
        evaluation.write_scores(workdir, config.data.dataset, split, results[split])
    print(evaluation.table(results))


def evaluate(config: configs.Config, workdir: Path, *, model_dir: Path | None) -> None:
    """Score a model directory, or the best checkpoint of `workdir`, on every evaluation split."""
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batches(config, mesh)
    if model_dir is not None:
        arch, params = model_directory.read(model_dir)
        if arch.bert is None:
            raise ValueError(
                f"{model_dir} is plain SAM, which reads no text; expected a model with a text"
                " encoder."
            )
        setup.check_evaluation(config)
        model = Model.of(arch, model_directory.vocab_path(model_dir), mesh)
        score_all(config, workdir, model, jax.device_put(params, model.placement))
        return
    if not (workdir / "checkpoints").is_dir():
        raise FileNotFoundError(f"{workdir} holds no checkpoints; train first or give --model=DIR.")
    check_same(workdir, config, only=("model.", "optim.ema"))
    run = Run.of(config, workdir)
    with Checkpoints(workdir, config.checkpoint) as checkpoints:
        if checkpoints.best() is None:
            raise FileNotFoundError(f"{workdir} holds no checkpoint yet; train longer.")
        params = checkpoints.restore_params(checkpoints.best(), run.abstract_state())
    score_all(config, workdir, run.model, params)

"""Scores of a model on a run's evaluation splits: during training, at its end, or alone."""

import functools
from pathlib import Path
from typing import Any

from dit_jax import config as configs
from dit_jax.data.pipeline import Batch
from dit_jax.eval import report
from dit_jax.eval.evaluate import Evaluation, evaluate
from dit_jax.eval.metrics import Scores
from dit_jax.eval.predictions import Answers
from dit_jax.models.params import Params
from dit_jax.train import sources, trained
from dit_jax.train import step as steps
from dit_jax.train.placement import hosts
from dit_jax.train.run import Model
from dit_jax.train.stop import Stop, Stopped

About = dict[str, Any]  # what the model was trained on, as `Run.meta` says it


def score_split(
    config: configs.Config,
    workdir: Path,
    model: Model,
    params: Params,
    split: str,
    *,
    about: About | None,
    stop: Stop | None = None,
) -> Evaluation:
    """Score one split under every protocol, and write the scores into `workdir`.

    Hosts share the expressions; each gets all scores, the first one writes them.
    """
    dataset, name = sources.label(config, split)
    lines = workdir / "predictions" / f"{dataset}-{name}.jsonl"
    settings, share = config.eval, hosts.share(model.mesh)

    agreed = hosts.Agreement(model.mesh)

    def predict(batch: Batch) -> Answers:
        if agreed(stop.wish if stop is not None else hosts.GO_ON) == hosts.ASKED:
            raise Stopped
        said = model.predict(params, steps.place_batch(batch, model.mesh))
        mask, there = said.logits, said.presence
        return Answers(hosts.OwnRows(mask), None if there is None else hosts.OwnRows(there))

    result = evaluate(
        predict,
        sources.open_source(config, split),
        model.tokenizer,
        size=model.arch.image_size,
        batch_size=settings.batch_size // share.count,
        protocols=settings.protocols,
        threshold=settings.threshold,
        presence_threshold=settings.presence_threshold,
        bootstrap=settings.bootstrap,
        limit=config.data.eval_limit,
        keep=config.train.pictures,
        predictions_path=lines if settings.predictions and share.reads else None,
        about={"dataset": dataset, "split": name},
        shard_index=share.index,
        shard_count=share.count,
        gather=functools.partial(hosts.gather, readers=share.readers) if share.count > 1 else None,
    )
    if hosts.first():
        remarks = {"trained_on": about}
        report.write_scores(workdir, dataset, name, result.scores, remarks=remarks)
    return result


def score_all(
    config: configs.Config,
    workdir: Path,
    model: Model,
    params: Params,
    *,
    about: About | None,
    stop: Stop | None = None,
) -> dict[str, dict[str, Any]]:
    """Score every evaluation split; print the table, write the files, return the headlines."""
    results: dict[str, dict[str, Scores]] = {}
    headlines: dict[str, dict[str, Any]] = {}
    for split in config.data.eval_splits:
        result = score_split(config, workdir, model, params, split, about=about, stop=stop)
        results[split] = result.scores
        headlines |= report.headlines(*sources.label(config, split), result.scores)
    if hosts.first():
        print(report.table(results))
    return headlines


def score(config: configs.Config, workdir: Path, *, model_dir: Path | None) -> None:
    """Score a model directory, or the best checkpoint of `workdir`, on every evaluation split."""
    sources.check_evaluation(config)
    found = trained.load(config, workdir, model_dir=model_dir)
    score_all(config, workdir, found.model, found.params, about=found.about)

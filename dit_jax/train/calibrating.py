"""`--mode=calibrate`: when a model says that nothing is meant. See `dit_jax.eval.calibration`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from tqdm import tqdm

from dit_jax import config as configs
from dit_jax.data.pipeline import Batch, eval_batches
from dit_jax.eval import calibration
from dit_jax.eval.collect import Collector, Thresholds
from dit_jax.eval.evaluate import count_of
from dit_jax.eval.predictions import Answers, Prediction, check_finite, predictions
from dit_jax.eval.protocols import rows
from dit_jax.train import step as steps
from dit_jax.train import trained
from dit_jax.train.sources import Datasets, Scored
from dit_jax.train.trained import Trained
from dit_jax.weights import manifest


def calibrate(config: configs.Config, workdir: Path, *, model_dir: Path | None = None) -> None:
    """Choose the presence threshold of a model directory, or of the run's, and store it there.

    The first of `data.eval_splits` chooses, so that at most `eval.false_alarm` of a picture's
    absent expressions get a mask, in the mean; on each of the others is printed, and stored, what
    came of it. Raises ValueError or OSError, in a sentence, before the model runs, where that
    cannot be.
    """
    folder, alarm = model_dir or workdir / "model", config.eval.false_alarm
    noted = manifest.read(folder)
    found = trained.load(config, workdir, model_dir=folder)
    if noted is None:
        raise ValueError(f"{folder} has no {manifest.MANIFEST}; write it anew with --mode=export.")
    if not found.model.arch.presence:
        raise ValueError(
            f'{folder} never says "nothing"; expected a model trained with model.presence=true.'
        )
    first, *others = Datasets.of(config.data, size=config.model.image_size).splits
    absent, pictures = _absent(first, config)
    count = len(np.unique(pictures))
    calibration.allowed(count, false_alarm=alarm)
    for split in others:
        _absent(split, config)
    presence = []
    for seen in _answers(found, first, config):
        check_finite(seen, name=f"{first.key} {seen.index}", what="the answer is")
        presence.append(seen.presence)
    chosen = calibration.threshold(np.float32(presence)[absent], pictures, false_alarm=alarm)
    checks = {
        f"{split.dataset}-{split.name}": _checked(found, split, config, chosen) for split in others
    }
    where = dict(dataset=first.dataset, split=first.name, n=count)
    promise = manifest.Calibration(chosen, alarm, **where, checks=checks)
    manifest.note_calibration(folder, promise, of=noted)
    print(promise.sentence)
    for name, row in checks.items():
        print(_said(name, row))


def _absent(
    split: Scored, config: configs.Config
) -> tuple[Bool[np.ndarray, " n"], Int[np.ndarray, " absent"]]:
    """Which of the expressions that are scored fit nothing, and the pictures that these are about.

    Raises ValueError unless some do, and some do not.
    """
    source = split.open()
    nothing = np.array([not source.truth(i).mask.any() for i in range(len(source))])
    counts = source.expression_counts()
    scored = slice(count_of(int(counts.sum()), config.data.eval_limit))
    nothing = np.repeat(nothing, counts)[scored]
    if nothing.all() or not nothing.any():
        raise ValueError(
            f"{split.key} has {nothing.sum()} absent expressions of {len(nothing)}; expected a"
            " split with some that fit nothing in their picture, and some that do fit."
        )
    return nothing, np.repeat(source.image_ids(), counts)[scored][nothing]


def _answers(found: Trained, split: Scored, config: configs.Config) -> Iterator[Prediction]:
    model, source = found.model, split.open()
    count = count_of(int(source.expression_counts().sum()), config.data.eval_limit)
    how = dict(size=model.arch.image_size, batch_size=config.eval.batch_size)
    batches = eval_batches(source, model.tokenizer, **how, ahead_bytes=config.data.ahead_bytes())

    def predict(batch: Batch) -> Answers:
        return model.predict(found.params, steps.place_batch(batch, model.mesh))

    answers = predictions(predict, iter(batches), count=count)
    yield from tqdm(answers, total=count, unit="expr", disable=None, leave=False)


def _checked(
    found: Trained, split: Scored, config: configs.Config, chosen: float
) -> dict[str, Any]:
    """What `calibration.check` says of the threshold, beside the config's or 0.5."""
    both = [
        Collector(
            split.open(),
            rows(["gres"]),
            thresholds=Thresholds(config.eval.threshold, presence_threshold),
            shown=frozenset(),
            lines=None,
        )
        for presence_threshold in (trained.presence_threshold(config.eval, None), chosen)
    ]
    for seen in _answers(found, split, config):
        for one in both:
            one.add(seen)
    return calibration.check(*(one.outcomes()["gres"] for one in both))


def _said(name: str, row: dict[str, Any]) -> str:
    low, high = row["interval"]
    before, after = zip(row["T-acc"], row["oIoU"], strict=True)
    return (
        f"{name}: {row['masks']} of {row['absent']} absent expressions get a mask,"
        f" {row['share']:.1f} % [{low:.1f}, {high:.1f}]; of {row['present']} present ones T-acc"
        f" {before[0]:.1f} → {after[0]:.1f}, oIoU {before[1]:.1f} → {after[1]:.1f}."
    )

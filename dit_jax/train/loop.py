"""The training loop: evaluate → save → next batch → step → log, until the run's end.

A run that was stopped or killed continues when the same command is given again, and ends with
the same parameters, bit for bit: every step is a function of (state, data position, seed).
"""

from pathlib import Path

import jax
import numpy as np
from absl import logging
from jaxtyping import Int64

from dit_jax import config as configs
from dit_jax import storage, viz
from dit_jax.data.pipeline import Batch, TrainBatches
from dit_jax.eval.report import table
from dit_jax.lease import Lease
from dit_jax.strict import counted
from dit_jax.train import features
from dit_jax.train import state as states
from dit_jax.train import step as steps
from dit_jax.train.checkpoint import SCORES, Checkpoints, read_scores
from dit_jax.train.logs import MetricWriter, NonFinite, Profile, boards, provenance
from dit_jax.train.logs import report as run_report
from dit_jax.train.placement import Feed, hosts
from dit_jax.train.run import Run
from dit_jax.train.state import TrainState
from dit_jax.train.stop import Stop, Stopped
from dit_jax.train.trained import training_of
from dit_jax.train.workdir import SCORING, changes, check_same, held, write_settings
from dit_jax.weights import directory, manifest

FOLDERS = ("checkpoints", "eval", "pictures", "predictions", "tensorboard", "wandb")
MODELS = ("model_final", "model")  # what a run exports: its last parameters, and its best


def train(
    config: configs.Config, workdir: Path, *, overwrite: bool = False, allow_leak: bool = False
) -> bool:
    """Train to the end, or until stopped; continues what `workdir` holds.

    Args:
      overwrite: continue a run whose config was another one.
      allow_leak: train on pictures of evaluation splits, where `data.leaks` keeps them.

    Returns whether the run is finished; if not, it was stopped, and the same command continues.
    Raises OSError where another process trains or scores in `workdir`.
    """
    if config.data.cache_features:
        features.check(config)
    hosts.first(lambda: boards.check(config.train.writers), raises=ValueError)
    with held(workdir, purpose="training", inside=FOLDERS) as lease:
        if hosts.is_primary():
            for name in MODELS:
                directory.tidy(workdir / name)
        run = Run.of(config, workdir, allow_leak=allow_leak)
        if not overwrite:
            check_same(workdir, run.settings())
        stopping, saving = Stop(config.train.minutes), Checkpoints(workdir, config.checkpoint)
        with stopping as stop, saving as checkpoints:
            try:
                training = Training(run, stop, checkpoints, lease)
            except Stopped:
                print(
                    "Stopped while features were computed. The same command continues.", flush=True
                )
                return False
            if others := changes(workdir, run.settings(), only=SCORING):
                checkpoints.forget_scores()
                logging.warning("Scores so far choose no best checkpoint: %s.", "; ".join(others))
            # Not before the first weights are known to load.
            write_settings(workdir, run.settings())
            if hosts.is_primary():
                mesh = run.model.mesh
                provenance.note_start(workdir, run.settings(), mesh, step=training.step)
            training.loop()
            checkpoints.wait()
            if hosts.is_primary():
                print(end_message(training.step, run.total, stopped=training.asked), flush=True)
            if run.batches.skipped:
                print(skipped_message(run.batches, training.feed.skipped_rows), flush=True)
            if training.asked or not training.step or not finish(run, checkpoints, stop):
                return False
            return training.step >= run.total


class Training:
    """The state of the loop; `step` counts the updates made."""

    def __init__(self, run: Run, stop: Stop, checkpoints: Checkpoints, lease: Lease):
        self.run, self.stop, self.checkpoints, self.lease = run, stop, checkpoints, lease
        self.key = jax.random.key(run.config.seed)
        abstract = run.abstract_state()
        placement = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        self.train_step = run.train_step(placement)
        self.feed = Feed(run.batches, self.place)
        self.features: features.Features | None = None
        self.agreed = hosts.Agreement(run.model.mesh)
        self.asked = False  # to stop, by a signal to any process
        self.failures = NonFinite(run.config.train.max_nonfinite)
        self.state, self.step = self.start(abstract, placement)
        self.saved = self.step
        if run.config.data.cache_features:
            self.features = features.Features(run, states.evaluated(self.state), stop)

    def place(self, batch: Batch) -> steps.Batch:
        """A batch on the devices, with what is known of its pictures in place of them."""
        if self.features is not None:
            batch = batch | {"before": self.features(batch["index"])}
        return steps.place_batch(batch, self.run.model.mesh)

    def start(self, abstract: TrainState, placement: TrainState) -> tuple[TrainState, int]:
        """The latest checkpoint, or a fresh state."""
        latest = self.checkpoints.latest()
        if latest is None:
            self.checkpoints.forget_scores_after(0)
            return self.run.first_state(placement), 0
        state, data = self.checkpoints.restore(latest, abstract)
        self.feed.set_state(data)
        self.failures.restore(self.checkpoints.meta(latest))
        return state, latest

    def loop(self) -> None:
        """Order: evaluate → save → next batch → step → log."""
        config, total = self.run.config, self.run.total
        about = dict(every=config.train.log_every, writers=config.train.writers)
        about |= dict(batch_size=config.optim.batch_size)
        about |= dict(failures=self.failures, names=self.names, silent=not hosts.is_primary())
        report = MetricWriter(self.run.workdir, start=self.step, total=total, **about)
        with report, Profile(config.profiled(), self.run.workdir) as profile:
            if not self.run.datasets.drawn:
                report.say(self.run.leaks.text())
            if self.step:
                report.say(f"Continuing from step {self.step} of {total}.")
            while not self.pause(report):
                batch = next(self.feed)
                profile.before(self.step + 1, self.state)
                self.state, metrics = self.train_step(self.state, batch.placed, self.key)
                self.step += 1
                about = dict(index=batch.host["index"], skipped=self.feed.skipped_rows)
                report.step(self.step, metrics, **about)
        self.feed.close()

    def names(self, index: Int64[np.ndarray, " b"]) -> list[str]:
        """The ids of a batch's records; every process gives its own rows."""
        share = hosts.share(self.run.model.mesh)
        rows = hosts.gather(index[:, None], readers=share.readers)
        return [self.run.batches.name(row) for row in rows[:, 0].tolist()]

    def pause(self, report: MetricWriter) -> bool:
        """Evaluate and save where it is time to; whether the loop is over."""
        request = self.agreed(self.stop.request)
        over = self.step >= self.run.total or request == hosts.TIME_OVER
        self.asked = request == hosts.ASKED
        evaluating = over or due(self.step, self.run.every)
        if evaluating and self.step > 0 and not self.checkpoints.scored(self.step):
            self.evaluate(report)
        ending = over or self.asked
        saving = ending or evaluating or due(self.step, self.run.config.checkpoint.every_steps)
        if saving and self.step > self.saved:
            self.save(report)
        return ending

    def evaluate(self, report: MetricWriter) -> None:
        """Score the first split, draw and log, unless a signal comes in between."""
        report.flush()
        run, split = self.run, self.run.datasets.splits[0]
        params, about = states.evaluated(self.state), training_of(run.meta())
        try:
            result = run.scorer.split(params, split, about=about, stop=self.stop)
        except Stopped:
            self.asked = True
            return
        report.say(f"step {self.step}\n{table({split.key: result.scores})}")
        report.scores(self.step, split.key, result.scores)
        if result.samples and hosts.is_primary():
            viz.save_grid(result.samples, run.workdir / "pictures" / f"step_{self.step:06d}.png")
        # Some protocols have no oIoU where no pixel is meant and none is found.
        self.checkpoints.rank(self.step, result.scores[run.config.eval.best]["oIoU"] or 0.0)
        if hosts.is_primary():
            write_report(run)

    def save(self, report: MetricWriter) -> None:
        """Not before the losses so far are known to be finite, and logged."""
        report.to_disk()
        self.lease.check()
        data, meta = self.feed.get_state(), self.run.meta() | self.failures.record()
        self.checkpoints.save(self.state, step=self.step, data=data, meta=meta)
        self.saved = self.step
        report.restart_clock()


def due(step: int, every: int) -> bool:
    return every > 0 and step > 0 and step % every == 0


def end_message(step: int, total: int, *, stopped: bool) -> str:
    if step >= total and not stopped:
        return f"Trained {counted(total, 'step')}."
    why = "Stopped" if stopped else "The time is over"
    if not step:
        return f"{why} before the first step; nothing was to be saved. The same command starts."
    return f"{why} at step {step} of {total}; saved. The same command continues."


def skipped_message(batches: TrainBatches, rows: int) -> str:
    """What was left out; `rows` of the batches that were trained on, not of all that were made."""
    names = ", ".join(sorted(batches.skipped))
    return (
        f"{counted(rows, 'row')} held other records than these broken ones"
        f" ({len(batches.skipped)}): {names}."
    )


def finish(run: Run, checkpoints: Checkpoints, stop: Stop) -> bool:
    """Export the last and the best parameters as model directories, and score the best.

    The scores end early, and it returns False, where a signal comes in between; the same command
    then makes them again.
    """
    abstract, vocab = run.abstract_state(), run.model.tokenizer.vocab_path
    origin = provenance.record(run.settings(), run.model.mesh)
    for name, step in zip(MODELS, (checkpoints.latest(), checkpoints.best()), strict=True):
        params = checkpoints.restore_params(step, abstract)
        arrays = hosts.allgather(params)
        if hosts.is_primary():
            directory.save(
                run.workdir / name,
                run.model.arch,
                arrays,
                vocab=vocab,
                provenance={"step": step, **run.meta(), **origin},
                overwrite=True,
            )
    if hosts.is_primary():
        folder = storage.named(run.workdir / "model")
        print(f"Best checkpoint: step {step}, exported to {folder}.")
    try:
        scores = run.scorer.all(params, about=training_of(run.meta()), stop=stop)
    except Stopped:
        if hosts.is_primary():
            print("Stopped before every split was scored. The same command continues.", flush=True)
        return False
    if hosts.is_primary():
        manifest.note_scores(run.workdir / "model", scores)
        write_report(run)
    return True


def write_report(run: Run) -> None:
    """`report.md` and its curves, from what the run has logged so far."""
    about = dict(arch=run.model.arch, freeze=run.config.freeze())
    about |= dict(scored=read_scores(run.workdir / SCORES))
    run_report.write(run.workdir, run.settings(), **about)

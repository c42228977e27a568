"""Checkpoints with Orbax: asynchronous, atomic, the latest and the best, and exact on resume.

`<workdir>/checkpoints/<step>/` holds params, ema, opt (with the step), data (position in the
stream) and meta. Orbax writes to a temporary folder and renames it, or in a bucket writes
`commit_success.txt` last, so a killed run never leaves half a checkpoint. What an evaluation gave
is in `<workdir>/scores.json`, by step.
"""

import contextlib
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import options as ocp_options
from orbax.checkpoint.checkpoint_managers import preservation_policy as keep

from dit_jax import config as configs
from dit_jax import storage
from dit_jax.models.params import Params
from dit_jax.train import checksums, optim
from dit_jax.train.placement import hosts
from dit_jax.train.state import TrainState
from dit_jax.train.workdir import read_json, write_json

SCORES = "scores.json"
TEMPORARY = ".orbax-checkpoint-tmp"  # in the name of a folder that is being written
LAST = "commit_success.txt"  # Orbax's own, the last object of a checkpoint in a bucket
COMMITTED = "_CHECKPOINT_METADATA"  # Orbax's own, in every checkpoint
ITEMS = ("params", "opt", "data", "meta")  # and "ema", where the run has a moving average
ASIDE = "incomplete_checkpoints"
UNSCORED = -1.0  # of a checkpoint that was not evaluated; real scores are percentages


class Checkpoints:
    """The checkpoints of one run; use as a context manager, which waits for the last write."""

    def __init__(self, workdir: Path, rules: configs.Checkpoint):
        self._path = workdir / SCORES
        self._folder = storage.direct((workdir / "checkpoints").resolve())
        atomicity = None  # as Orbax does on a disk
        if storage.parse(self._folder):
            atomicity = ocp_options.AtomicityOptions(ocp_options.AtomicityMode.COMMIT_FILE)
        self._asynchronous = rules.asynchronous
        self._scores: dict[int, float] = read_scores(self._path)
        best = keep.BestN(get_metric_fn=self._score, n=1)
        latest = keep.LatestN(rules.keep_latest)
        options = ocp.CheckpointManagerOptions(
            best_fn=self._score,  # makes Orbax keep the step; the policies decide what is deleted
            preservation_policy=keep.AnyPreservationPolicy([latest, best]),
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_checksums),
            cleanup_tmp_directories=True,
            atomicity_options=atomicity,
        )
        with self._named_errors("be opened"):
            if hosts.is_primary():
                _set_incomplete_aside(self._folder)
            hosts.sync("checkpoints")
            self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, error, trace) -> None:
        try:
            with self._named_errors("be completed"):
                self._manager.close()
        except OSError:
            if error is None:  # else it has been said already
                raise

    def save(self, state: TrainState, *, step: int, data: dict, meta: dict) -> None:
        """Start writing; the state may be donated as soon as this returns.

        Args:
          data: position in the stream of batches.
          meta: what else is to be known about these parameters, e.g. what they were trained on.
        """
        items = {name: ocp.args.StandardSave(tree) for name, tree in _items(state).items()}
        items["data"] = ocp.args.JsonSave(data)
        items["meta"] = ocp.args.JsonSave({"step": step, **meta})
        composite = ocp.args.Composite(**items)
        with self._named_errors("be written"):
            self._manager.save(step, args=composite, metrics={"step": step}, force=True)
        if not self._asynchronous:
            self.wait()

    def rank(self, step: int, score: float) -> None:
        """Note what an evaluation of this step gave."""
        self._scores[step] = score
        if hosts.is_primary():
            write_json(self._path, self._scores)

    def forget_scores(self) -> None:
        """Drop all of them: those to come mean something else."""
        self._scores = {}
        if hosts.is_primary() and self._path.exists():
            write_json(self._path, self._scores)

    def forget_scores_after(self, step: int) -> None:
        """Drop what a killed run gave to steps that it did not save."""
        self._scores = {known: score for known, score in self._scores.items() if known <= step}

    def scored(self, step: int) -> bool:
        return step in self._scores

    def wait(self) -> None:
        """Until everything is on disk."""
        with self._named_errors("be written"):
            self._manager.wait_until_finished()

    def latest(self) -> int | None:
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The step with the highest score, of equal ones the later; None without checkpoints."""
        steps = self._manager.all_steps()
        return max(steps, key=lambda step: (self._score({"step": step}), step), default=None)

    def _score(self, metrics: dict[str, int]) -> float:
        return self._scores.get(metrics["step"], UNSCORED)

    def restore(self, step: int, abstract: TrainState) -> tuple[TrainState, dict]:
        """State and data position of a step, placed as the abstract state's shardings say.

        Forgets the scores of later steps, which will be made again.
        """
        items = {name: ocp.args.StandardRestore(tree) for name, tree in _items(abstract).items()}
        items["data"] = ocp.args.JsonRestore()
        found = self._restore(step, items)
        state = TrainState(
            step=found["opt"]["step"],
            trainable=found["params"]["trainable"],
            frozen=found["params"]["frozen"],
            opt_state=found["opt"]["adam"],
            ema=found["ema"] if "ema" in items else {},
        )
        self.forget_scores_after(step)
        return state, found["data"]

    def _restore(self, step: int, items: dict[str, Any]) -> Any:
        """Items of a step whose files are those that were written."""
        checksums.check(self._folder / str(step))
        return self._read(step, items)

    def _read(self, step: int, items: dict[str, Any]) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:  # plain ones too, of TensorStore
            raise ValueError(
                f"the checkpoint {self._folder / str(step)} cannot be read: {_reason(error)}; it"
                " is of another model than the config's, or not whole: then remove that folder to"
                " continue from the checkpoint before it, or restore it from a copy."
            ) from error

    def _write_checksums(self) -> None:
        """Called by Orbax when all files of a step are there, and before it gets its name."""
        if hosts.is_primary():
            for unfinished in _unfinished(self._folder):
                checksums.write(unfinished)

    @contextlib.contextmanager
    def _named_errors(self, what: str) -> Iterator[None]:
        """Turn whatever Orbax and TensorStore raise for a disk's trouble into one sentence."""
        try:
            yield
        except Exception as error:  # packages of buckets have kinds of their own
            raise OSError(
                f"a checkpoint in {self._folder} could not {what}: {_reason(error)}; checkpoints"
                " that are there are complete, and the same command continues from the latest."
            ) from error

    def meta(self, step: int) -> dict:
        """What `save` was told about these parameters."""
        return self._read(step, {"meta": ocp.args.JsonRestore()})["meta"]

    def restore_params(self, step: int, abstract: TrainState) -> Params:
        """The parameters to score or export: the moving average where there is one."""
        wanted = {name: tree for name, tree in _items(abstract).items() if name != "opt"}
        items = {name: ocp.args.StandardRestore(tree) for name, tree in wanted.items()}
        found = self._restore(step, items)
        trained = found["ema"] if "ema" in wanted else found["params"]["trainable"]
        return optim.combine(trained, found["params"]["frozen"])


def _steps(folder: os.PathLike) -> dict[os.PathLike, bool]:
    """The folders of steps, and whether they count: not yet in a bucket without their last file."""
    if name := storage.parse(folder):
        there = storage.listing(name)  # by its path, a bucket's folder may be remembered as it was
        steps = sorted({inside.partition("/")[0] for inside in there})
        return {folder / step: f"{step}/{LAST}" in there for step in steps if step.isdigit()}
    return {path: True for path in sorted(folder.glob("*")) if path.name.isdigit()}


def _unfinished(folder: os.PathLike) -> list[os.PathLike]:
    """Steps that are being written: on a disk, by their folders' names."""
    if storage.parse(folder):
        return [step for step, counts in _steps(folder).items() if not counts]
    return list(folder.glob(f"*{TEMPORARY}*"))


def _complete(folder: os.PathLike) -> None:
    """Let steps of a bucket count that lack nothing but their last object: copies of other disks'.

    Orbax takes them for unfinished ones, and removes those.
    """
    if storage.parse(folder):
        for step in _unfinished(folder):
            if checksums.missing(step, items=(COMMITTED, *ITEMS, checksums.CHECKSUMS)) is None:
                (step / LAST).write_text("Complete by its checksums.")


def _set_incomplete_aside(folder: os.PathLike) -> None:
    """Move steps that lack files, as a copy that broke off leaves them, out of the way, and say so.

    Writing itself never leaves one: what is not whole yet has no step's name, or not its last file.
    """
    _complete(folder)
    steps = [step for step, counts in _steps(folder).items() if counts]
    lacks = {step: checksums.missing(step, items=(COMMITTED, *ITEMS)) for step in steps}
    others = [step for step, lacking in lacks.items() if lacking is None]
    for step, lacking in lacks.items():
        if lacking is None:
            continue
        aside = folder.parent / ASIDE / step.name
        while aside.exists():
            aside = aside.with_name(f"{aside.name}_")
        storage.move(step, aside)
        logging.warning(
            "the checkpoint %s is not whole (%s is missing); it is now %s, and %s.",
            step,
            lacking,
            aside,
            "another one is used" if others else "no other one is there",
        )


def _reason(error: Exception) -> str:
    """What Orbax and TensorStore say, as part of a sentence: they print whole trees of values."""
    said = str(error).strip() or type(error).__name__
    return textwrap.shorten(said.splitlines()[0], 200, placeholder=" …")


def _items(state: TrainState) -> dict[str, Any]:
    """The state as named trees; Orbax refuses an empty one."""
    trees = {
        "params": {"trainable": state.trainable, "frozen": state.frozen},
        "opt": {"step": state.step, "adam": state.opt_state},
    }
    return trees | ({"ema": state.ema} if state.ema else {})


def read_scores(path: Path) -> dict[int, float]:
    if not path.is_file():
        return {}
    try:
        return {int(step): float(score) for step, score in read_json(path).items()}
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged; expected a score for each step: remove it to go on, which only"
            " forgets which checkpoint was best."
        ) from error

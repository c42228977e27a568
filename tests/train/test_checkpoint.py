"""Stopping and continuing: the parameters do not notice."""

import dataclasses
import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest
from runs import FIVE_STEPS, config_of, train_step_of

from dit_jax.strict import flatten
from dit_jax.train import loop
from dit_jax.train import step as steps
from dit_jax.train.checkpoint import Checkpoints
from dit_jax.train.logs import progress
from dit_jax.train.run import Run
from dit_jax.train.stop import Stop
from dit_jax.train.workdir import FORMER, check_model, check_same, write_settings
from dit_jax.weights import directory

pytestmark = pytest.mark.usefixtures("small")

# Saved at steps 3 (evaluated) and 5.
LENGTH = FIVE_STEPS | dict(checkpoint__every_steps=0)


def final_params(workdir):
    return jax.tree.leaves(directory.read(workdir / "model_final")[1])


def die_after(monkeypatch, batches):
    """Let a run break off when it asks for more than so many batches."""
    left, place = iter(range(batches)), loop.steps.place_batch

    def place_or_die(batch, mesh):
        if next(left, None) is None:
            raise InterruptedError
        return place(batch, mesh)

    monkeypatch.setattr(loop.steps, "place_batch", place_or_die)


def test_resume_is_no_resume(trained, tmp_path, monkeypatch, capsys):
    """A run killed after step 4, whose last checkpoint is step 3's, ends bit-identical."""
    config = config_of(**LENGTH)
    with monkeypatch.context() as patch:
        die_after(patch, batches=6)  # four steps, one ahead, and one of the evaluation at step 3
        with pytest.raises(InterruptedError):
            loop.train(config, tmp_path)
    loop.train(config, tmp_path)
    assert "Continuing from step 3 of 5." in capsys.readouterr().out
    for a, b in zip(final_params(trained), final_params(tmp_path), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(records(trained), records(tmp_path), strict=True):
        assert {k: v for k, v in a.items() if "images" not in k} == {
            k: v for k, v in b.items() if "images" not in k
        }


@pytest.mark.proof
def test_muons_moments_are_kept(tmp_path):
    """Matrices have one moment, everything else two."""
    changes = dict(optim__name="muon", checkpoint__every_steps=2, optim__schedule="steps")
    assert loop.train(config_of(**changes), tmp_path / "whole")
    assert loop.train(config_of(**changes | dict(optim__max_steps=2)), tmp_path / "parts")
    assert loop.train(config_of(**changes), tmp_path / "parts", overwrite=True)
    for one, other in zip(
        *(final_params(tmp_path / run) for run in ("whole", "parts")), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.proof
def test_the_seed_decides_everything(tmp_path):
    """Weights, order, augmentation, dropout: equal for equal seeds, and only for those."""
    changes = FIVE_STEPS | dict(model__dropout=True)
    config = config_of(**changes)
    one, other, different = (
        two_steps(dataclasses.replace(config, seed=seed), tmp_path) for seed in (3, 3, 4)
    )
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (one, different)), strict=True))


def test_minutes_that_are_over_before_the_first_step(tmp_path, capsys):
    assert not loop.train(config_of(train__minutes=1e-9), tmp_path)
    assert "The time is over before the first step; nothing" in capsys.readouterr().out
    assert not (tmp_path / "model").exists()


def two_steps(config, workdir):
    """Parameters and losses, as `loop.train` makes them."""
    run, losses = Run.of(config, workdir), []
    placement, train_step = train_step_of(run)
    state, key = run.first_state(placement), jax.random.key(config.seed)
    for _ in range(2):
        batch = steps.place_batch(next(run.batches), run.model.mesh)
        state, metrics = train_step(state, batch, key)
        losses.append(metrics["loss"])
    run.batches.close()
    return jax.device_get((state.trainable, losses))


def records(workdir):
    return [json.loads(line) for line in (workdir / progress.JSONL).read_text().splitlines()]


def test_sigterm_saves_and_the_same_command_continues(tmp_path, monkeypatch, capsys):
    config = config_of(**LENGTH, checkpoint__asynchronous=False)
    place = loop.steps.place_batch

    def place_and_stop(batch, mesh):
        os.kill(os.getpid(), signal.SIGTERM)
        return place(batch, mesh)

    with monkeypatch.context() as patch:
        patch.setattr(loop.steps, "place_batch", place_and_stop)
        loop.train(config, tmp_path)
    assert "Stopped at step 1 of 5; saved." in capsys.readouterr().out
    assert not (tmp_path / "model").exists()
    with Checkpoints(tmp_path, config.checkpoint) as checkpoints:
        assert checkpoints.latest() == 1
    loop.train(config, tmp_path)
    assert "Trained 5 steps." in capsys.readouterr().out
    assert [line["step"] for line in records(tmp_path) if "train/loss" in line] == [1, 2, 3, 4, 5]


def test_a_kill_between_score_and_checkpoint_scores_again(tmp_path, monkeypatch):
    config = config_of(**LENGTH)
    with monkeypatch.context() as patch:
        patch.setattr(loop.Training, "save", raise_interrupted)
        with pytest.raises(InterruptedError):
            loop.train(config, tmp_path)
    assert list(json.loads((tmp_path / "scores.json").read_text())) == ["3"]
    loop.train(config, tmp_path)
    assert [line["step"] for line in records(tmp_path) if "val-dit/oIoU" in line] == [3, 5]


def raise_interrupted(*arguments):
    raise InterruptedError


def test_a_signal_ends_the_last_scores(trained, tmp_path, monkeypatch, capsys):
    config = config_of(**FIVE_STEPS, data__eval_splits=("val", "testA"))
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    with monkeypatch.context() as patch:
        patch.setattr(loop.directory, "save", lambda *_, **__: os.kill(os.getpid(), 15))
        assert not loop.train(config, tmp_path, overwrite=True)
    assert "Stopped before every split was scored." in capsys.readouterr().out
    assert not (tmp_path / "eval" / "shapes-testA-dit.json").exists()
    assert loop.train(config, tmp_path)
    assert (tmp_path / "eval" / "shapes-testA-dit.json").is_file()
    assert "testA" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["{", "[1]", '{"two": 3.0}', '{"2": null}', "\0\xff"])
def test_damaged_scores(tmp_path, content):
    (tmp_path / "scores.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=r"^\S+/scores.json is damaged; .* remove it to go on"):
        Checkpoints(tmp_path, config_of().checkpoint)


@pytest.mark.parametrize("content", ["{", "[1]", "\0\xff"])
def test_damaged_config(tmp_path, content):
    (tmp_path / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=r"^\S+/config.json is damaged: .* remove it to go on"):
        check_same(tmp_path, flatten(config_of()))


def test_latest_and_best_are_kept(tmp_path):
    config = config_of()
    run = Run.of(config, tmp_path)
    abstract = run.abstract_state()
    state = run.first_state(jax.tree.map(lambda leaf: leaf.sharding, abstract))
    with Checkpoints(tmp_path, config.checkpoint) as checkpoints:
        assert checkpoints.best() is None
        for step, score in ((1, None), (2, 50.0), (3, 40.0), (4, None)):
            if score is not None:
                checkpoints.rank(step, score)
            checkpoints.save(state, step=step, data=run.batches.get_state(), meta={"total": 4})
        checkpoints.wait()
        assert (checkpoints.best(), checkpoints.latest()) == (2, 4)
    kept = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert kept == {"2", "4"}
    with Checkpoints(tmp_path, config.checkpoint) as checkpoints:
        assert (checkpoints.best(), checkpoints.latest()) == (2, 4)
        restored, data = checkpoints.restore(4, abstract)
        assert data == run.batches.get_state()
        jax.tree.map(np.testing.assert_array_equal, restored, state)


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        (dict(optim__lr=0.1, model__dropout=True), True),
        (dict(eval__best="dit"), False),
        (dict(model__image_size=128), False),
        (dict(model__text_layer=2), False),
        (dict(model__text_tokens=8), False),
        (dict(model__mask_padding=False), False),
        (dict(model__inject_from=1), False),
        (dict(model__injection="layer_wise"), False),
        (dict(model__vocab="words.txt"), False),
    ],
)
def test_scores_of_another_meaning_choose_no_checkpoint(tmp_path, monkeypatch, before, kept):
    """`--overwrite` with another `eval.best` does not compare its scores with those before."""

    def stop(*about):
        raise KeyboardInterrupt

    config = config_of(eval__best="original")
    write_settings(tmp_path, flatten(config_of(**dict(eval__best="original") | before)))
    (tmp_path / "checkpoints").mkdir()
    with Checkpoints(tmp_path, config.checkpoint) as checkpoints:
        checkpoints.rank(2, 50.0)
    monkeypatch.setattr(loop, "Training", lambda *about: None)
    monkeypatch.setattr(loop, "write_settings", stop)
    with pytest.raises(KeyboardInterrupt):
        loop.train(config, tmp_path, overwrite=True)
    with Checkpoints(tmp_path, config.checkpoint) as checkpoints:
        assert checkpoints.scored(2) == kept


def test_another_config_is_refused(tmp_path):
    check_same(tmp_path, flatten(config_of(optim__lr=0.1)))  # an empty folder is anybody's
    write_settings(tmp_path, flatten(config_of()))
    check_same(tmp_path, flatten(config_of(train__minutes=3.0)))  # changes no step
    with pytest.raises(ValueError, match=r"optim.lr: 0.001 → 0.1; optim.max_steps: 4 → 9"):
        check_same(tmp_path, flatten(config_of(optim__lr=0.1, optim__max_steps=9)))
    check_model(tmp_path, flatten(config_of(optim__lr=0.1, model__remat="full")))
    with pytest.raises(ValueError, match=r"text_layer: 1 → 2\); expected the run's own values, or"):
        check_model(tmp_path, flatten(config_of(model__text_layer=2)))
    write_settings(tmp_path, flatten(config_of(optim__lr=0.1)))
    check_same(tmp_path, flatten(config_of(optim__lr=0.1)))


def test_a_run_of_before_some_keys_continues(tmp_path):
    before = dict(optim__iou_weight=0.0)  # which no run had
    write_settings(tmp_path, flatten(config_of(**before)))
    path = tmp_path / "config.json"
    saved = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in saved.items() if k not in FORMER}))
    check_same(tmp_path, flatten(config_of(**before)))
    with pytest.raises(ValueError, match="model.presence: false → true"):
        check_same(tmp_path, flatten(config_of(**before, model__presence=True)))
    path.write_text(json.dumps(saved | {"eval.presence_threshold": 0.5}))  # now left to the model
    check_same(tmp_path, flatten(config_of(**before)))
    with pytest.raises(ValueError, match=r"eval.presence_threshold: 0.5 → 0.6\)"):
        check_same(tmp_path, flatten(config_of(**before, eval__presence_threshold=0.6)))


def test_minutes(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stop, endless = Stop(0.5), Stop(0.0)
    assert not stop.late
    now[0] += 31
    assert stop.late
    assert not endless.late


def test_lines_of_later_steps_are_dropped(tmp_path):
    path = tmp_path / progress.JSONL
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    progress.forget_after(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'

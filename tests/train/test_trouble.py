"""What goes wrong in the middle of a run: losses that are no numbers, disks, damaged files."""

import json
import os
import re
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiler import COMPILES_FASTER
from quickly import SHALLOW
from runs import compiling_once, config_of, shrink, train_step_of

from benchmarks import kills
from dit_jax.lease import Lease
from dit_jax.train import checksums, loop
from dit_jax.train import step as steps
from dit_jax.train.checkpoint import Checkpoints
from dit_jax.train.logs.nonfinite import NonFinite
from dit_jax.train.run import Run
from dit_jax.weights import directory

LENGTH = dict(optim__max_steps=5, checkpoint__every_steps=2, eval__every_steps=0)
POISON = 77  # a batch whose masks are all this has pictures of no numbers


@pytest.fixture(autouse=True, scope="module")
def small(programs):
    with pytest.MonkeyPatch.context() as patch, compiling_once(programs):
        shrink(patch)
        prepare = steps.prepare

        def poisoned(batch):
            inputs = prepare(batch)
            wrong = jnp.where(jnp.all(batch["mask"] == POISON), jnp.nan, 1.0)
            return inputs | {"images": inputs["images"] * wrong}

        patch.setattr(steps, "prepare", poisoned)
        yield


def poison(monkeypatch, *numbers):
    """Make the batches of these steps (from 1) such ones."""
    left, place = iter(range(1, 1000)), steps.place_batch

    def placed(batch, mesh):
        if next(left) in numbers:
            batch = batch | {"mask": np.full_like(batch["mask"], POISON)}
        return place(batch, mesh)

    monkeypatch.setattr(loop.steps, "place_batch", placed)


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_without_numbers_changes_nothing_but_the_count(tmp_path, accumulate):
    run = Run.of(config_of(optim__accumulate=accumulate), tmp_path)
    placement, train_step = train_step_of(run)
    state = run.first_state(placement)
    batch = next(run.batches)
    run.batches.close()
    before = jax.device_get(state)
    wrong = steps.place_batch(batch | {"mask": np.full_like(batch["mask"], POISON)}, run.model.mesh)
    state, metrics = train_step(state, wrong, jax.random.key(0))
    assert not np.isfinite(metrics["loss"]) and not np.isfinite(metrics["grad_norm"])
    after = jax.device_get(state)
    assert (before.step, after.step) == (0, 1)
    for tree in ("trainable", "opt_state", "ema", "frozen"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, tree), getattr(before, tree))
    state, metrics = train_step(state, steps.place_batch(batch, run.model.mesh), jax.random.key(0))
    assert np.isfinite(metrics["loss"])


def test_such_steps_are_named_counted_and_survived(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        poison(patch, 2, 4)
        loop.train(config_of(**LENGTH, train__max_nonfinite=2), tmp_path)
    said = capsys.readouterr().out
    for step in (2, 4):
        text = f"step {step} changed nothing: loss is nan and grad_norm is nan, expected numbers;"
        assert said.count(f"{text} records shapes train item ") == 1
    rows = [line for line in lines(tmp_path) if "train/lr" in line]
    assert [line.get("train/nonfinite", 0) for line in rows] == [0, 1, 1, 2, 2]
    assert ["train/loss" in line for line in rows] == [True, False, True, False, True]
    config = config_of(**LENGTH, train__max_nonfinite=2)
    with Checkpoints(tmp_path, config.checkpoint) as checkpoints:
        assert checkpoints.meta(5)["nonfinite"] == {"total": 2, "in_a_row": 0}


def test_too_many_in_a_row_end_the_run_and_harm_nothing(tmp_path, monkeypatch):
    config = config_of(**LENGTH, train__max_nonfinite=2)
    with monkeypatch.context() as patch:
        poison(patch, 3, 4)
        with pytest.raises(ValueError, match="step 4 changed nothing: .* number 2 in a row, so tr"):
            loop.train(config, tmp_path / "broken")
    loop.train(config, tmp_path / "broken")  # the data are well again
    loop.train(config, tmp_path / "whole")
    for name in ("model", "model_final"):
        one, other = (tmp_path / run / name / "model.safetensors" for run in ("whole", "broken"))
        assert one.read_bytes() == other.read_bytes()


def test_the_count_in_a_row_outlives_a_restart():
    failures = NonFinite(3)
    failures.add(1, {"loss": float("nan"), "grad_norm": 1.0}, names=["a"])
    again = NonFinite(3)
    again.restore(failures.record())
    text = again.add(2, {"loss": 0.0, "grad_norm": float("inf")}, names=["b", "c"])
    assert text == "step 2 changed nothing: grad_norm is inf, expected numbers; records b, c."
    with pytest.raises(ValueError, match="number 3 in a row"):
        again.add(3, {"loss": float("nan"), "grad_norm": 1.0}, names=["d"])
    again.passed()
    assert again.record() == {"nonfinite": {"total": 3, "in_a_row": 0}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained")
    loop.train(config_of(**LENGTH, checkpoint__keep_latest=2), workdir)
    return workdir


def largest(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def damage_checksums(path):
    files = (parent / checksums.CHECKSUMS for parent in path.parents)
    next(file for file in files if file.is_file()).write_text("[]")


def test_checksums_of_version_0_1_are_compared_too(tmp_path):
    (tmp_path / "params").write_bytes(b"numbers")
    checksums.write(tmp_path)
    (tmp_path / checksums.CHECKSUMS).rename(tmp_path / "seal.json")
    checksums.check(tmp_path)
    flip(tmp_path / "params")
    with pytest.raises(ValueError, match="params has other bytes than were written"):
        checksums.check(tmp_path)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (flip, r"damaged: \S+ has other bytes than were written; remove that folder"),
        (damage_checksums, r"damaged: checksums.json is not what was written; remove that folder"),
    ],
)
def test_a_damaged_checkpoint_is_refused_by_name(trained, tmp_path, harm, says):
    workdir = tmp_path / "copy"
    subprocess.run(["cp", "-r", trained, workdir], check=True)
    config = config_of(**LENGTH, checkpoint__keep_latest=2)
    latest = workdir / "checkpoints" / "5"
    whole = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    harm(largest(latest))
    harmed = {path for path in whole if not path.is_file() or path.read_bytes() != whole[path]}
    assert len(harmed) == 1
    with pytest.raises(ValueError, match=f"the checkpoint {latest} is {says}"):
        loop.train(config, workdir)
    for path in whole.keys() - harmed:
        assert path.read_bytes() == whole[path], f"{path} was overwritten"
    subprocess.run(["rm", "-r", latest], check=True)
    loop.train(config, workdir)  # from step 4
    for name in ("model", "model_final"):
        path = f"{name}/model.safetensors"
        assert (workdir / path).read_bytes() == (trained / path).read_bytes()


def empty(folder):
    for path in folder.iterdir():
        (shutil.rmtree if path.is_dir() else os.remove)(path)


@pytest.mark.parametrize(
    ("harm", "lacking"),
    [
        (empty, "_CHECKPOINT_METADATA"),
        (lambda folder: shutil.rmtree(folder / "opt"), "opt"),
        (lambda folder: os.remove(largest(folder)), r"\S+"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_set_aside(trained, tmp_path, caplog, harm, lacking):
    workdir = tmp_path / "copy"
    subprocess.run(["cp", "-r", trained, workdir], check=True)
    latest = workdir / "checkpoints" / "5"
    harm(latest)
    loop.train(config_of(**LENGTH, checkpoint__keep_latest=2), workdir)  # from step 4
    assert re.search(rf"{latest} is not whole \({lacking} is missing\); it is now \S+", caplog.text)
    assert (workdir / "incomplete_checkpoints" / "5").is_dir()
    for name in ("model", "model_final"):
        path = f"{name}/model.safetensors"
        assert (workdir / path).read_bytes() == (trained / path).read_bytes()


def test_a_checkpoint_without_checksums_is_used_and_said(trained, tmp_path, caplog):
    workdir = tmp_path / "copy"
    subprocess.run(["cp", "-r", trained, workdir], check=True)
    (workdir / "checkpoints" / "5" / checksums.CHECKSUMS).unlink()
    loop.train(config_of(**LENGTH, checkpoint__keep_latest=2), workdir)
    assert "5 has no checksums.json, so its files are not compared" in caplog.text


def test_two_runs_in_one_folder(tmp_path):
    with (
        Lease(tmp_path, purpose="training"),
        pytest.raises(OSError, match=f"another process is training in {tmp_path}: process "),
    ):
        loop.train(config_of(**LENGTH), tmp_path)


def test_what_killed_exports_left_is_tidied_away(trained, tmp_path):
    workdir = tmp_path / "copy"
    subprocess.run(["cp", "-r", trained, workdir], check=True)
    left = workdir / ".model_final-abcd1234"
    left.mkdir()
    (workdir / "model").rename(workdir / ".model.before")  # killed between two renames
    before = (workdir / ".model.before" / "model.safetensors").read_bytes()
    directory.tidy(workdir / "model")
    assert (workdir / "model" / "model.safetensors").read_bytes() == before
    assert loop.train(config_of(**LENGTH, checkpoint__keep_latest=2), workdir)
    assert not left.exists() and not list(workdir.glob(".*"))


@pytest.fixture
def small_disk(tmp_path):
    """A folder that has room for two megabytes; needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_in_a_sentence_and_the_run_continues_when_there_is_room(
    small_disk, programs, monkeypatch
):
    monkeypatch.setenv("XLA_FLAGS", COMPILES_FASTER)
    settings = (*kills.SETTINGS, *SHALLOW, "--config.optim.max_steps=12")  # as test_kills compiles
    settings += ("--config.eval.every_steps=0",)
    command = kills.Command(programs, settings)
    process = command.start(small_disk / "run")
    said = process.communicate()[0].splitlines()
    assert process.returncode == 1
    report = [line for line in said if line and "step/s" not in line and "s/step" not in line]
    assert len(report) == 1, "\n".join(report)
    sentence = f"error: a checkpoint in {small_disk}/run/checkpoints could not be written"
    assert report[0].startswith(sentence)
    assert not any(path.name.isdigit() for path in (small_disk / "run/checkpoints").iterdir())
    subprocess.run(["mount", "-o", "remount,size=256m", str(small_disk)], check=True)
    command.finish(small_disk / "run")
    assert (small_disk / "run/model/model.safetensors").is_file()


def test_a_workdir_that_cannot_be_written(trained, small_disk):
    (small_disk / "run").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OSError, match=f"{small_disk}.*Read-only file system"):
        loop.train(config_of(**LENGTH), small_disk / "run")


def test_a_workdir_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/run.*Not a directory"):
        loop.train(config_of(**LENGTH), tmp_path / "file" / "run")

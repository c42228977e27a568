"""What goes wrong around a run: disks, damaged files, two runs in one folder."""

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import PYTHONPATH, SUPPORT
from runs import FIVE_STEPS, config_of, flags_of

from dit_jax.lease import Lease
from dit_jax.train import checksums, loop, probing, scoring
from dit_jax.train.checkpoint import Checkpoints
from dit_jax.train.run import Run
from dit_jax.weights import directory

pytestmark = pytest.mark.usefixtures("small")

CONFIG = config_of(**FIVE_STEPS)


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


@pytest.fixture
def workdir(trained, tmp_path):
    """A copy of the run; its checkpoints are those of steps 4 and 5."""
    return shutil.copytree(trained, tmp_path / "copy")


def assert_models_are_those_of(trained, workdir):
    for name in ("model", "model_final"):
        path = f"{name}/model.safetensors"
        assert (workdir / path).read_bytes() == (trained / path).read_bytes()


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (flip, r"damaged: \S+ has other bytes than were written; remove that folder"),
        (damage_checksums, r"damaged: checksums.json is not what was written; remove that folder"),
    ],
)
def test_a_damaged_checkpoint_is_refused_by_name(workdir, harm, says):
    latest = workdir / "checkpoints" / "5"
    whole = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    harm(largest(latest))
    harmed = {path for path in whole if not path.is_file() or path.read_bytes() != whole[path]}
    assert len(harmed) == 1
    with pytest.raises(ValueError, match=f"the checkpoint {latest} is {says}"):
        loop.train(CONFIG, workdir)
    for path in whole.keys() - harmed:
        assert path.read_bytes() == whole[path], f"{path} was overwritten"


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ("ema", 'Item "ema" was not found'),
        ("params", "Individual parameter subdirectory not found"),
        ("data", r"data/metadata not found"),
    ],
)
def test_a_checkpoint_without_checksums_that_cannot_be_read(workdir, item, says):
    latest = workdir / "checkpoints" / "5"
    (latest / checksums.CHECKSUMS).unlink()
    empty(latest / item)
    if item == "ema":
        (latest / item).rmdir()
    run = Run.of(CONFIG, workdir)
    with (
        Checkpoints(workdir, CONFIG.checkpoint) as checkpoints,
        pytest.raises(ValueError, match=f"the checkpoint {latest} cannot be read: .*{says}"),
    ):
        checkpoints.restore(5, run.abstract_state())


def test_without_the_damaged_checkpoint_the_run_goes_on_from_the_one_before(trained, workdir):
    shutil.rmtree(workdir / "checkpoints" / "5")
    loop.train(CONFIG, workdir)
    assert_models_are_those_of(trained, workdir)


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
def test_a_checkpoint_that_is_not_whole_is_set_aside(workdir, caplog, harm, lacking):
    latest = workdir / "checkpoints" / "5"
    harm(latest)
    with Checkpoints(workdir, CONFIG.checkpoint) as checkpoints:
        assert checkpoints.latest() == 4
    said = (
        rf"{latest} is not whole \({lacking} is missing\); it is now \S+, and another one is used"
    )
    assert re.search(said, caplog.text)
    assert (workdir / "incomplete_checkpoints" / "5").is_dir()


def test_no_checkpoint_is_whole(workdir, caplog):
    for step in ("4", "5"):
        empty(workdir / "checkpoints" / step)
    with Checkpoints(workdir, CONFIG.checkpoint) as checkpoints:
        assert checkpoints.latest() is None
    assert caplog.text.count("and no other one is there") == 2


def test_a_checkpoint_without_checksums_is_used_and_said(workdir, caplog):
    latest = workdir / "checkpoints" / "5"
    (latest / checksums.CHECKSUMS).unlink()
    checksums.check(latest)
    assert "5 has no checksums.json, so its files are not compared" in caplog.text


def test_two_runs_in_one_folder(tmp_path):
    with (
        Lease(tmp_path, purpose="training"),
        pytest.raises(OSError, match=f"another process is training in {tmp_path}: process "),
    ):
        loop.train(CONFIG, tmp_path)


def test_a_part_of_a_run_is_not_trained_in(workdir):
    for part in ("checkpoints", "checkpoints/5", "model"):
        say = (
            f"{workdir / part} is a part of the run {workdir}; did you mean --workdir={workdir}[?]"
        )
        for call in (loop.train, functools.partial(scoring.score, model_dir=None)):
            with pytest.raises(ValueError, match=say):
                call(CONFIG, workdir / part)
        assert not (workdir / part / ".lease").exists()


def test_what_killed_exports_left_is_tidied_away(workdir, monkeypatch):
    left = workdir / ".model_final-abcd1234"
    left.mkdir()
    (workdir / "model").rename(workdir / ".model.before")  # killed between two renames
    before = (workdir / ".model.before" / "model.safetensors").read_bytes()
    directory.tidy(workdir / "model")
    assert (workdir / "model" / "model.safetensors").read_bytes() == before

    def not_again(*arguments, **settings):
        raise InterruptedError

    monkeypatch.setattr(loop.Run, "of", not_again)  # which comes after the tidying
    with pytest.raises(InterruptedError):
        loop.train(CONFIG, workdir)
    assert not left.exists() and not list(workdir.glob(".*"))


def test_a_model_is_not_written_over_where_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for out in (".", "..", "", tmp_path):
        with pytest.raises(ValueError, match="is where you are; name another folder"):
            directory.atomic_folder(Path(out)).__enter__()


def test_whoever_writes_a_model_is_alone_and_sweeps_first(tmp_path):
    (tmp_path / ".model-abcd1234").mkdir()
    (tmp_path / ".model-original").mkdir()  # somebody else's
    out = tmp_path / "model"
    with directory.atomic_folder(out) as folder:
        (folder / "config.json").touch()
        with pytest.raises(OSError, match="another process is writing model in"):
            directory.atomic_folder(out, overwrite=True).__enter__()
    assert {path.name for path in tmp_path.iterdir()} == {"model", ".model-original"}


def test_a_link_stays_one_and_its_target_is_written(tmp_path):
    """`models/latest` on another disk; what an earlier version left beside it is no obstacle."""
    (tmp_path / "disk").mkdir()
    link, target = tmp_path / "latest", tmp_path / "disk" / "model"
    link.symlink_to("disk/model")  # which is not there yet
    for name in ("first", "second"):
        with directory.atomic_folder(link, overwrite=True) as folder:
            (folder / name).touch()
        assert link.is_symlink() and [path.name for path in target.iterdir()] == [name]
    (tmp_path / "disk" / ".model.before").symlink_to(tmp_path)
    with directory.atomic_folder(link, overwrite=True) as folder:
        (folder / "third").touch()
    assert list((tmp_path / "disk").rglob("*")) == [target, target / "third"]
    assert {*tmp_path.iterdir()} == {tmp_path / "disk", link}


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


@pytest.mark.proof
def test_a_full_disk_ends_in_a_sentence_and_the_run_continues_when_there_is_room(
    trained, small_disk
):
    # Nothing is evaluated, and written, while the first checkpoint is.
    early = dict(eval__every_steps=0, checkpoint__every_steps=2)
    run, changes = small_disk / "run", FIVE_STEPS | early
    command = [sys.executable, "small_launch.py", *flags_of(**changes), f"--workdir={run}"]
    env = os.environ | {"PYTHONPATH": PYTHONPATH}
    how = dict(cwd=SUPPORT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    process = subprocess.run(command, **how)
    assert process.returncode == 1
    said = process.stdout.splitlines()
    report = [line for line in said if line and "step/s" not in line and "s/step" not in line]
    assert len(report) == 1, "\n".join(report)
    sentence = f"error: a checkpoint in {run}/checkpoints could not be written"
    assert report[0].startswith(sentence)
    assert not any(path.name.isdigit() for path in (run / "checkpoints").iterdir())
    subprocess.run(["mount", "-o", "remount,size=256m", str(small_disk)], check=True)
    assert loop.train(config_of(**changes), run)
    whole, again = (path / "model_final" / "model.safetensors" for path in (trained, run))
    assert whole.read_bytes() == again.read_bytes()


def test_a_workdir_that_cannot_be_written(trained, small_disk):
    (small_disk / "run").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OSError, match=f"{small_disk}.*Read-only file system"):
        loop.train(CONFIG, small_disk / "run")


@pytest.mark.parametrize(
    ("folder", "mode"),
    [
        ("pictures", lambda workdir: loop.train(CONFIG, workdir)),
        ("eval", lambda workdir: scoring.score(CONFIG, workdir, model_dir=workdir / "model")),
        ("probe", lambda workdir: probing.probe(CONFIG, workdir, model_dir=workdir / "model")),
    ],
)
def test_a_folder_inside_that_cannot_be_written(tmp_path, folder, mode):
    """Said before anything is read, computed or written."""
    (tmp_path / folder).write_text("")
    with pytest.raises(OSError, match=rf"{tmp_path / folder} cannot be written: Not a directory\."):
        mode(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [folder]


def test_a_workdir_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/run.*Not a directory"):
        loop.train(CONFIG, tmp_path / "file" / "run")

"""Everything from a bucket: train, `kill -9`, resume, evaluate, export, predict; and bad days."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import threading
import time

import cv2
import numpy as np
import pytest
from bucket import bucket, dropped, unavailable
from command_line import launched
from places import PYTHONPATH, SUPPORT
from runs import FIVE_STEPS, flags_of

from benchmarks import kills
from dit_jax import storage

pytestmark = pytest.mark.usefixtures("small")

RUN = "gs://bucket/run"
FLAGS = flags_of(**FIVE_STEPS | dict(checkpoint__every_steps=2))


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with bucket() as one:
        yield one


@contextlib.contextmanager
def trouble_from(server, start, trouble, *, seconds):
    """Every request meets trouble from the one on that `start` is true of."""
    began = []

    def meets(handler) -> bool:
        if not began and start(handler):
            began.append(time.monotonic())
        return bool(began) and time.monotonic() < began[0] + seconds and trouble(handler)

    server.trouble = meets
    yield
    server.trouble = None
    assert began


def saves(handler) -> bool:
    return handler.command == "POST" and "run%2Fcheckpoints" in handler.path


def succeeds(*arguments) -> str:
    done = launched(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def committed(server) -> set[int]:
    """Steps whose checkpoints count."""
    names = server.names("run/checkpoints/")
    return {int(name.split("/")[2]) for name in names if name.count("/") == 3 and is_last(name)}


def is_last(name) -> bool:
    return name.endswith("/commit_success.txt")


@pytest.mark.proof
def test_a_run_in_a_bucket(server, trained, programs, tmp_path, monkeypatch):
    """Killed while its second checkpoint is written; then as if nothing had happened."""
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    command = kills.Command(programs, tuple(FLAGS), SUPPORT / "small_launch.py")

    saving = threading.Event()

    def watch(handler) -> bool:
        if (
            saves(handler)
            and (steps := committed(server))
            and f"%2F{max(steps)}%2F" not in handler.path
        ):
            saving.set()
        return saving.is_set()  # which is never answered

    server.trouble = watch
    assert command.kill_when(RUN, saving.is_set)
    server.trouble = None
    # What belongs to a checkpoint is in the bucket before it.
    lines = [json.loads(line) for line in server.read("run/metrics.jsonl").splitlines()]
    assert {line["step"] for line in lines} >= set(range(1, max(committed(server)) + 1))
    with trouble_from(server, saves, unavailable, seconds=0.5):  # the run goes on
        said = succeeds(*FLAGS, f"--workdir={RUN}")
    assert f"exported to {RUN}/model." in said
    kills.compare(kills.outcome(trained), kills.outcome(storage.local(RUN)))
    assert not [name for name in server.names() if ".lease" in name or name.endswith(".tmp")]
    assert committed(server) == {4, 5}
    assert {f"run/checkpoints/{step}/checksums.json" for step in (4, 5)} <= server.names()
    assert len(server.names("run/tensorboard/")) == 1

    scores = {name: server.read(name) for name in server.names("run/eval/")}
    succeeds(*FLAGS, f"--workdir={RUN}", "--mode=eval")
    assert scores == {name: server.read(name) for name in server.names("run/eval/")}

    succeeds(
        *("--mode=export", f"--model={RUN}/model", "--format=safetensors", f"--scores={RUN}"),
        "--out=gs://bucket/handed/on",
    )
    assert server.read("handed/on/model.safetensors") == server.read("run/model/model.safetensors")
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    storage.write(
        storage.parse("gs://bucket/photos/a.png"), cv2.imencode(".png", picture)[1].tobytes()
    )
    asked = ("--images=gs://bucket/photos/*.png", "--text=star")
    out = "--out=gs://bucket/masks"
    said = succeeds("--mode=predict", "--model=gs://bucket/handed/on", *asked, out)
    assert said.startswith("1 mask of 1 picture is in gs://bucket/masks.")
    (line,) = map(json.loads, server.read("masks/predictions.jsonl").splitlines())
    assert line["image"] == "gs://bucket/photos/a.png"
    assert f"masks/{line['mask_file']}" in server.names()
    assert not [name for name in os.listdir() if name.startswith("gs:")]


@pytest.mark.proof
@pytest.mark.parametrize("trouble", [unavailable, dropped])
def test_trouble_that_stays_stops_a_run_which_goes_on(server, trained, trouble, monkeypatch):
    sleep = asyncio.sleep
    monkeypatch.setattr("gcsfs.retry.asyncio.sleep", lambda seconds: sleep(0))

    def pushes(handler) -> bool:
        return handler.command == "POST" and b"run/metrics.jsonl" in handler.rfile.peek(500)

    with trouble_from(server, pushes, trouble, seconds=3600):
        done = launched(*FLAGS, f"--workdir={RUN}")
    assert done.returncode == 1
    (said,) = [line for line in done.stderr.splitlines() if "error: " in line]
    assert re.search(r"error: gs://bucket/run(/\S+)? could not be (written|read|listed): ", said)
    assert not committed(server)
    storage.remove([storage.Name("gs", "bucket/run/.lease")])  # of a process that is gone
    succeeds(*FLAGS, f"--workdir={RUN}")
    kills.compare(kills.outcome(trained), kills.outcome(storage.local(RUN)))


@pytest.mark.proof
def test_a_run_that_was_copied_into_a_bucket_goes_on(server, trained, tmp_path):
    """Its checkpoints lack the last object; one of them lacks another file, too."""
    copy = shutil.copytree(trained, tmp_path / "copy")
    shutil.rmtree(copy / "model")
    next((copy / "checkpoints" / "4" / "opt").rglob("d/*")).unlink()
    for path in copy.rglob("*"):
        if path.is_file():
            name = f"bucket/run/{path.relative_to(copy)}"
            storage.write(storage.Name("gs", name), path.read_bytes())
    succeeds(*FLAGS, f"--workdir={RUN}")
    assert committed(server) == {5}
    assert (
        server.read("run/model/model.safetensors")
        == (trained / "model/model.safetensors").read_bytes()
    )

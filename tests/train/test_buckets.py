"""Everything from a bucket: train, `kill -9`, resume, evaluate, export, predict; and bad days."""

import json
import os
import threading

import cv2
import numpy as np
import pytest
from bucket import bucket
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


def test_a_run_in_a_bucket(server, trained, programs, tmp_path, monkeypatch):
    """Killed while its second checkpoint is written; then as if nothing had happened."""
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    command = kills.Command(programs, tuple(FLAGS), SUPPORT / "small_launch.py")

    saving = threading.Event()

    def watch(handler) -> bool:
        uploads = handler.command == "POST" and "run%2Fcheckpoints" in handler.path
        if uploads and (steps := committed(server)) and f"%2F{max(steps)}%2F" not in handler.path:
            saving.set()
        return saving.is_set()  # which is never answered

    server.trouble = watch
    assert command.kill_when(RUN, saving.is_set)
    server.trouble = None
    # What belongs to a checkpoint is in the bucket before it.
    lines = [json.loads(line) for line in server.read("run/metrics.jsonl").splitlines()]
    assert {line["step"] for line in lines} >= set(range(1, max(committed(server)) + 1))
    said = succeeds(*FLAGS, f"--workdir={RUN}")
    assert f"exported to {RUN}/model." in said
    kills.compare(kills.outcome(trained), kills.outcome(storage.local(RUN)))
    assert not [name for name in server.names() if ".lease" in name or name.endswith(".tmp")]
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

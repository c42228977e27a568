"""Curves are continued without gaps or doubles, whatever a kill left of them."""

import importlib.util
import json
import struct
import types

import jax.numpy as jnp
import numpy as np
import pytest
from runs import config_of
from tensorboardX.proto import event_pb2

from dit_jax.config import WRITERS
from dit_jax.train.logs import boards
from dit_jax.train.logs.nonfinite import NonFinite
from dit_jax.train.logs.progress import MetricWriter
from dit_jax.train.loop import train

TAG = "train/loss"


def writer(workdir, *, start, writers=("tensorboard",)):
    about = dict(every=1, batch_size=4, failures=NonFinite(3), names=lambda index: [])
    about |= dict(writers=writers)
    return MetricWriter(workdir, start=start, total=9, **about)


def log(report, steps):
    for step in steps:
        metrics = {key: jnp.float32(step) for key in ("loss", "lr", "grad_norm")}
        report.step(step, metrics, index=np.arange(4))


def test_what_clicks_cost_is_a_mean_over_the_steps_with_some(tmp_path):
    """In the other steps it is 0; a line without any says nothing of it."""
    about = dict(every=4, batch_size=4, failures=NonFinite(3), names=lambda index: [], writers=())
    with MetricWriter(tmp_path, start=0, total=8, **about) as report:
        for step in range(1, 9):
            metrics = dict.fromkeys(("loss", "lr", "grad_norm"), jnp.float32(1))
            clicked = float(step in (2, 3))
            metrics |= {"clicked": clicked, "click_loss": 0.5 * clicked, "last_iou": 0.8 * clicked}
            report.step(step, metrics, index=np.arange(4))
        report.flush()
    first, second = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert first["train/click_loss"] == 0.5 and first["train/last_iou"] == 0.8
    assert first["train/loss"] == 1 and "train/clicked" not in first
    assert not {"train/click_loss", "train/last_iou"} & second.keys()


def events(workdir):
    """All events of a folder's files, in the order in which they were written."""
    for path in sorted((workdir / "tensorboard").glob("events.*")):  # named by the second
        data = path.read_bytes()
        while len(data) >= 12:
            (length,) = struct.unpack("<Q", data[:8])
            yield event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def curve(workdir):
    """Step → value of every point, in the order in which they were written."""
    values = ((event.step, v) for event in events(workdir) for v in event.summary.value)
    return [(step, value.simple_value) for step, value in values if value.tag == TAG]


def test_a_kill_loses_no_point_and_doubles_none(tmp_path):
    """Killed after step 5, whose last checkpoint is that of step 3; continued from there."""
    killed = writer(tmp_path, start=0)
    log(killed, range(1, 6))
    killed.to_disk()
    with writer(tmp_path, start=3) as again:
        log(again, range(4, 10))
        again.to_disk()
    assert curve(tmp_path) == [(step, float(step)) for step in range(1, 10)]
    killed.__exit__(None, None, None)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """W&B without a network, and without what this machine knows of an account."""
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb = pytest.importorskip("wandb")
    yield wandb
    wandb.teardown()  # what it read of the environment


def kept(path):
    """The records of one start's file: LevelDB's log format in blocks of 32 KiB behind 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, record = path.read_bytes(), 7, b""
    while at < len(data):
        if 2**15 - at % 2**15 < 7:
            at += 2**15 - at % 2**15
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(record)
            record = b""


def logged(path):
    """The run's id, and step → value of every point."""
    records = list(kept(path))
    (name,) = {record.run.run_id for record in records if record.HasField("run")}
    rows = (record.history for record in records if record.HasField("history"))
    lines = [{(i.key or i.nested_key[0]): json.loads(i.value_json) for i in r.item} for r in rows]
    return name, [(line["_step"], line[TAG]) for line in lines]


def test_a_run_continues_as_the_same_run_of_wandb(offline, tmp_path):
    """Every start's file is whole, so that the latest is enough for `wandb sync`."""
    (tmp_path / "config.json").write_text('{"optim.lr": 0.5}')
    for start, end in ((0, 5), (3, 9)):
        with writer(tmp_path, start=start, writers=("wandb", "tensorboard")) as report:
            log(report, range(start + 1, end + 1))
            report.to_disk()
    first, second = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert logged(first)[0] == logged(second)[0]
    assert logged(first)[1] == [(step, float(step)) for step in range(1, 6)]
    assert logged(second)[1] == curve(tmp_path) == [(step, float(step)) for step in range(1, 10)]
    (about, *_) = [record.run for record in kept(second) if record.HasField("run")]
    assert (about.project, about.display_name) == ("dit_jax", tmp_path.name)
    settings = {item.key: json.loads(item.value_json) for item in about.config.update}
    assert settings["optim.lr"] == 0.5


def test_what_wandb_has_is_not_sent_again(offline, tmp_path, monkeypatch):
    """Online, a resumed run begins behind the last step that W&B received."""
    sent = []
    run = types.SimpleNamespace(step=6, log=lambda values, step: sent.append((step, values[TAG])))
    monkeypatch.setattr(offline, "init", lambda **about: run)
    board = boards.WeightsAndBiases(tmp_path)
    for step in range(1, 9):
        board.add(step, {TAG: step / 2})
    assert sent == [(6, 3.0), (7, 3.5), (8, 4.0)]


def test_a_writer_that_cannot_write_is_told_before_anything_starts(tmp_path, monkeypatch):
    config, find = config_of(train__writers=("wandb",)), importlib.util.find_spec
    missing = lambda name, *more: None if name == "wandb" else find(name, *more)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", missing)
    with pytest.raises(ValueError, match=r"names wandb, .* pip install 'dit_jax\[wandb\]'\.$"):
        train(config, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_without_an_account_nothing_starts(offline, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    with pytest.raises(ValueError, match=r"W&B says: No API key .* WANDB_MODE=offline"):
        boards.check(("wandb",))


def test_the_writers_are_those_that_a_config_may_name():
    assert boards.BOARDS.keys() == set(WRITERS)
    with pytest.raises(ValueError, match=r"train\.writers is 'clearml'; expected .*wandb"):
        config_of(train__writers=("clearml",))

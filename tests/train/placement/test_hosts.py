"""Two processes share a run: scores, training, stopping, and going on elsewhere."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import types

import host_worker
import jax
import numpy as np
import pytest
from compiler import COMPILES_FASTER
from jax.sharding import AbstractMesh
from places import PYTHONPATH, ROOT, SUPPORT

from dit_jax import storage
from dit_jax.train.placement import hosts, watch
from dit_jax.weights import directory

WORKER = SUPPORT / "host_worker.py"


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def score(workdir, *, processes):
    """Run the workers; returns what each printed."""
    port = free_port()
    env = os.environ | {"PYTHONPATH": PYTHONPATH}
    flags = f"{COMPILES_FASTER} --xla_force_host_platform_device_count=1"
    env |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    started = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(port), str(processes), str(rank), str(workdir)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    said = [worker.communicate(timeout=240) for worker in started]
    assert [worker.returncode for worker in started] == [0] * processes, said
    return [out for out, _ in said]


def written(workdir):
    return {path.name: path.read_bytes() for path in (workdir / "eval").iterdir()}


def test_two_processes_score_as_one(tmp_path, capsys):
    host_worker.main("", "1", "0", str(tmp_path / "one"))
    alone = capsys.readouterr().out
    expected = written(tmp_path / "one")
    together = score(tmp_path / "two", processes=2)
    found = written(tmp_path / "two")
    assert {"shapes-val-dit.json", "shapes-val-gres.json", "shapes-val-lavt.json"} < set(expected)
    assert found == expected
    tables = ["".join(re.findall(r"^(?:split|val) .*\n", said, re.M)) for said in together]
    assert tables == [alone, ""]  # the first process speaks for both


def test_numbers_above_32_bits_survive():
    table = np.array([[1, 2**40 + 1], [-1, -(2**62)], [2**63 - 1, 0]], np.int64)
    np.testing.assert_array_equal(hosts.gather(table, readers=(0,)), table)


class Pretended:
    """A mesh's devices, of which each belongs to a process."""

    def __init__(self, number, process):
        self.id, self.process_index = number, process


@pytest.mark.parametrize(
    ("shape", "processes", "rows", "readers"),
    [
        ((8, 1, 1), 2, [[0, 1, 2, 3], [4, 5, 6, 7]], (0, 1)),
        ((2, 2, 2), 2, [[0, 1, 2, 3], [4, 5, 6, 7]], (0, 1)),
        ((1, 1, 8), 2, [list(range(8))] * 2, (0,)),  # every process holds every row
        ((2, 1, 4), 4, [[0, 1, 2, 3]] * 2 + [[4, 5, 6, 7]] * 2, (0, 2)),
    ],
)
def test_shares(monkeypatch, shape, processes, rows, readers):
    devices = [Pretended(i, i * processes // 8) for i in range(8)]
    for process in range(processes):
        found = share_of(monkeypatch, shape, devices, process)
        assert found.rows(8).tolist() == rows[process]
        assert found.readers == readers
        assert found.reads == (process in readers)


def test_unequal_shares_are_refused(monkeypatch):
    devices = [Pretended(i, int(i > 5)) for i in range(8)]
    with pytest.raises(
        ValueError, match=r"so that processes hold \[\(0, 1, 2, 3, 4, 5\), \(6, 7\)\]"
    ):
        share_of(monkeypatch, (8, 1, 1), devices, 0)


def share_of(monkeypatch, shape, devices, process):
    """`hosts.share` with the rows as `NamedSharding` would lay them on such devices."""
    pieces = shape[0] * shape[1]
    placed = {d: (slice(d.id // shape[2], d.id // shape[2] + 1),) for d in devices}
    mesh = AbstractMesh(shape, hosts.sharding.AXES)
    layout = types.SimpleNamespace(devices_indices_map=lambda rows: placed)
    monkeypatch.setattr(hosts.sharding, "batch_sharding", lambda mesh: layout)
    monkeypatch.setattr(jax, "process_index", lambda: process)
    assert pieces == len({rows.start for (rows,) in placed.values()})
    return hosts.share.__wrapped__(mesh)


SMALL = (
    "--config=configs/quickstart.py",
    "--config.model.image_size=64",
    "--config.model.dropout=true",
    "--config.optim.batch_size=8",
    "--config.optim.name=adam",  # and its eps: see mesh_worker.py
    "--config.optim.eps=1e-4",
    "--config.optim.max_steps=12",
    "--config.data.shapes.length=64",
    "--config.data.shapes.eval_length=6",
    "--config.data.eval_splits=val",
    "--config.eval.batch_size=8",
    "--config.eval.every_steps=10",
    "--config.train.log_every=1",
)


@pytest.fixture(scope="module")
def launch(programs):
    """Start launch.py, in one process or as several that share a run."""

    def start(workdir, *arguments, processes=1, devices=1):
        env = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(programs),
            "XLA_FLAGS": f"{COMPILES_FASTER} --xla_force_host_platform_device_count={devices}",
        }
        command = [sys.executable, "launch.py", *SMALL, f"--workdir={workdir}", *arguments]
        port = free_port()
        share = [f"--coordinator=localhost:{port}", f"--num-processes={processes}"]
        several = [[*share, f"--process-id={rank}"] for rank in range(processes)]
        pipes = dict(cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        extra = several if processes > 1 else [[]]
        return [subprocess.Popen(command + more, **pipes) for more in extra]

    return start


def finish(started, *, status=0):
    said = [process.communicate(timeout=600) for process in started]
    assert [process.returncode for process in started] == [status] * len(started), said
    return [out for out, _ in said]


@pytest.mark.proof
def test_a_run_of_two_processes_stops_and_goes_on_elsewhere(launch, tmp_path):
    """SIGTERM reaches one process only; both save and end, and one process on two devices ends
    the run as a process that was alone all the time."""
    finish(launch(tmp_path / "alone"))
    together = tmp_path / "together"
    started = launch(together, "--config.mesh.fsdp=2", processes=2)
    wait_for(together / "metrics.jsonl", lines=3, processes=started)
    started[1].send_signal(signal.SIGTERM)
    first, second = finish(started, status=75)
    stopped = re.search(r"Stopped at step (\d+) of 12; saved", first)
    assert stopped and 3 <= int(stopped[1]) < 12
    said = [line for line in second.splitlines() if not line.startswith("[Gloo]")]
    assert not said  # the first process speaks for both
    finish(launch(together, "--config.mesh.fsdp=2", devices=2))
    for name in ("model", "model_final"):
        alone, found = (directory.read(run / name)[1] for run in (tmp_path / "alone", together))
        largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(alone))
        for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(found), strict=True):
            np.testing.assert_allclose(other, one, rtol=0, atol=1e-6 * largest)
    steps = [json.loads(line) for line in (together / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if "train/loss" in line] == list(range(1, 13))


@pytest.mark.proof
@pytest.mark.parametrize("rank", [0, 1])
def test_one_of_two_is_killed_and_the_same_command_goes_on(launch, tmp_path, monkeypatch, rank):
    """Mid-step, by kill -9: the other ends soon, in a sentence that names it."""
    monkeypatch.setenv(watch.LOST, "5")
    steps = ("--config.checkpoint.every_steps=2", "--config.eval.every_steps=0")
    finish(launch(tmp_path / "whole", *steps, processes=2))
    run = tmp_path / "run"
    started = launch(run, *steps, processes=2)
    wait_for(run / "metrics.jsonl", lines=5, processes=started)
    started[rank].kill()
    since = time.monotonic()
    (_, said), (_, own) = [started[i].communicate(timeout=60) for i in (1 - rank, rank)]
    assert time.monotonic() - since < 30
    assert started[1 - rank].returncode not in (0, 75)
    named = rf"\(process {rank} of 2\)"
    assert re.search(
        rf"^error: .*{named}( has not answered for 5 s;|, where all meet, is)", said, re.M
    )
    assert re.search(rf"^error: .*{named} was killed", own, re.M)
    finish(launch(run, *steps, processes=2))
    whole, again = (
        path / "model_final" / "model.safetensors" for path in (tmp_path / "whole", run)
    )
    assert whole.read_bytes() == again.read_bytes()


@pytest.mark.proof
def test_two_processes_share_a_run_in_a_bucket(launch, tmp_path):
    from bucket import bucket

    steps = "--config.optim.max_steps=3"
    finish(launch(tmp_path / "alone", steps))
    with bucket() as server:
        finish(launch("gs://bucket/run", steps, "--config.mesh.fsdp=2", processes=2))
        with storage.written("gs://bucket/run") as copy:
            assert (copy / "metrics.jsonl").read_text().count("train/loss") == 3
        found = directory.read(storage.local("gs://bucket/run/model"))[1]
        parts = {name.split("/")[4] for name in server.names("run/checkpoints/3/params/ocdbt")}
    assert {"ocdbt.process_0", "ocdbt.process_1"} <= parts  # each wrote its own
    alone = directory.read(tmp_path / "alone" / "model")[1]
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(alone))
    for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-6 * largest)


def wait_for(path, *, lines, processes):
    while not path.is_file() or len(path.read_text().splitlines()) < lines:
        assert all(process.poll() is None for process in processes), finish(processes)
        time.sleep(0.01)

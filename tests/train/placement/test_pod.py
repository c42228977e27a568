"""What goes wrong with one of several hosts: all end, soon, with a sentence that names it."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import types

import pytest
from places import PYTHONPATH, SUPPORT

from dit_jax.train.logs import provenance
from dit_jax.train.placement import cluster, last_words, watch

WORKER = SUPPORT / "pod_worker.py"
HERE = socket.gethostname()
START, LOST = 8, 4  # seconds
AGAIN = "the same command on all hosts continues from the last checkpoint"


class Service:
    """JAX's coordination service, as far as it is asked."""

    def __init__(self):
        self.values = {}

    def key_value_set(self, key, value, allow_overwrite):
        self.values[key] = value

    def key_value_dir_get(self, folder):
        return [(key, value) for key, value in list(self.values.items()) if key.startswith(folder)]

    def blocking_key_value_get(self, key, milliseconds):
        return self.values[key]

    def wait_at_barrier(self, name, milliseconds):
        """One thread plays both processes, the first one first."""


@pytest.fixture
def two(monkeypatch):
    """Two watched processes, and what each said when it ended."""
    monkeypatch.setattr(watch, "BEAT", 0.01)
    monkeypatch.setattr(watch, "seconds", lambda name: 0.2 if name == watch.LOST else 5)
    ended = []
    monkeypatch.setattr(watch.os, "_exit", lambda status: None)
    monkeypatch.setattr(watch.os, "write", lambda file, text: ended.append(text.decode()))
    service = Service()

    def state(rank):
        about = dict(process_id=rank, num_processes=2, coordinator_address="localhost:1")
        return types.SimpleNamespace(client=service, **about)

    def start(rank):
        monkeypatch.setattr(watch.distributed, "global_state", state(rank))
        return watch.Watch(lambda **known: None)

    watches = [start(0), start(1)]
    for one in watches:
        one.hosts = {0: "first", 1: "second"}
    yield watches, ended
    for one in watches:
        one.leave()
    for thread in threading.enumerate():
        if thread.name == "watch":
            thread.join()


def until(condition):
    limit = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


def test_others_say_what_ended_one(two):
    (_, second), ended = two
    second.leave()
    second.tell("/disk: No space left on device.")
    until(lambda: ended)
    assert ended == ["\nerror: second (process 1 of 2) ended: /disk: No space left on device.\n"]


@pytest.mark.parametrize(
    ("text", "waits"),
    [
        ("UNKNOWN: Gloo AllGather failed: Connection reset by peer", True),
        ("the step failed: [external/gloo/x.cc] Gloo all-reduce failed: closed", True),
        ("INTERNAL: NCCL operation failed", True),
        ("optim.lr is 0; expected a number above 0.", False),
    ],
)
def test_what_another_process_end_looks_like(text, waits):
    assert bool(watch.OF_THE_NETWORK.search(text)) == waits


def test_who_is_done_is_not_missed(two):
    (_, second), ended = two
    second.leave()
    second.tell(watch.LEFT)
    time.sleep(0.3)
    assert not ended


def test_who_is_silent_is_gone(two):
    (_, second), ended = two
    second.leave()
    until(lambda: ended)
    assert ended == [f"\nerror: second (process 1 of 2) has not answered for 0.2 s; {AGAIN}.\n"]


def test_what_differs_is_named(two):
    (first, second), _ = two
    first.same({"--config.optim.lr": "1", "jax": "0.10.2"})
    expected = (
        r"second \(process 1 of 2\) differs from first \(process 0 of 2\) in --config.optim.lr: 2,"
        " not 1; expected the same command, code and data on every host."
    )
    with pytest.raises(ValueError, match=expected):
        second.same({"--config.optim.lr": "2", "jax": "0.10.2"})
    first.same({"records": "a"})
    second.same({"records": "a"})


def test_code_is_known_by_its_files(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    (tmp_path / "a.py").write_text("1")
    before = provenance.code()
    assert before == provenance.code()
    (tmp_path / "a.py").write_text("2")
    after = provenance.code()
    assert {key for key in before if before[key] != after[key]} == {"dit_jax"}


def test_limits_are_seconds(monkeypatch):
    assert (watch.seconds(watch.START), watch.seconds(watch.LOST)) == (300, 120)
    monkeypatch.setenv("DIT_JAX_LOST_SECONDS", "5")
    assert watch.seconds(watch.LOST) == 5
    monkeypatch.setenv("DIT_JAX_LOST_SECONDS", "1m")
    with pytest.raises(ValueError, match="DIT_JAX_LOST_SECONDS is '1m'; expected whole seconds"):
        watch.seconds(watch.LOST)


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ({}, "TPU"),
        ({"TPU_SKIP_MDS_QUERY": "1"}, None),
        ({"TPU_SKIP_MDS_QUERY": "true", "TPU_WORKER_HOSTNAMES": "a,b"}, "TPU"),  # as GKE says it
        ({"JAX_PLATFORMS": "cpu"}, None),
    ],
)
def test_hosts_of_tpus_find_each_other(monkeypatch, env, name):
    monkeypatch.setattr(cluster.glob, "glob", lambda pattern: ["/dev/vfio/0"])
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: name)
    assert cluster.detected(env) == name


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConnectionError, match=rf"{HERE} cannot listen on port {port}, which"):
            cluster.join(coordinator=f"localhost:{port}", num_processes=2, process_id=0)


def test_last_words():
    """Said by where things stood when the process went."""
    with socket.create_server(("localhost", 0)) as coordinator:
        port = coordinator.getsockname()[1]
        assert last_words.answers(f"localhost:{port}")
        assert spoken(f"localhost:{port}") == "\nkilled\n"
    assert not last_words.answers(f"localhost:{port}")
    assert last_words.answers("")
    assert spoken(f"localhost:{port}") == "\ngone\n"
    assert not spoken(f"localhost:{port}", "\n")


def spoken(coordinator, *more):
    known = json.dumps(dict(coordinator=coordinator, there="killed", gone="gone"))
    program = [sys.executable, "-S", last_words.__file__, str(os.getpid())]
    how = dict(input="".join([f"{known}\n", *more]), capture_output=True, text=True, timeout=60)
    return subprocess.run(program, check=True, **how).stderr


# ------------------------------------------------------------------------- real processes


def ran(*troubles, late=0):
    """What each process said last, its status, and the seconds between the first and last end."""
    with socket.create_server(("localhost", 0)) as free:
        port = str(free.getsockname()[1])
    env = os.environ | {"PYTHONPATH": PYTHONPATH, "LATE": str(late)}
    env |= {watch.START: str(START), watch.LOST: str(LOST), "JAX_PLATFORMS": "cpu"}
    command, pipes = [sys.executable, str(WORKER), port, str(len(troubles))], dict(text=True)
    pipes |= dict(env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    started = [
        subprocess.Popen([*command, str(rank), trouble], **pipes)
        for rank, trouble in enumerate(troubles)
    ]
    ends: dict[int, float] = {}
    stuck = {rank for rank, trouble in enumerate(troubles) if trouble == "stuck"}
    limit = time.monotonic() + 120
    while len(ends) < len(started):
        if stuck | ends.keys() == set(range(len(started))):
            for rank in stuck:
                started[rank].kill()
        assert time.monotonic() < limit
        time.sleep(0.05)
        running = [rank for rank, process in enumerate(started) if process.poll() is None]
        ends |= {rank: time.monotonic() for rank in {*range(len(started))} - {*ends, *running}}
    said = [re.findall(r"^error: (.*)", p.communicate()[0], re.M) for p in started]
    lasted = max(ends.values()) - min(ends.values())
    return said, [process.returncode for process in started], lasted


@pytest.mark.proof
@pytest.mark.parametrize("trouble", ["late", "clock"])
def test_what_does_no_harm(trouble):
    """A host that comes later than the others, within the limit; one whose clock is behind."""
    assert ran("", trouble, late=3)[:2] == ([[], []], [0, 0])


@pytest.mark.proof
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("trouble", "named", "others"),
    [
        ("full", "/disk: No space left on device.", "ended: /disk: No space left on device."),
        ("killed", "{} was killed; {}", "has not answered for 4 s; {}"),
        ("stuck", None, "has not answered for 4 s; {}"),
    ],
)
def test_one_ends_and_so_do_all(rank, trouble, named, others):
    troubles = ["", "", ""]
    troubles[rank] = trouble
    said, _, lasted = ran(*troubles)
    if trouble == "full":
        assert lasted < 5
    name = f"{HERE} (process {rank} of 3)"
    if trouble == "killed" and rank == 0:
        others = "where all meet, is gone; {}"
    for other in {0, 1, 2} - {rank}:
        (one,) = said[other]
        assert one.startswith(name) and others.format(AGAIN) in one
    if named is not None:
        (one,) = said[rank]
        assert one.startswith(named.format(name, AGAIN))


@pytest.mark.proof
def test_a_host_with_another_config():
    said, statuses, lasted = ran("", "other")
    sentence = f"{HERE} (process 1 of 2) differs from {HERE} (process 0 of 2) in --config.optim.lr"
    assert statuses == [1, 1] and lasted < 5
    assert all(one.startswith(sentence) for (one,) in said)


@pytest.mark.proof
def test_a_host_that_comes_too_late():
    said, *_ = ran("", "late", late=30)
    assert said[0] == [f"{HERE} (process 0 of 2) was not joined by all other processes within 8 s."]
    (one,) = said[1]
    assert re.match(rf"{HERE} \(process 1 of 2\) found no process 0 at localhost:\d+ within", one)

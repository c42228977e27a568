"""One writer a place in a bucket."""

import json
import os
import time

import pytest
from bucket import bucket

from dit_jax import lease, storage
from dit_jax.lease import Lease

NAME = storage.Name("gs", "bucket/run/.lease")


@pytest.fixture(scope="module")
def server():
    with bucket() as one:
        yield one


@pytest.fixture
def folder(server, tmp_path):
    server.storage.wipe(keep_buckets=True)
    with storage.written("gs://bucket/run") as path:
        yield path


def elsewhere(**changes):
    """Writes a lease that a process of another host holds."""
    record = {"purpose": "training", "host": "elsewhere", "pid": 1, "token": "theirs"} | changes
    storage.write(NAME, json.dumps(record).encode())


def wait_until(holds, seconds=10):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_second_is_told_who_holds_it_and_the_third_gets_it(folder, server):
    with Lease(folder, purpose="training"), storage.written("gs://bucket/run") as other:
        assert server.names() == {"run/.lease"}
        with pytest.raises(OSError) as told, Lease(other, purpose="scoring"):
            pass
    said = f"another process is training in gs://bucket/run: process {os.getpid()} on "
    assert storage.shown(str(told.value)).startswith(said)
    assert not server.names()
    with Lease(folder, purpose="scoring"):
        pass


def test_it_is_taken_from_a_process_of_this_host_that_is_gone(folder):
    elsewhere(host=os.uname().nodename, pid=2**22 + 1, numbered_in=lease._numbered_in())
    with Lease(folder, purpose="training") as held:
        held.check()
        assert json.loads(storage.read(NAME))["pid"] == os.getpid()


def test_it_is_taken_when_it_was_not_renewed_for_long(folder, monkeypatch):
    elsewhere()
    with pytest.raises(OSError, match="process 1 on elsewhere"), Lease(folder, purpose="x"):
        pass
    monkeypatch.setattr(lease, "STALE", 0.05)
    time.sleep(0.1)
    with Lease(folder, purpose="training"):
        pass


def test_of_two_that_take_over_one_keeps_it(folder, monkeypatch):
    elsewhere(host=os.uname().nodename, pid=2**22 + 1, numbered_in=lease._numbered_in())
    monkeypatch.setattr(lease.time, "sleep", lambda seconds: elsewhere(pid=7))
    with pytest.raises(OSError, match="process 7 on elsewhere"), Lease(folder, purpose="x"):
        pass


def test_it_is_renewed_and_its_loss_is_noticed(folder, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.02)
    with Lease(folder, purpose="training") as held:
        first = storage.modified(NAME)
        wait_until(lambda: storage.modified(NAME) > first)
        held.check()
        # A beat that is on its way may write over what another process wrote: it then keeps the
        # lease, and the other one is told so.
        wait_until(lambda: elsewhere() or held._lost is not None)
        with pytest.raises(OSError, match="process 1 on elsewhere"):
            held.check()
    assert json.loads(storage.read(NAME))["token"] == "theirs"  # it is not ours to remove

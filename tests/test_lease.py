"""One writer a folder: who holds it, who is told so, and when it is taken over."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from places import PYTHONPATH

from dit_jax import cli, lease
from dit_jax.lease import Lease

HOLDER = """
import sys, time
from dit_jax.lease import Lease
with Lease(sys.argv[1], purpose="training"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    env = os.environ | {"PYTHONPATH": PYTHONPATH}
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_second_process_is_told_who_holds_it(holder, tmp_path):
    began = time.monotonic()
    with pytest.raises(OSError) as told, Lease(tmp_path, purpose="exporting"):
        pass
    assert time.monotonic() - began < 2
    said = str(told.value)
    assert said.startswith(f"another process is training in {tmp_path}: process {holder.pid} on ")
    assert f" on {os.uname().nodename}, since 20" in said
    assert "\n" not in said


def test_it_dies_with_its_process(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / lease.NAME).is_file()
    with Lease(tmp_path, purpose="training"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left", [False, True])
def test_a_full_disk_leaves_no_lease(tmp_path, monkeypatch, left):
    """Nor does it harm the one that a killed process left, which is taken over later."""
    if left:
        elsewhere(tmp_path)
        os.utime(tmp_path / lease.NAME, (0, 0))
    before = list(tmp_path.iterdir())

    def full(record, file):
        file.write("{")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(lease.json, "dump", full)
        with (
            pytest.raises(OSError, match=f"{tmp_path} cannot be written: No space left"),
            Lease(tmp_path, purpose="training"),
        ):
            pass
    assert list(tmp_path.iterdir()) == before
    with Lease(tmp_path, purpose="training"):
        pass


def test_a_disk_that_is_full_meanwhile_is_named(tmp_path):
    """Python says of a write that failed neither file nor folder."""
    with pytest.raises(OSError) as told, Lease(tmp_path, purpose="scoring"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert cli.sentence(told.value) == (
        f"{tmp_path}: No space left on device. Nothing that was saved is lost; with more room, the"
        " same command goes on."
    )


def elsewhere(folder, **changes):
    """The lease of a process on another host."""
    record = dict(purpose="training", host="elsewhere", pid=1, started="1", since="2026", token="a")
    record["numbered_in"] = lease._numbered_in()
    (folder / lease.NAME).write_text(json.dumps(record | changes))


def test_another_host_is_believed_until_it_is_silent(tmp_path):
    elsewhere(tmp_path)
    with pytest.raises(OSError, match="process 1 on elsewhere"), Lease(tmp_path, purpose="x"):
        pass
    long_ago = time.time() - lease.STALE - 1
    os.utime(tmp_path / lease.NAME, (long_ago, long_ago))
    with Lease(tmp_path, purpose="training") as held:
        held.check()


def test_a_clock_that_is_wrong_takes_nothing_over(tmp_path, monkeypatch):
    """Ages are differences of the file system's times, whatever this host's clock says."""
    elsewhere(tmp_path)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    with pytest.raises(OSError, match="elsewhere"), Lease(tmp_path, purpose="x"):
        pass


def test_a_clock_that_was_put_back_holds_nothing(tmp_path):
    """A holder that lives renews its lease by the clock as it is now."""
    elsewhere(tmp_path)
    in_an_hour = time.time() + 3600
    os.utime(tmp_path / lease.NAME, (in_an_hour, in_an_hour))
    with Lease(tmp_path, purpose="training") as held:
        held.check()


def test_a_container_of_the_same_host_name_is_another_host(tmp_path):
    """`--net=host` gives every container the host's name; process numbers are their own."""
    elsewhere(tmp_path, host=os.uname().nodename, pid=2**22 + 1, numbered_in="another")
    with pytest.raises(OSError, match="process 4194305 on "), Lease(tmp_path, purpose="x"):
        pass


@pytest.mark.parametrize("content", [b"", b"\xff\0", b"[1]", b"[" * 100_000], ids=range(4))
def test_a_file_that_says_nothing_is_a_lease_until_it_is_silent(tmp_path, content):
    path = tmp_path / lease.NAME
    path.write_bytes(content)
    say = f"{path} was just written and does not say by whom; wait"
    with pytest.raises(OSError, match=say), Lease(tmp_path, purpose="x"):
        pass
    os.utime(path, (0, 0))
    with Lease(tmp_path, purpose="x"):
        pass


def test_a_reused_process_number_is_another_process(tmp_path):
    host = os.uname().nodename
    elsewhere(tmp_path, host=host, pid=os.getpid(), started="another time")
    with Lease(tmp_path, purpose="training"):
        pass


def test_it_is_renewed_and_its_loss_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.02)
    with Lease(tmp_path, purpose="training") as held:
        old = time.time() - 30
        os.utime(held.path, (old, old))
        wait_until(lambda: held.path.stat().st_mtime > old + 1)
        elsewhere(tmp_path)
        wait_until(lambda: held._lost is not None)
        with pytest.raises(OSError, match="process 1 on elsewhere"):
            held.check()
    assert (tmp_path / lease.NAME).is_file()  # it is not ours to remove


def test_a_lease_that_was_removed_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.02)
    with Lease(tmp_path, purpose="training") as held:
        held.path.unlink()
        wait_until(lambda: held._lost is not None)
        with pytest.raises(OSError, match=f"{held.path}, which kept .*, was removed; start again"):
            held.check()


def test_of_two_that_take_over_one_keeps_it(tmp_path, monkeypatch):
    elsewhere(tmp_path, host=os.uname().nodename, pid=2**22 + 1)  # above every process number

    def meanwhile(_):
        elsewhere(tmp_path, pid=7)

    monkeypatch.setattr(lease.time, "sleep", meanwhile)
    with pytest.raises(OSError, match="process 7 on elsewhere"), Lease(tmp_path, purpose="x"):
        pass


def test_a_folder_that_cannot_be_written_is_said_first(tmp_path):
    (tmp_path / "file").write_text("")
    below = Lease(tmp_path / "file" / "a", purpose="training")
    with pytest.raises(OSError, match=r"file/a cannot be written: Not a directory\.$"):
        below.__enter__()


def wait_until(holds, seconds=10):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)

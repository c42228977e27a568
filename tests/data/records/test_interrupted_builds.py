"""Builds that were killed, and several at once: one set of records, equal byte by byte."""

import json
import pickle
import signal
import subprocess
import sys

import pytest
from places import ROOT
from record_folders import contents, drawn, make

from dit_jax.data.records.folder import Records, existing, manifest
from dit_jax.lease import Lease

# Runs builds of the pickled annotations at once, each in its own process, which kills itself where
# a function is called for the nth time. Prints how each process ended.
BUILDS = """
import importlib, json, os, pickle, signal, sys
from pathlib import Path
from dit_jax.data import records
from dit_jax.data.records import write

def counting(function, calls, limit):
    def run(*args, **kwargs):
        calls.append(function)
        if len(calls) == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return run

def job(out, where, nth):
    written = []
    write.serialize = counting(write.serialize, written, 0)
    module, name = where.rsplit(".", 1)
    module = importlib.import_module(module)
    setattr(module, name, counting(getattr(module, name), [], nth))
    os.write(1, b"ready\\n")  # at once, where print may be cut in two by the other process
    records.build(annotations, out_dir=out, progress=False, shard_entries=3)
    return len(written)

root = Path(sys.argv[1])
annotations = pickle.loads((root / "annotations.pickle").read_bytes())
processes = []
for arguments in json.loads(sys.argv[2]):
    if (process := os.fork()) == 0:
        os._exit(job(*arguments))
    processes.append(process)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in processes]))
"""

MOMENTS = {  # before which call
    "a plan": ("os.replace", 1),
    "the middle of the second shard": ("dit_jax.data.records.write.entry_mask", 5),
    "a complete shard is renamed": ("os.replace", 4),
    "its note": ("os.replace", 5),
    "the manifest": ("dit_jax.data.records.folder.write_json", 1),
    "verification": ("dit_jax.data.records.folder.verify", 1),
    "it is visible": ("os.rename", 1),
    "tidying up": ("shutil.rmtree", 1),
}


def start(root, annotations, jobs):
    """Start builds; a job is a folder for the records, and the call before which it is killed."""
    (root / "annotations.pickle").write_bytes(pickle.dumps(annotations))
    command = [sys.executable, "-c", BUILDS, str(root), json.dumps(jobs)]
    here = ROOT
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=here)


def exit_codes(builds):
    return json.loads(builds.communicate()[0].splitlines()[-1])


def test_a_killed_build_is_continued_to_the_same_bytes(tmp_path):
    annotations = drawn(tmp_path, counts=(("train", 8), ("val", 4)))
    folders = {moment: tmp_path / str(number) for number, moment in enumerate(MOMENTS)}
    jobs = [[str(folders[moment]), *call] for moment, call in MOMENTS.items()]
    builds = start(tmp_path, annotations, jobs)
    expected = contents(make(annotations, tmp_path / "whole"))
    assert exit_codes(builds) == [-signal.SIGKILL] * len(jobs)
    for moment, folder in folders.items():
        assert (existing(folder, "drawn(unc)") is None) == (moment != "tidying up")
        kept = {
            file.name: file.stat().st_ino for file in folder.glob("incomplete.*/records/*-of-*")
        }
        path = make(annotations, folder)
        assert contents(path) == expected, moment
        if moment == "its note":  # that shard is not known to be complete
            del kept["referents-train.array_record-00001-of-00003"]
        assert {name: (path / name).stat().st_ino for name in kept} == kept, (
            f"{moment}: finished shards were written again"
        )
        visible = [file.name for file in folder.iterdir() if not file.name.startswith(".")]
        assert visible == ["drawn_unc"], moment


def test_builds_at_once_are_one_build(tmp_path):
    annotations = drawn(tmp_path)
    (tmp_path / "out").mkdir()
    with Lease(tmp_path / "out", purpose="building", name=".drawn_unc.lease"):
        # So that both find somebody else at work.
        builds = start(tmp_path, annotations, [[str(tmp_path / "out"), "os.getcwd", 0]] * 2)
        assert [builds.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
        assert existing(tmp_path / "out", "drawn(unc)") is None
    assert sorted(exit_codes(builds)) == [0, 11]  # how many records each has written
    assert contents(tmp_path / "out/drawn_unc") == contents(make(annotations, tmp_path / "alone"))


def interrupted(annotations, out_dir, monkeypatch, **options):
    """A build that stops before it becomes visible; returns the folder of its shards."""
    with monkeypatch.context() as patch:
        patch.setattr("dit_jax.data.records.folder.verify", _stop)
        with pytest.raises(KeyboardInterrupt):
            make(annotations, out_dir, **options)
    return out_dir / "incomplete.drawn_unc/records"


def _stop(*args, **kwargs):
    raise KeyboardInterrupt


def test_a_damaged_shard_of_a_killed_build_is_written_again(tmp_path, monkeypatch):
    annotations = drawn(tmp_path)
    records = interrupted(annotations, tmp_path / "out", monkeypatch)
    expected = contents(records)
    for name in ("referents-train.array_record-00001-of-00003", "manifest.json"):
        file = records / name
        file.write_bytes(file.read_bytes()[:-20])
    assert contents(make(annotations, tmp_path / "out")) == expected


def test_what_a_later_check_finds_is_left_out_of_a_killed_build(tmp_path, monkeypatch):
    annotations = drawn(tmp_path)
    interrupted(annotations, tmp_path / "out", monkeypatch)
    broken = {annotations.splits["val"][0].name: "odd."}
    with pytest.raises(ValueError, match=r"ref_id 7 \(3.png\): odd."):
        make(annotations, tmp_path / "out", broken=broken)
    path = make(annotations, tmp_path / "out", broken=broken, on_error="skip")
    assert len(Records(path, "val")) == 3


def test_what_a_killed_build_left_out_is_looked_at_again(tmp_path, monkeypatch):
    annotations = drawn(tmp_path)
    picture = annotations.images / "0.png"
    data = picture.read_bytes()
    picture.unlink()
    interrupted(annotations, tmp_path / "out", monkeypatch, on_error="skip")
    with pytest.raises(ValueError, match="ref_id 0 .*0.png is missing"):
        make(annotations, tmp_path / "out", on_error="stop")
    picture.write_bytes(data)
    path = make(annotations, tmp_path / "out", on_error="skip")
    assert manifest(path)["left_out"] == [] and len(Records(path, "train")) == 7


def test_what_another_build_began_is_not_continued(tmp_path, monkeypatch):
    annotations = drawn(tmp_path)
    interrupted(annotations, tmp_path / "out", monkeypatch)
    other = drawn(tmp_path, expressions=("another", "sentence"))
    path = make(other, tmp_path / "out")
    assert Records(path, "train")[1].expressions == ("another", "sentence")
    assert contents(path) == contents(make(other, tmp_path / "alone"))

"""Records in a bucket: built from and into one, brought shard by shard, and the same batches."""

import pickle
import re
import threading

import pytest
from bucket import bucket
from record_folders import contents, drawn, make

from dit_jax import storage
from dit_jax.data import records
from dit_jax.data.annotations import datasets
from dit_jax.data.prepare import main, prepare
from dit_jax.data.records import Records
from dit_jax.storage import objects

OUT = storage.Name("gs", "bucket/records")


@pytest.fixture(scope="module")
def server():
    with bucket() as one:
        yield one


@pytest.fixture
def cache(tmp_path, monkeypatch, server):
    server.storage.wipe(keep_buckets=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def built(tmp_path, cache):
    """The records of a local build, and the same in the bucket: 3 shards of train, 2 of val."""
    here = make(drawn(tmp_path), tmp_path / "records")
    storage.publish(here, OUT / here.name)
    return here


def found(cache=""):
    return records.bucket.existing(OUT, "drawn(unc)", cache=cache)


def shards(path):
    return sorted(one.name for one in path.glob("*.array_record-*") if not one.name.startswith("."))


def test_shards_are_brought_when_they_are_read(built, cache):
    copy = found()
    assert copy.is_relative_to(cache) and shards(copy) == []
    source, here = Records(copy, "train"), Records(built, "train")
    assert (source.contents() == here.contents()).all() and shards(copy) == []
    assert source.record(4)["image"] == here.record(4)["image"]
    assert shards(copy) == ["referents-train.array_record-00001-of-00003"]
    for index in range(len(here)):
        assert source[index].id == here[index].id
        assert (source[index].image == here[index].image).all()
        assert (source[index].mask == here[index].mask).all()
    assert len(shards(copy)) == 3


def test_they_are_kept(built, cache, monkeypatch):
    copy = found()
    pickle.loads(pickle.dumps(Records(copy, "val"))).record(0)  # in a worker process
    monkeypatch.setattr(objects, "fetch", pytest.fail)
    monkeypatch.setattr(storage, "fetch", pytest.fail)
    assert found() == copy
    Records(copy, "val").record(0)


def test_threads_bring_a_shard_once(built, cache, monkeypatch):
    source, fetched = Records(found(), "train"), []
    fetch = storage.fetch
    monkeypatch.setattr(
        storage, "fetch", lambda path, **how: (fetched.append(path), fetch(path, **how))
    )
    threads = [threading.Thread(target=source.record, args=(n % 3,)) for n in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 1


def test_a_shard_of_other_bytes_is_refused(built, cache, server):
    copy = found()
    name = "records/drawn_unc/referents-val.array_record-00000-of-00002"
    storage.write(storage.Name("gs", f"bucket/{name}"), b"x" + server.read(name)[1:])
    with pytest.raises(OSError, match=rf"gs://bucket/{name} is not what was written there"):
        Records(copy, "val").record(0)
    assert shards(copy) == []


def test_a_disk_without_room_is_a_sentence_before_anything(built, cache, tmp_path, monkeypatch):
    copy = found(cache=str(tmp_path / "scratch"))
    assert copy.is_relative_to(tmp_path / "scratch")
    monkeypatch.setattr(objects.shutil, "disk_usage", lambda path: type("", (), dict(free=10)))
    with pytest.raises(OSError, match=r"need 0\.00 GB on the disk of \S+, .*data\.local_cache"):
        Records(copy, "train")


def test_built_in_a_bucket_the_bytes_are_the_same(tmp_path, cache, server):
    annotations = drawn(tmp_path)
    here = make(annotations, tmp_path / "records")
    copy = records.build_in(OUT, annotations, progress=False, shard_entries=3)
    assert contents(here) == {
        name.rpartition("/")[2]: server.read(name) for name in server.names("records/drawn_unc/")
    }
    assert len(shards(copy)) == 5  # which the host that built them need not bring
    assert not list(cache.rglob("building/gs/**/*.array_record*"))
    assert records.build_in(OUT, annotations) == copy


def test_prepare_from_a_bucket_into_it(tmp_path, cache, server, capsys):
    folder = tmp_path / "photos"
    drawn(folder)
    (folder / "train.jsonl").write_text(
        '{"image": "images/0.png", "text": "a", "box": [1, 2, 9, 9]}\n'
    )
    (folder / "val.jsonl").write_text(
        '{"image": "images/1.png", "text": "b", "box": [1, 2, 9, 9]}\n'
    )
    with storage.written("gs://bucket/photos") as there:
        folder.rename(there)
    asked = ["--dataset=folder", "--source=gs://bucket/photos", "--out=gs://bucket/own"]
    assert main(asked) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert re.search(r"^gs://bucket/own/folder_photos_[0-9a-f]{8}:$", said, re.MULTILINE)
    path = prepare("folder", "", source="gs://bucket/photos", out_dir="gs://bucket/own")
    label = datasets.label("folder", "", source="gs://bucket/photos/")
    assert records.manifest(path)["dataset"] == label
    assert str(cache) not in (path / "manifest.json").read_text()
    assert Records(path, "train").record(0)["expressions"][0] == b"a"


def test_what_cannot_be_reached_is_said_first(capsys):
    assert main(["--dataset=folder", "--source=ftp://x/y", "--out=records"]) == 1
    assert capsys.readouterr().err.startswith("error: ftp://x/y is no place; expected a path, gs:")

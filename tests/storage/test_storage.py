"""Names in buckets, and what is brought from there and back."""

import asyncio
import importlib.util
import os

import pytest
from bucket import bucket, dropped, for_a_while, unavailable

from dit_jax import storage
from dit_jax.storage import objects


@pytest.fixture(scope="module")
def server():
    with bucket() as one:
        yield one


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def put(server, request):
    """Writes objects into a folder of the test's own, and gives that."""
    folder = f"gs://bucket/{request.node.name.replace('[', '_').strip(']')}"

    def write(**contents) -> str:
        for name, data in contents.items():
            storage.write(
                storage.parse(f"{folder}/{name.replace('__', '.').replace('_', '/')}"), data
            )
        return folder

    return write


def test_a_path_is_no_name():
    for path in ("runs/x", "/runs/x", "~/x", "a:b", "C:/x", "./gs:/x"):
        assert storage.parse(path) is None
    assert str(storage.parse("gs://bucket/a/b/")) == "gs://bucket/a/b"
    assert str(storage.parse(os.path.normpath("s3://bucket/a"))) == "s3://bucket/a"


@pytest.mark.parametrize("text", ["http://x/y", "gs://", "gs://bucket/../x", "file:///x"])
def test_no_place(text):
    with pytest.raises(ValueError, match=f"{text} is no place; expected a path, gs://BUCKET/"):
        storage.check(text)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ModuleNotFoundError, match=r"s3://a/b needs s3fs: pip install 'dit_jax\[s3\]'"
    ):
        storage.check("s3://a/b")
    storage.check("a/b")


def test_names_of_copies_are_shown(tmp_path):
    path = storage.copy_of(storage.parse("gs://bucket/run"), "x", root=tmp_path) / "a.json"
    assert storage.named(path) == str(storage.direct(path)) == "gs://bucket/run/a.json"
    assert storage.shown(f"'{path}' is damaged.") == "'gs://bucket/run/a.json' is damaged."
    assert storage.named(tmp_path) == str(tmp_path)


def test_local_brings_a_folder_once(put, server):
    folder = put(a__txt=b"one", b_c__txt=b"two")
    copy = storage.local(folder)
    assert (copy / "a.txt").read_bytes() == b"one"
    assert (copy / "b" / "c.txt").read_bytes() == b"two"
    (copy / "a.txt").write_bytes(b"ONE")
    assert storage.local(folder) == copy
    assert (copy / "a.txt").read_bytes() == b"ONE"  # not brought again
    storage.write(storage.parse(f"{folder}/a.txt"), b"three")
    assert (storage.local(folder) / "a.txt").read_bytes() == b"three"


def test_local_brings_a_file_and_what_lies_beside(put):
    folder = put(m__pth=b"m", config__json=b"{}", other__bin=b"", deep_x__json=b"")
    alone = storage.local(f"{folder}/m.pth")
    assert [path.name for path in alone.parent.iterdir()] == ["m.pth"]
    path = storage.local(f"{folder}/m.pth", beside=("*.json",))
    assert sorted(one.name for one in path.parent.iterdir()) == ["config.json", "m.pth"]


def test_local_brings_a_pattern(put):
    folder = put(a__jpg=b"a", b__jpg=b"b", c__png=b"c")
    assert len(list(storage.local(f"{folder}/*.jpg").parent.iterdir())) == 2
    with pytest.raises(FileNotFoundError, match=f"{folder}/x is not there"):
        storage.local(f"{folder}/x")


def test_a_small_disk_is_a_sentence(put, monkeypatch):
    folder = put(a__txt=b"12345")
    usage = type("usage", (), dict(free=4))
    monkeypatch.setattr(objects.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"a.txt and what belongs to it need 0.00 GB on the disk of"):
        storage.local(folder)


def test_written_goes_on_with_what_is_there(put, server):
    folder = put(a__txt=b"one", checkpoints_1=b"x", gone__txt=b"")
    with storage.written(folder) as path:
        assert sorted(one.name for one in path.iterdir()) == ["a.txt", "gone.txt"]
        (path / "a.txt").write_text("more")
        (path / "gone.txt").unlink()
        (path / "new").mkdir()
        (path / "new" / "b.txt").write_text("b")
        (path / ".lease").touch()
        (path / "half.tmp").touch()
    assert not path.exists()
    key = folder.removeprefix("gs://bucket/")
    assert server.names(key) == {f"{key}/a.txt", f"{key}/checkpoints/1", f"{key}/new/b.txt"}
    assert server.read(f"{key}/a.txt") == b"more"


def test_what_is_somebody_elses_stays(put, server):
    """Weights and checkpoints that were not brought here, and unfinished files."""
    folder = put(mine__safetensors=b"mine", checkpoints_1=b"x", notes__tmp=b"t")
    key = folder.removeprefix("gs://bucket/")
    with storage.written(folder) as path:
        model(path, b"new")
    there = {"mine.safetensors", "checkpoints/1", "notes.tmp"}
    assert server.names(key) == {
        f"{key}/{name}" for name in there | {"model.safetensors", "config.json", "manifest.json"}
    }


def test_a_store_that_knows_no_such_place_is_no_success(put, monkeypatch):
    folder = put(a__txt=b"one")

    def lost(local, key, **how):
        raise FileNotFoundError(key)

    monkeypatch.setattr(objects._store("gs"), "put_file", lost)
    said = r"b\.txt could not be written: the store knows no such place\.$"
    with pytest.raises(ConnectionError, match=said), storage.written(folder) as path:
        (path / "b.txt").write_text("b")


def test_a_key_without_a_path_is_left_alone(put, server):
    folder = put(a__txt=b"one")
    name = storage.parse(folder)
    storage.write(storage.Name(name.scheme, f"{name.key}//odd.txt"), b"odd")
    with storage.written(folder) as path:
        assert [one.name for one in path.iterdir()] == ["a.txt"]


def test_what_a_failure_leaves_is_there(put, server):
    folder = put(a__txt=b"one")
    with pytest.raises(KeyError), storage.written(folder) as path:
        (path / "a.txt").write_text("two")
        raise KeyError
    assert server.read(f"{folder.removeprefix('gs://bucket/')}/a.txt") == b"two"


def model(path, weights: bytes, **more: bytes):
    path.mkdir(parents=True, exist_ok=True)
    files = {"model.safetensors": weights, "config.json": b"{}", "manifest.json": weights}
    for name, data in (files | more).items():
        (path / name).write_bytes(data)


def test_a_folder_with_a_manifest_counts_when_it_is_whole(put, server):
    folder = put()
    key = folder.removeprefix("gs://bucket/")
    moments = []

    def names():
        return {name.rpartition("/")[2] for name in server.names(f"{key}/model/")}

    def contents(name):
        return server.read(f"{key}/model/{name}") if name in names() else None

    def watch(handler):
        if handler.command in ("POST", "PUT", "DELETE"):
            files = ("config.json", "manifest.json", "model.safetensors")
            moments.append([contents(name) for name in files])
        return False

    with storage.written(folder) as path:
        model(path / "model", b"first", unused=b"of the first")
    server.trouble = watch
    with storage.written(folder) as path:
        assert not (path / "model" / "model.safetensors").exists()  # nobody reads it to go on
        for former in (path / "model").iterdir():
            former.unlink()
        model(path / "model", b"second")
    server.trouble = None
    assert names() == {"model.safetensors", "config.json", "manifest.json"}
    assert contents("model.safetensors") == b"second"
    # In `model`, the manifest says what the weights are.
    assert any(config is None for config, _, _ in moments)
    assert all(noted in (None, weights) for config, noted, weights in moments)
    assert not any(
        config and noted is None and weights == b"first" for config, noted, weights in moments
    )


def test_a_manifest_alone_is_written_alone(put, server):
    folder = put()
    with storage.written(folder) as path:
        model(path / "model", b"first")
    with storage.written(folder) as path:
        (path / "model" / "manifest.json").write_bytes(b"scored")
    key = folder.removeprefix("gs://bucket/")
    assert server.read(f"{key}/model/manifest.json") == b"scored"
    assert server.read(f"{key}/model/model.safetensors") == b"first"


@pytest.mark.parametrize("trouble", [unavailable, dropped])
def test_trouble_of_a_moment_is_outlasted(put, server, trouble):
    folder = put(a__txt=b"one")
    with for_a_while(server, trouble, seconds=0.7), storage.written(folder) as path:
        assert (path / "a.txt").read_bytes() == b"one"
        (path / "a.txt").write_text("two")
    assert server.read(f"{folder.removeprefix('gs://bucket/')}/a.txt") == b"two"


@pytest.mark.parametrize("trouble", [unavailable, dropped])
def test_trouble_that_stays_is_a_sentence(put, server, trouble, monkeypatch):
    folder = put(a__txt=b"one")
    sleep = asyncio.sleep
    monkeypatch.setattr("gcsfs.retry.asyncio.sleep", lambda seconds: sleep(0))
    with (
        for_a_while(server, trouble, seconds=60),
        pytest.raises(ConnectionError, match=rf"^{folder} could not be listed: .+\.$"),
    ):
        storage.local(folder)


def test_an_object_is_created_once(put):
    name = storage.parse(put()) / "lease"
    assert storage.create(name, b"mine")
    assert not storage.create(name, b"theirs")
    assert storage.read(name) == b"mine"
    storage.remove([name, name])
    with pytest.raises(FileNotFoundError):
        storage.read(name)

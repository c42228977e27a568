"""Pictures in folders and in zip files."""

import io
import os
import pickle
import struct
import sys
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from dit_jax.data.pixels.picture_size import content as content_of
from dit_jax.data.pixels.stores import open_images

NAMES = [f"COCO_train2014_{number}.jpg" for number in range(20)]


def content(name):
    return np.random.default_rng(NAMES.index(name)).bytes(50_000)


@pytest.fixture(params=["folder", "zip", "deflated zip"])
def path(request, tmp_path):
    if request.param == "folder":
        for name in NAMES:
            (tmp_path / name).write_bytes(content(name))
        return tmp_path
    compression = zipfile.ZIP_STORED if request.param == "zip" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(tmp_path / "train2014.zip", "w", compression) as archive:
        archive.mkdir("train2014")
        for name in NAMES:
            archive.writestr(f"train2014/{name}", content(name))
    return tmp_path / "train2014.zip"


def test_pictures_are_found_by_their_names(path):
    store = open_images(path)
    for name in NAMES:
        assert name in store and store.read(name) == content(name)
    for name in ("gone.jpg", "", ".", "other/" + NAMES[0], "train2014"):
        assert name not in store
        with pytest.raises(ValueError, match=f"the picture .*{name} .*is missing"):
            store.read(name)


def test_many_threads_read_at_once(path):
    store = open_images(path)
    with ThreadPoolExecutor(8) as pool:
        for name, data in zip(NAMES * 20, pool.map(store.read, NAMES * 20), strict=True):
            assert data == content(name)


def test_a_store_travels_to_other_processes(path):
    store = open_images(path)
    again = pickle.loads(pickle.dumps(store))
    assert again.read(NAMES[3]) == content(NAMES[3])


def test_a_forked_process_reads_by_itself(path, monkeypatch):
    store = open_images(path)
    before = vars(store).get("_archive")
    monkeypatch.setattr(os, "getpid", lambda: -1)  # what a fork changes
    assert store.read(NAMES[3]) == content(NAMES[3])
    assert before is None or vars(store)["_archive"] is not before


def test_full_paths_and_the_ends_of_paths_name_a_member(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for member in ("a/left/1.jpg", "a/right/1.jpg", "2.jpg", "b/2.jpg"):
            archive.writestr(member, member)
    store = open_images(tmp_path / "x.zip")
    for name, member in {
        "a/left/1.jpg": "a/left/1.jpg",
        "left/1.jpg": "a/left/1.jpg",
        "2.jpg": "2.jpg",
        "b/2.jpg": "b/2.jpg",
    }.items():
        assert name in store and store.read(name) == member.encode()
    assert "1.jpg" not in store
    with pytest.raises(ValueError, match="1.jpg .* more than once: a/left/1.jpg, a/right/1.jpg"):
        store.read("1.jpg")
    assert "ight/1.jpg" not in store


def test_a_damaged_member_is_named(tmp_path):
    file = tmp_path / "x.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/1.jpg", b"the picture")
    file.write_bytes(file.read_bytes().replace(b"the picture", b"not the pic"))
    with pytest.raises(ValueError, match=r"the picture a/1.jpg of .*x.zip cannot be unpacked"):
        open_images(file).read("1.jpg")


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.proof)])
def test_a_damaged_archive_is_named(tmp_path, count):
    file, rng = tmp_path / "x.zip", np.random.default_rng(0)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/1.jpg", b"the picture")
    whole, refused = file.read_bytes(), 0
    for number in range(count):
        data = bytearray(whole)
        for place in rng.integers(len(data), size=1 + number % 4):
            data[place] = rng.integers(256)
        file.write_bytes(data)
        try:
            store = open_images(file)
            store.read("1.jpg")
        except ValueError as error:
            refused += 1
            assert str(file) in str(error)
    assert refused > count / 4


def test_an_archive_in_several_parts_is_named(tmp_path):
    """A ZIP64 locator that says so: what Python looks at before it knows that a file is a zip."""
    file = tmp_path / "x.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/1.jpg", b"the picture")
    data = file.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    file.write_bytes(data[:end] + struct.pack("<4sLQL", b"PK\x06\x07", 1, 0, 2) + data[end:])
    with pytest.raises(ValueError, match=r"x.zip is a damaged zip file"):
        open_images(file)


def bomb(size, *, begins=b""):
    """A member of few bytes that unpacks to `size`."""
    packed = io.BytesIO()
    archive = zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive, archive.open("1.bmp", "w") as member:
        member.write(begins)
        for _ in range(size >> 20):
            member.write(bytes(2**20))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (None, "has 83886080 bytes and does not begin as a picture does"),
        ((30, 20), "has 83887934 bytes, which are too many for a picture of 30x20"),
    ],
)
def test_a_member_is_not_unpacked_beyond_its_picture(tmp_path, picture, message):
    begins = b"" if picture is None else cv2.imencode(".bmp", np.ones((*picture, 3), np.uint8))[1]
    (tmp_path / "x.zip").write_bytes(bomb(80 << 20, begins=bytes(begins)))
    store = open_images(tmp_path / "x.zip")
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"the picture 1.bmp of .*x.zip {message}"):
        store.read("1.bmp")
    assert tracemalloc.get_traced_memory()[1] < 2 << 20
    tracemalloc.stop()


def test_a_member_that_unpacks_to_more_than_it_claims(tmp_path):
    data = bomb(8 << 20)
    assert data.count((8 << 20).to_bytes(4, "little")) >= 1
    (tmp_path / "x.zip").write_bytes(data.replace((8 << 20).to_bytes(4, "little"), b"\0\1\0\0"))
    store = open_images(tmp_path / "x.zip")
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"x.zip cannot be unpacked: Bad CRC-32"):
        store.read("1.bmp")
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_large_picture_is_read(tmp_path, monkeypatch, kind):
    """One whose header says that it has to be."""
    monkeypatch.setattr(sys.modules[content_of.__module__], "LARGE", 1000)
    data = bytes(cv2.imencode(".bmp", np.ones((300, 200, 3), np.uint8))[1])
    (tmp_path / "1.bmp").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.bmp", data)
    store = open_images(tmp_path if kind == "folder" else tmp_path / "x.zip")
    assert store.read("1.bmp") == data and store.size("1.bmp") == len(data) > 1000


def test_a_sparse_file_is_not_read(tmp_path):
    with (tmp_path / "1.jpg").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match="1.jpg has 1099511627776 bytes and does not begin as a p"):
        open_images(tmp_path).read("1.jpg")


def test_anything_else_is_refused(tmp_path):
    with pytest.raises(ValueError, match="gone is missing; expected a folder or a zip file"):
        open_images(tmp_path / "gone")
    (tmp_path / "x.tar").write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match=r"x.tar is another file; expected a folder or a zip"):
        open_images(tmp_path / "x.tar")

"""Damaged folders of records, and builds that write nonsense, are noticed."""

import hashlib
import json

import numpy as np
import pytest
from record_folders import HEIGHT, WIDTH, drawn, make

from dit_jax.data.records import format, write
from dit_jax.data.records.folder import existing, verify


def _flip(path):
    file = next(path.glob("*val*"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def _lose(path):
    next(path.glob("*val*")).unlink()


def _reorder_index(path):
    arrays = format.index(path)
    np.savez(path / "index.npz", **{name: array[::-1] for name, array in arrays.items()})


def _rewrite(path, change):
    built = json.loads((path / "manifest.json").read_text())
    change(built)
    (path / "manifest.json").write_text(json.dumps(built))


def _forge_index(path):
    _reorder_index(path)
    digest = hashlib.sha256((path / "index.npz").read_bytes()).hexdigest()
    _rewrite(path, lambda built: built["files"].update({"index.npz": digest}))


def _miscount(path):
    _rewrite(path, lambda built: built["splits"]["val"].update(no_target=2))


def _truncate_manifest(path):
    (path / "manifest.json").write_text((path / "manifest.json").read_text()[:-10])


def _age(path):
    _rewrite(path, lambda built: built.update(format=0))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_flip, "referents-val.array_record-0000.-of-00002 is missing or not what was built"),
        (_lose, "referents-val.array_record-0000.-of-00002 is missing or not what was built"),
        (_reorder_index, "index.npz is missing or not what was built"),
        (_forge_index, r"train: record 0 \(drawn train ref_id 0 .*is not the index's"),
        (_miscount, "val: found .*'no_target': 1.* the manifest says .*'no_target': 2"),
        (_truncate_manifest, "manifest.json is damaged"),
        (_age, "holds records of format 0, expected 3"),
    ],
)
def test_verify_notices(tmp_path, damage, message):
    path = make(drawn(tmp_path), tmp_path / "out")
    verify(path, progress=False)
    damage(path)
    with pytest.raises(ValueError, match=message):
        verify(path, progress=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objects": 0}, "means 0 objects, but the mask is not empty"),
        ({"height": WIDTH, "width": HEIGHT}, "the mask is 40x24 .* but the picture is 24x40"),
        ({"image": b"no picture"}, "the picture .* cannot be decoded"),
        ({"image_id": 7}, "is not the index's"),
    ],
)
def test_a_build_that_writes_nonsense_stays_invisible(tmp_path, monkeypatch, changes, message):
    real = write.serialize
    with monkeypatch.context() as patch:
        patch.setattr(write, "serialize", lambda example: real({**example, **changes}))
        with pytest.raises(ValueError, match=message):
            make(drawn(tmp_path, counts=(("train", 2),)), tmp_path / "out")
    assert existing(tmp_path / "out", "drawn(unc)") is None

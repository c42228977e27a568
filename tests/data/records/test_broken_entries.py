"""Entries that cannot become records: named, or left out and listed."""

import pytest
from record_folders import CROWD, HEIGHT, WIDTH, drawn, make

from dit_jax.data.records.folder import Records, existing, manifest, verify

BROKEN = [
    (
        {"size": (HEIGHT + 1, WIDTH)},
        r"the annotations say 25x40 \(height x width\) but the picture",
    ),
    ({"file_name": "gone.png"}, "the picture .*gone.png is missing"),
    ({"file_name": "text.png"}, "the picture .* cannot be decoded"),
    ({"expressions": ()}, "an expression is empty"),
    ({"expressions": ("a", " ")}, "an expression is empty"),
    ({"sent_ids": (1, 2, 3)}, "3 sent_ids for 2 expressions, expected one"),
    ({"segmentations": ([],)}, "object 1 of 1: the mask is empty"),
    ({"segmentations": ([[4, 4, 8, 8]],)}, "object 1 of 1: the mask is empty"),
    ({"segmentations": (CROWD | {"size": [WIDTH, HEIGHT]},)}, "the mask is 40x24"),
    ({"segmentations": None}, "its mask is unknown"),
]


@pytest.mark.parametrize(("changes", "message"), BROKEN)
def test_a_broken_record_stops_the_build_and_is_named(tmp_path, changes, message):
    annotations = drawn(tmp_path, **changes)
    (annotations.images / "text.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=rf"^drawn train ref_id 1 \([a-z0]+.png\): .*{message}"):
        make(annotations, tmp_path / "out")
    assert existing(tmp_path / "out", "drawn(unc)") is None


@pytest.mark.parametrize(("changes", "message"), BROKEN)
def test_a_broken_record_can_be_left_out_and_is_listed(tmp_path, changes, message):
    annotations = drawn(tmp_path, **changes)
    (annotations.images / "text.png").write_bytes(b"no picture")
    path = make(annotations, tmp_path / "out", on_error="skip")
    train = Records(path, "train")
    assert [train.record_ids(i)["ref_id"] for i in range(len(train))] == [0, 2, 3, 4, 5, 6]
    (left_out,) = manifest(path)["left_out"]
    assert left_out["record"] == "drawn train ref_id 1"
    with pytest.raises(ValueError, match=message):
        raise ValueError(left_out["reason"])
    assert manifest(path)["splits"]["train"]["referents"] == 6
    verify(path, progress=False)


def test_a_shard_may_lose_all_its_records_but_a_split_may_not(tmp_path):
    annotations = drawn(tmp_path)
    for picture in ("0.png", "1.png"):
        (annotations.images / picture).unlink()
    path = make(annotations, tmp_path / "out", on_error="skip")
    assert manifest(path)["splits"]["train"]["referents"] == 3 and len(Records(path, "train")) == 3
    assert Records(path, "train").record_ids(0)["ref_id"] == 4
    for picture in annotations.images.iterdir():
        picture.unlink()
    with pytest.raises(ValueError, match=r"every record of train is broken; .*0.png is missing"):
        make(annotations, tmp_path / "other", on_error="skip")

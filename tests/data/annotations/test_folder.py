"""Own folders: which files there are, and how they are divided into splits."""

import pytest
from own_folders import LINE, lines

from dit_jax.data.annotations import folder


def test_files_are_splits(tmp_path):
    for name in ("testB", "val", "train", "testA"):
        values = [LINE | {"image": f"{name}{i}.jpg", "id": f"{name}-{i}"} for i in range(2)]
        lines(tmp_path, *values, name=f"{name}.jsonl")
    (tmp_path / "notes.json").write_text("not ours")
    found = folder.read(tmp_path)
    assert list(found.splits) == list(found.sources) == ["train", "val", "testA", "testB"]
    entries = [entry for split in found.splits.values() for entry in split]
    assert [entry.ref_id for entry in entries] == list(range(8))
    assert [entry.sent_ids for entry in entries] == [(i,) for i in range(8)]
    assert entries[5].name == "testA.jsonl line 2, id testA-1"


def test_lines_name_their_split(tmp_path):
    values = [LINE | {"split": split} for split in ("val", "train", "test_hard")]
    found = folder.read(lines(tmp_path, *values, name="annotations.jsonl"))
    assert list(found.splits) == ["train", "val", "test_hard"]
    assert [entry.ref_id for (entry,) in found.splits.values()] == [1, 0, 2]
    assert found.splits["val"][0].name == "annotations.jsonl line 1"


def test_pictures_are_divided_by_their_paths(tmp_path):
    """Every line of a picture in one split; others stay where they are when some are added."""

    def divided(numbers, share=0.1):
        values = [
            LINE | {"image": f"{where}p{i}.jpg", "text": f"{where}{i}"}
            for where in ("", "./", f"{tmp_path}/")
            for i in numbers
        ]
        found = folder.read(lines(tmp_path, *values, name="annotations.jsonl"), val_share=share)
        assert sum(map(len, found.splits.values())) == len(values)
        return {name: {e.file_name for e in part} for name, part in found.splits.items()}

    splits = divided(range(500))
    assert list(splits) == ["train", "val"] and not splits["train"] & splits["val"]
    assert splits["val"] == divided(reversed(range(500)))["val"]
    assert 30 <= len(splits["val"]) <= 70
    assert divided(range(700))["val"] >= splits["val"]
    assert divided(range(500), share=0.3)["val"] > splits["val"]
    assert sorted(splits["val"])[:3] == ["p1.jpg", "p111.jpg", "p120.jpg"]  # on every machine
    assert {name: len(part) for name, part in divided(range(2)).items()} == {"train": 1, "val": 1}
    assert divided(range(3), share=0.99)["train"]
    assert list(divided(range(3), share=0.0)) == ["train"]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ((), "holds no annotations; expected annotations.jsonl, or train.jsonl, val.jsonl, test"),
        (("notes.json", "readme.txt"), "holds no annotations"),
        (("train.jsonl", "dev.jsonl"), "dev.jsonl: no such split; expected annotations.jsonl, or"),
        (("annotations.jsonl", "val.jsonl"), "holds annotations.jsonl, val.jsonl; expected either"),
        (("train.jsonl", "val.json"), "holds train.jsonl, val.json; expected either"),
    ],
)
def test_mistakes_in_the_folder(tmp_path, names, sentence):
    for name in names:
        lines(tmp_path, LINE, name=name)
    with pytest.raises(ValueError, match=sentence):
        folder.read(tmp_path)


def test_mistakes_in_the_call(tmp_path):
    lines(tmp_path, LINE, name="annotations.jsonl")
    for source, sentence in [
        ("", "data.source is empty"),
        (tmp_path / "nowhere", "nowhere is no folder"),
        (tmp_path / "annotations.jsonl", "annotations.jsonl is no folder"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            folder.read(source)
    with pytest.raises(ValueError, match="val_share is 1.0; expected a number from 0 to below 1."):
        folder.read(tmp_path, val_share=1.0)
    with pytest.raises(ValueError, match="has one picture, which cannot be divided"):
        folder.read(tmp_path)
    lines(tmp_path, LINE | {"split": "val"}, LINE | {"text": "b"}, name="annotations.jsonl")
    with pytest.raises(ValueError, match="line 2: no split is named, but annotations.jsonl line 1"):
        folder.read(tmp_path)

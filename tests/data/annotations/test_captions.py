"""Own annotations without captions: refused where words are learned, named where only masks are."""

import json

import pytest

from dit_jax.data.annotations import folder
from dit_jax.data.entries import Reading

MASKS = Reading(captions="optional")
SQUARE = [2, 2, 8, 2, 8, 8, 2, 8]


def expressions(where, reading):
    read = folder.read(where, reading=reading)
    return [entry.expressions for entry in read.splits["train"]]


def test_coco_files_are_named_by_their_categories(tmp_path):
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 7, "segmentation": [SQUARE]},
        {"id": 2, "image_id": 1, "category_id": 8, "segmentation": [SQUARE]},
        {"id": 3, "image_id": 1, "caption": "the red cup", "segmentation": [SQUARE]},
        {"id": 4, "image_id": 1, "caption": None, "segmentation": [SQUARE]},
    ]
    document = {
        "images": [{"id": 1, "file_name": "1.jpg"}],
        "annotations": annotations,
        "categories": [{"id": 7, "name": "cup"}, {"id": "8", "name": " "}, "odd"],
    }
    (tmp_path / "train.json").write_text(json.dumps(document))
    said = [("cup",), ("object",), ("the red cup",), ("object",)]
    assert expressions(tmp_path, MASKS) == said
    document["annotations"] = annotations[:2]
    (tmp_path / "train.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match="none of 2 annotations says which words mean it"):
        expressions(tmp_path, Reading())


def test_lines_are_objects(tmp_path):
    lines = [
        {"image": "1.jpg", "box": [2, 2, 9, 9]},
        {"image": "1.jpg", "text": "it", "mask": None},
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert expressions(tmp_path, MASKS) == [("object",), ("it",)]
    with pytest.raises(ValueError, match="'text' is missing"):
        expressions(tmp_path, Reading())

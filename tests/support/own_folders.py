"""Annotation files of own folders."""

import json

RLE = {"size": [4, 6], "counts": [3, 2, 19]}
LINE = {"image": "a.jpg", "text": "the cup", "box": [1, 2, 3, 4]}


def lines(root, *values, name="train.jsonl"):
    """A file of JSON lines; texts are written as they are."""
    text = "\n".join(v if isinstance(v, str) else json.dumps(v) for v in values)
    (root / name).write_text(text, encoding="utf-8")
    return root


def coco(root, name="train.json", **changes):
    """A file in COCO's form with one picture and one annotation."""
    document = {
        "info": {"year": 2020},
        "images": [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 6}],
        "annotations": [{"id": 7, "image_id": 1, "caption": "the cup", "bbox": [1, 2, 3, 1]}],
    }
    (root / name).write_text(json.dumps(document | changes), encoding="utf-8")
    return root


def annotation(**changes):
    """The annotation of `coco`, with other keys; None leaves one out."""
    values = {"id": 7, "image_id": 1, "caption": "the cup", "bbox": [1, 2, 3, 1]} | changes
    return {"annotations": [{key: value for key, value in values.items() if value is not None}]}

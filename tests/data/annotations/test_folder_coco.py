"""Own folders in COCO's form: what is meant, where pictures lie, and every mistake by its place."""

import pytest
from own_folders import RLE, annotation, coco

from dit_jax.data.annotations import folder


@pytest.mark.parametrize(
    ("changes", "segmentations", "boxes"),
    [
        ({}, ((1.0, 2.0, 3.0, 1.0),), ((1.0, 2.0, 3.0, 1.0),)),
        ({"segmentation": []}, ((1.0, 2.0, 3.0, 1.0),), ((1.0, 2.0, 3.0, 1.0),)),
        (
            {"segmentation": [[0, 0, 5, 0, 5, 3]], "iscrowd": 0, "area": 9.5},
            ([[0, 0, 5, 0, 5, 3]],),
            ((1.0, 2.0, 3.0, 1.0),),
        ),
        ({"segmentation": RLE, "bbox": None}, (RLE,), ()),
    ],
)
def test_coco(tmp_path, changes, segmentations, boxes):
    found = folder.read(coco(tmp_path, **annotation(**changes)))
    (entry,) = found.splits["train"]
    assert (entry.segmentations, entry.boxes) == (segmentations, boxes)
    assert (entry.name, entry.file_name) == ("train.json annotation 7", "a.jpg")
    assert (entry.size, entry.image_id, entry.ann_ids) == ((4, 6), None, (7,))
    assert found.sources == {"train": tmp_path / "train.json"}


def test_coco_captions_splits_and_nothing(tmp_path):
    pictures = [
        {"id": "x", "file_name": "a.jpg", "split": "val"},
        {"id": "y", "file_name": "b.jpg", "split": "train"},
    ]
    objects = [
        {"id": 1, "image_id": "x", "captions": ["left", "right"], "bbox": [0, 0, 1, 1]},
        {"id": 2, "image_id": "y", "text": "no one", "segmentation": None},
        {"id": "z", "image_id": "y", "bbox": [0, 0, 1, 1]},
    ]
    coco(tmp_path, "annotations.json", images=pictures, annotations=objects)
    found = folder.read(tmp_path)
    (left,), (nothing, silent) = found.splits["val"], found.splits["train"]
    assert (left.expressions, left.size) == (("left", "right"), None)
    assert (nothing.expressions, nothing.segmentations) == (("no one",), ())
    # No caption: for the checks, which say so and can leave it out.
    assert (silent.expressions, silent.ann_ids) == ((), ())


@pytest.mark.parametrize("place", ["", "images", "val", "images/val"])
def test_coco_pictures_are_found(tmp_path, place):
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "a.jpg").touch()
    (entry,) = folder.read(coco(tmp_path, "val.json")).splits["val"]
    assert entry.file_name == f"{place}/a.jpg".lstrip("/")


def test_coco_pictures_are_divided(tmp_path):
    pictures = [{"id": i, "file_name": f"p{i}.jpg"} for i in range(200)]
    objects = [
        {"id": i, "image_id": i % 200, "caption": str(i), "bbox": [0, 0, 1, 1]} for i in range(400)
    ]
    coco(tmp_path, "annotations.json", images=pictures, annotations=objects)
    splits = folder.read(tmp_path).splits
    of_split = {name: {entry.file_name for entry in part} for name, part in splits.items()}
    assert not of_split["train"] & of_split["val"] and len(splits["val"]) == 2 * len(
        of_split["val"]
    )
    assert 5 <= len(of_split["val"]) <= 40


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"images": None}, "train.json: no list 'images'; expected COCO's lists"),
        ({"annotations": []}, "train.json is empty; expected at least one referring example."),
        ({"images": [3]}, r"train.json images\[0\]: found 3; expected an object"),
        ({"images": [{"id": 1}]}, r"train.json images\[0\]: 'file_name' is missing"),
        (
            {"images": [{"id": 1, "file_name": "a.jpg", "height": "4.5"}]},
            r"train.json images\[0\]: 'height' is \"4.5\"; expected a whole number of pixels",
        ),
        (
            {"images": [{"id": 1, "file_name": "a.jpg"}] * 2},
            r"train.json images\[1\]: the id 1 is that of another picture already.",
        ),
        (
            {"images": [{"id": 1, "file_name": "a.jpg", "split": "val"}]},
            r"train.json images\[0\]: 'split' is \"val\", but all of this file is train.",
        ),
        (annotation(id=[]), r"train.json annotations\[0\]: 'id' is \[\]; expected a whole number"),
        (annotation(image_id=2), r"train.json annotations\[0\]: no picture has the id 2."),
        (
            annotation(text="b"),
            r"annotations\[0\]: 'caption' and 'text' are given; expected exactly",
        ),
        (annotation(caption=3), r"annotations\[0\]: 'caption' is 3; expected text or a list"),
        (annotation(caption=None), "none of 1 annotations says which words mean it; expected the"),
        (annotation(bbox=None), r"annotations\[0\]: neither 'segmentation' nor 'bbox' is given"),
        (annotation(bbox=[]), r"annotations\[0\]: neither 'segmentation' nor 'bbox' is given"),
        (annotation(bbox=[1, 2, 3]), r"annotations\[0\]: 'bbox' is \[1, 2, 3\]; expected \[x, y"),
        (annotation(segmentation="a.png"), r"annotations\[0\]: 'segmentation' is \"a.png\""),
        (annotation(segmentation={"size": [4, 6]}), r"annotations\[0\]: 'segmentation' has no 'co"),
        (
            {"annotations": annotation()["annotations"] * 2},
            r"annotations\[1\]: the id 7 is that of another annotation already.",
        ),
    ],
)
def test_mistakes_in_coco(tmp_path, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        folder.read(coco(tmp_path, **changes))


def test_coco_that_is_no_json(tmp_path):
    (tmp_path / "train.json").write_text('{"images": [],\n "annotations": [}')
    with pytest.raises(ValueError, match="^train.json: not JSON: .* at line 2, character 18."):
        folder.read(tmp_path)

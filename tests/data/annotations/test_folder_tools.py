"""Own folders as labelme and YOLO's tools leave them."""

import base64
import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from dit_jax.data.annotations import folder
from dit_jax.data.entries import Reading
from dit_jax.data.pixels import entry_mask, run_lengths
from dit_jax.predict.label.formats import FORMATS, Files
from dit_jax.predict.label.record import Labeled, Thing

SQUARE = [[4, 4], [20, 4], [20, 12], [4, 12]]
MASKS = Reading(captions="optional")


def shape(label="cup", **changes):
    return {"label": label, "points": SQUARE, "shape_type": "polygon", "group_id": None} | changes


def labelme(root, *shapes, name="1.json", **changes):
    document = {"imagePath": "1.jpg", "imageHeight": 32, "imageWidth": 48, "imageData": None}
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document | {"shapes": shapes} | changes))
    return root


def png(mask):
    data = io.BytesIO()
    Image.fromarray(mask).save(data, format="PNG")
    return base64.b64encode(data.getvalue()).decode()


def the_mask(entry, height=32, width=48):
    return run_lengths.decode(
        entry_mask(entry, height=height, width=width), height=height, width=width
    )


def rectangle(x0, y0, x1, y1, height=32, width=48):
    """Of pixels, corners included."""
    mask = np.zeros((height, width), bool)
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (shape(), rectangle(4, 4, 20, 12)),
        (shape(shape_type=None), rectangle(4, 4, 20, 12)),
        (shape(shape_type="rectangle", points=[[20, 12], [4, 4]]), rectangle(4, 4, 20, 12)),
        (shape(shape_type="oriented_rectangle"), rectangle(4, 4, 20, 12)),
        (
            shape(
                shape_type="mask",
                points=[[4.0, 4.0], [20.0, 12.0]],
                mask=png(np.ones((9, 17), bool)),
            ),
            rectangle(4, 4, 20, 12),
        ),
    ],
)
def test_labelmes_shapes(tmp_path, given, expected):
    found = folder.read(labelme(tmp_path, given), val_share=0.0)
    (entry,) = found.splits["train"]
    assert (entry.expressions, entry.size, entry.file_name) == (("cup",), (32, 48), "1.jpg")
    assert (entry.name, found.sources) == ("1.json 'cup'", {"1.json": tmp_path / "1.json"})
    np.testing.assert_array_equal(the_mask(entry), expected)


def test_labelmes_circle(tmp_path):
    """As it draws it, but for pixels of the border."""
    circle = shape(shape_type="circle", points=[[200, 150], [200, 250]])
    labelme(tmp_path, circle, imageHeight=300, imageWidth=400)
    (entry,) = folder.read(tmp_path, val_share=0.0).splits["train"]
    drawn = Image.new("L", (400, 300))
    ImageDraw.Draw(drawn).ellipse((100, 50, 300, 250), outline=1, fill=1)
    mask, drawn = the_mask(entry, 300, 400), np.array(drawn, bool)
    assert (mask & drawn).sum() / (mask | drawn).sum() > 0.99


def test_a_label_means_all_that_bears_it_and_an_object_itself(tmp_path):
    far = [[30, 20], [40, 20], [40, 28]]
    labelme(tmp_path, shape(group_id=1), shape("saucer"), shape(points=far, group_id=1))
    labelme(tmp_path, shape(), shape(points=far), name="2.json", imagePath="2.jpg")
    entries = folder.read(tmp_path, val_share=0.0).splits["train"]
    assert [(e.file_name, e.expressions, len(e.segmentations)) for e in entries] == [
        ("1.jpg", ("cup",), 2),
        ("1.jpg", ("saucer",), 1),
        ("2.jpg", ("cup",), 2),
    ]
    assert the_mask(entries[0])[24, 38] and the_mask(entries[0])[8, 8]
    objects = folder.read(tmp_path, val_share=0.0, reading=MASKS).splits["train"]
    assert [(e.file_name, len(e.segmentations)) for e in objects] == [
        *(("1.jpg", 2), ("1.jpg", 1)),  # one group, and the saucer
        *(("2.jpg", 1), ("2.jpg", 1)),
    ]


def test_labelmes_files_may_be_called_as_splits_are(tmp_path):
    """They bear their pictures' names."""
    for name in ("train_001", "test1", "zebra"):
        labelme(tmp_path, shape(), name=f"{name}.json", imagePath=f"{name}.jpg")
    found = folder.read(tmp_path, val_share=0.0)
    assert len(found.splits["train"]) == 3


def test_labelmes_folders_are_splits(tmp_path):
    for name in ("val", "train"):
        labelme(tmp_path, shape(), name=f"{name}/a.json", imagePath="..\\images\\1.jpg")
    found = folder.read(tmp_path)
    assert {split: entry.file_name for split, (entry,) in found.splits.items()} == dict.fromkeys(
        ("train", "val"), "images/1.jpg"
    )
    assert list(found.sources) == ["train/a.json", "val/a.json"]
    labelme(tmp_path, shape(), name="more/b.json")
    with pytest.raises(ValueError, match=r"more/b.json is in none of .* \(train, val\); expected"):
        folder.read(tmp_path)


def test_a_folder_without_labelmes_files_is_no_split(tmp_path):
    labelme(tmp_path, shape())
    (tmp_path / "test_pictures").mkdir()
    (tmp_path / "values").mkdir()
    (tmp_path / "val").touch()
    (entry,) = folder.read(tmp_path, val_share=0.0).splits["train"]
    assert entry.file_name == "1.jpg"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            shape(shape_type="line"),
            r"1.json shapes\[0\]: 'shape_type' is \"line\", which has no ins",
        ),
        (shape(points=SQUARE[:2]), "'points' of a polygon is .*; expected three points or more"),
        (shape(shape_type="circle"), "'points' of a circle is .*; expected two points"),
        (shape(points=[[1, "2"]] * 3), "'points' of a polygon is"),
        (shape(label=3), "'label' is 3; expected text"),
        (3, r"shapes\[0\]: found 3; expected an object"),
        (
            shape(shape_type="mask", points=[[0, 0], [9, 9]], mask=png(np.ones((9, 17), bool))),
            "'mask' is 9x17; expected a PNG of 10x10",
        ),
        (
            shape(shape_type="mask", points=[[0, 0], [9, 9]], mask="?"),
            "'mask' is \"\\?\"; expected",
        ),
    ],
)
def test_mistakes_in_labelmes_files(tmp_path, given, sentence):
    labelme(tmp_path, given, shape("saucer"))
    with pytest.raises(ValueError, match=sentence):
        folder.read(tmp_path, val_share=0.0)
    found = folder.read(tmp_path, val_share=0.0, skip=True)
    assert [e.expressions for e in found.splits["train"]] == [("saucer",)]
    assert len(found.left_out) == 1


def yolo(root, text, yaml="train: images\nnames: [cup, saucer]\n", where="labels/1.txt"):
    for name, content in ((where, text), ("data.yaml", yaml)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    (root / "images").mkdir(exist_ok=True)
    (root / "images" / "1.jpg").touch()
    return root


OUTLINE = "1 0.125 0.25 0.5 0.25 0.5 0.5 0.125 0.5\n"


def test_yolos_outlines_and_boxes(tmp_path):
    yolo(tmp_path, f"0 0.5 0.5 0.25 0.25\n{OUTLINE}\n0 0.75 0.75 0.25 0.25\n")
    found = folder.read(tmp_path, val_share=0.0)
    cup, saucer = found.splits["train"]
    assert (cup.expressions, cup.file_name, len(cup.boxes)) == (("cup",), "images/1.jpg", 2)
    assert (saucer.name, saucer.boxes) == ("labels/1.txt 'saucer'", ())
    boxes = rectangle(18, 12, 29, 19) | rectangle(30, 20, 41, 27)
    np.testing.assert_array_equal(the_mask(cup), boxes)
    np.testing.assert_array_equal(the_mask(saucer), rectangle(6, 8, 24, 16))
    assert list(found.sources) == ["data.yaml", "labels/1.txt"]
    assert len(folder.read(tmp_path, val_share=0.0, reading=MASKS).splits["train"]) == 3


@pytest.mark.parametrize(
    ("yaml", "where"),
    [
        ("train: images/train\nval: images/val\nnames: {0: cup, 1: saucer}\n", "labels/{}/a.txt"),
        (
            "path: /gone\ntrain: train/images\nval: val/images\nnames: [cup, saucer]",
            "{}/labels/a.txt",
        ),
        ("train: ../train/images\nval: ../val/images\nnames: [cup, saucer]", "{}/labels/a.txt"),
        ("train: train.txt\nval: [val.txt]\nnames: [cup, saucer]", "labels/{}/a.txt"),
        ("train: lists/train.txt\nval: val.txt\nnames: [cup, saucer]", "labels/{}/a.txt"),
    ],
)
def test_yolos_folders(tmp_path, yaml, where):
    for split in ("train", "val"):
        text = tmp_path / where.format(split)
        picture = tmp_path / where.format(split).replace("labels", "images").replace("txt", "JPG")
        for path in (text, picture):
            path.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(OUTLINE)
        picture.touch()
        picture.with_name("empty.png").touch()  # has no text: a picture of nothing
        (tmp_path / f"{split}.txt").write_text(f"./{picture.relative_to(tmp_path)}\n")
        (tmp_path / "lists").mkdir(exist_ok=True)
        (tmp_path / f"lists/{split}.txt").write_text(f"{picture.relative_to(tmp_path)}\n")
    (tmp_path / "data.yaml").write_text(yaml)
    found = folder.read(tmp_path)
    assert {split: [e.expressions for e in part] for split, part in found.splits.items()} == {
        "train": [("saucer",)],
        "val": [("saucer",)],
    }


DIVIDED = {"train": "a", "val": "b"}


@pytest.mark.parametrize(
    ("yaml", "splits"),
    [
        ("train: images\nval: images/b", {"train": "ab", "val": "b"}),
        ("train: images/a\nval: images", {"train": "a", "val": "ab"}),
        ("train: a.txt\nval: images/b\ntest: images/b", {"train": "a", "val": "b", "test": "b"}),
        ("train: images/a\nval: [a.txt]\ntest: images", {"train": "a", "val": "a", "test": "ab"}),
        ("train: images\nval: [images/b, a.txt]\ntest: images", DIVIDED),
        ("test: images", DIVIDED),
    ],
)
def test_yolos_pictures_are_in_every_split_that_names_them(tmp_path, yaml, splits):
    """But one split, or the same pictures for each, is divided."""
    for name in "ab":
        yolo(
            tmp_path, OUTLINE, f"{yaml}\nnames: [cup, saucer]\n", where=f"labels/{name}/{name}.txt"
        )
        (tmp_path / "images" / name).mkdir()
        (tmp_path / "images" / name / f"{name}.jpg").touch()
    (tmp_path / "a.txt").write_text("images/a/a.jpg\n")
    found = folder.read(tmp_path).splits
    named = {split: "".join(e.file_name[-5] for e in part) for split, part in found.items()}
    assert named == splits


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("2 0.5 0.5 0.1 0.1", "1.txt line 1: there is no class 2; expected one of 0, 1"),
        ("0 0.5 0.5 0.1", "has 3 numbers behind its class; expected 4 of a box, or pairs"),
        ("cup 0.5 0.5 0.1 0.1", "are no numbers; expected a class and an outline"),
        ("0 100 120 30 40", "expected fractions of the picture, from 0 to 1"),
        ("0 0.5 0.5 nan 0.1", "'box_cxcywh' is"),
    ],
)
def test_mistakes_in_yolos_texts(tmp_path, text, sentence):
    yolo(tmp_path, f"{text}\n{OUTLINE}")
    with pytest.raises(ValueError, match=sentence):
        folder.read(tmp_path, val_share=0.0)
    found = folder.read(tmp_path, val_share=0.0, skip=True)
    assert [e.expressions for e in found.splits["train"]] == [("saucer",)]


LISTS = {
    "elsewhere": "data/images/1.jpg",
    "windows": "images\\1.jpg",
    "another_machine": "/home/they/images/1.jpg",
}


@pytest.mark.parametrize(
    ("yaml", "sentence"),
    [
        ("names: [", "data.yaml: not readable as YAML"),
        ("- 3", "data.yaml holds no keys; expected names, train and val"),
        ("train: images", "data.yaml: 'names' is no list of classes"),
        ("names: {cup: 0}\ntrain: images", "data.yaml: 'names' is no list of classes"),
        ("names: [cup]", "data.yaml names no pictures"),
        ("names: [cup]\ntrain: gone", "data.yaml: there is no .*gone; expected a folder of pict"),
        ("names: [cup]\ntrain: images\nkpt_shape: [17, 3]", "data.yaml is of keypoints"),
        (
            "names: [cup, saucer]\ntrain: images\nval: bare/images",
            r"of the pictures of 'val' \(1\) none has labels; expected .*bare/labels/2.txt",
        ),
        ("names: [cup]\ntrain: labels", r"of the pictures of 'train' \(0\) none has labels"),
        *(
            (f"names: [saucer]\ntrain: {name}.txt\nval: images", f"{name}.txt: there is no pict")
            for name in LISTS
        ),
    ],
)
def test_mistakes_in_yolos_data(tmp_path, yaml, sentence):
    (tmp_path / "bare/images").mkdir(parents=True)
    (tmp_path / "bare/images/2.jpg").touch()
    for name, line in LISTS.items():
        (tmp_path / f"{name}.txt").write_text(f"images/1.jpg\n{line}\n")
    with pytest.raises(ValueError, match=sentence):
        folder.read(yolo(tmp_path, OUTLINE, yaml), val_share=0.0)


def test_a_picture_of_a_list_that_has_labels_is_for_the_checks(tmp_path):
    yolo(tmp_path, OUTLINE, "train: all.txt\nnames: [cup, saucer]\n", where="labels/gone.txt")
    (tmp_path / "all.txt").write_text("images/gone.jpg\n")
    (entry,) = folder.read(tmp_path, val_share=0.0).splits["train"]
    assert entry.file_name == "images/gone.jpg"


@pytest.mark.parametrize("form", ["coco", "yolo", "labelme"])
def test_what_a_model_labeled_comes_in_with_the_same_pixels(tmp_path, form):
    rng = np.random.default_rng(3)
    (tmp_path / "images").mkdir()
    labeled = []
    for number in range(2):
        path = tmp_path / "images" / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(path)
        owner = cv2.resize(rng.integers(0, 3, (8, 9), np.uint8), (60, 40), interpolation=0)
        things = tuple(Thing(f"class {i}", f"class {i}", 0.5, owner == i) for i in (1, 2))
        labeled.append(Labeled(path, 40, 60, things))
    FORMATS[form](labeled, Files(tmp_path, overwrite=False), ["class 1", "class 2"])
    entries = folder.read(tmp_path, val_share=0.0).splits["train"]
    assert len(entries) == 4
    for picture in labeled:
        for thing in picture.things:
            (entry,) = (
                e
                for e in entries
                if e.file_name == f"images/{picture.path.name}" and e.expressions == (thing.text,)
            )
            np.testing.assert_array_equal(the_mask(entry, 40, 60), thing.mask)

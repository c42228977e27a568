"""Annotation files, read back by the tools that they are for: the same pixels and classes."""

import json
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools.coco import COCO

from dit_jax.predict.label.formats import FORMATS, Files, check
from dit_jax.predict.label.outlines import outlines
from dit_jax.predict.label.record import Labeled, Thing, resolved

CLASSES = ["car", 'it\'s: a "person"']


def blobs(rng, height, width):
    """Pieces, holes and single pixels."""
    noise = cv2.GaussianBlur(rng.random((height, width), np.float32), (0, 0), rng.uniform(0.5, 3))
    return noise > np.quantile(noise, rng.choice([0.3, 0.6, 0.9]))


@pytest.fixture
def pictures(tmp_path):
    """Three labeled pictures, one of which has nothing in it."""
    rng, found = np.random.default_rng(5), []
    (tmp_path / "images").mkdir()
    for number, (height, width) in enumerate([(60, 83), (131, 47), (20, 20)]):
        path = tmp_path / "images" / f"Photo {number}.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(path)
        things = [
            Thing(CLASSES[i % 2], f"thing {i}", 0.9 - 0.1 * i, blobs(rng, height, width))
            for i in range(3 if number < 2 else 0)
        ]
        found.append(Labeled(path, height, width, tuple(resolved(things))))
    return found


def written(pictures, form, out):
    FORMATS[form](iter(pictures), Files(out, overwrite=False), CLASSES)
    return out


def union(picture, label):
    masks = [thing.mask for thing in picture.things if thing.label == label]
    return np.any([np.zeros((picture.height, picture.width), bool), *masks], axis=0)


def test_outlines_fill_to_the_mask():
    rng = np.random.default_rng(0)
    for _ in range(60):
        mask = blobs(rng, *rng.integers(1, 50, 2))
        filled = np.zeros(mask.shape, np.uint8)
        for outline in outlines(mask):
            cv2.fillPoly(filled, [outline.astype(np.int32)], 1)
        np.testing.assert_array_equal(filled.astype(bool), mask)
    assert outlines(np.zeros((4, 4), bool)) == []
    (square,) = outlines(np.ones((9, 7), bool))
    assert len(square) == 4  # corners alone


def test_coco(pictures, tmp_path):
    coco = COCO(written(pictures, "coco", tmp_path) / "annotations.json")
    assert [row["file_name"] for row in coco.loadImgs([1, 2, 3])] == [
        picture.path.name for picture in pictures
    ]
    assert [row["name"] for row in coco.loadCats([1, 2])] == CLASSES
    for number, picture in enumerate(pictures, start=1):
        found = coco.loadAnns(coco.getAnnIds(imgIds=number))
        assert [(one["caption"], one["score"]) for one in found] == [
            (thing.text, thing.score) for thing in picture.things
        ]
        for one, thing in zip(found, picture.things, strict=True):
            np.testing.assert_array_equal(coco.annToMask(one).astype(bool), thing.mask)
            assert (one["area"], CLASSES[one["category_id"] - 1]) == (
                thing.mask.sum(),
                thing.label,
            )
            rows, columns = np.nonzero(thing.mask)
            assert one["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]


def test_yolo(pictures, tmp_path):
    supervision = pytest.importorskip("supervision")
    out = written(pictures, "yolo", tmp_path)
    data = supervision.DetectionDataset.from_yolo(
        str(tmp_path / "images"), str(out / "labels"), str(out / "data.yaml"), force_masks=True
    )
    assert data.classes == CLASSES
    read = {Path(path).name: found for path, _, found in data}
    for picture in pictures:
        found = read[picture.path.name]
        for label in CLASSES:
            masks = found.mask[found.class_id == CLASSES.index(label)] if len(found) else []
            same = np.any([np.zeros((picture.height, picture.width), bool), *masks], axis=0)
            np.testing.assert_array_equal(same, union(picture, label))


def test_yolo_is_the_same_to_who_cuts_off_fractions(pictures, tmp_path):
    """As Ultralytics reads it: whole numbers by `astype(int)`, then `cv2.fillPoly`."""
    out = written(pictures, "yolo", tmp_path)
    for picture in pictures:
        filled = np.zeros((len(CLASSES), picture.height, picture.width), np.uint8)
        for line in (out / "labels" / f"{picture.path.stem}.txt").read_text().splitlines():
            number, *places = line.split()
            points = np.float32(places).reshape(-1, 2) * [picture.width, picture.height]
            assert len(points) >= 3
            cv2.fillPoly(filled[int(number)], [points.astype(np.int32)], 1)
        for label, layer in zip(CLASSES, filled, strict=True):
            np.testing.assert_array_equal(layer.astype(bool), union(picture, label))
    data = (out / "data.yaml").read_text()
    assert data.startswith(f"path: {out}\ntrain:\n- images\n")


def labelmes_mask(shape, size):
    """As `labelme.utils.shape_to_mask` draws a polygon."""
    mask = Image.new("L", size[::-1])
    points = [tuple(point) for point in shape["points"]]
    ImageDraw.Draw(mask).polygon(points, outline=1, fill=1)
    return np.array(mask, bool)


def test_labelme(pictures, tmp_path):
    out = written(pictures, "labelme", tmp_path / "out")
    for picture in pictures:
        file = out / f"{picture.path.stem}.json"
        document = json.loads(file.read_text())
        assert (file.parent / document["imagePath"]).resolve() == picture.path
        assert (document["imageHeight"], document["imageWidth"]) == (picture.height, picture.width)
        objects = {}
        for shape in document["shapes"]:
            drawn = labelmes_mask(shape, (picture.height, picture.width))
            key = shape["group_id"], shape["label"], shape["description"]
            objects[key] = objects.get(key, False) | drawn
        assert len(objects) == len(picture.things)
        for (_, label, text), thing in zip(objects, picture.things, strict=True):
            assert (label, text) == (thing.label, thing.text)
        for mask, thing in zip(objects.values(), picture.things, strict=True):
            np.testing.assert_array_equal(mask, thing.mask)


def test_labelme_opens_it(pictures, tmp_path):
    """The program itself, which brings Qt."""
    labelme = pytest.importorskip("labelme")
    out = written(pictures, "labelme", tmp_path / "out")
    for picture in pictures:
        read = labelme.LabelFile(str(out / f"{picture.path.stem}.json"))
        assert len(read.image_data) == picture.path.stat().st_size
        assert {shape["label"] for shape in read.shapes} == {t.label for t in picture.things}


def test_voc(pictures, tmp_path):
    out = written(pictures, "voc", tmp_path)
    assert (out / "class_names.txt").read_text().splitlines() == ["_background_", *CLASSES]
    names = (out / "ImageSets/Segmentation/trainval.txt").read_text().splitlines()
    assert names == [picture.path.stem for picture in pictures]
    for picture in pictures:
        layers = []
        for folder in ("SegmentationClass", "SegmentationObject"):
            with Image.open(out / folder / f"{picture.path.stem}.png") as image:
                assert image.mode == "P" and image.getpalette()[:9] == [
                    0,
                    0,
                    0,
                    128,
                    0,
                    0,
                    0,
                    128,
                    0,
                ]
                layers.append(np.array(image))
        for number, label in enumerate(CLASSES, start=1):
            np.testing.assert_array_equal(layers[0] == number, union(picture, label))
        for number, thing in enumerate(picture.things, start=1):
            np.testing.assert_array_equal(layers[1] == number, thing.mask)
        root = ElementTree.parse(out / "Annotations" / f"{picture.path.stem}.xml").getroot()
        assert root.findtext("filename") == picture.path.name
        assert Counter(one.findtext("name") for one in root.iter("object")) == Counter(
            thing.label for thing in picture.things
        )


def test_vocs_boxes(pictures, tmp_path):
    supervision = pytest.importorskip("supervision")
    out = written(pictures, "voc", tmp_path)
    data = supervision.DetectionDataset.from_pascal_voc(
        str(tmp_path / "images"), str(out / "Annotations")
    )
    read = {Path(path).name: found for path, _, found in data}
    for picture in pictures:
        for box, thing in zip(read[picture.path.name].xyxy, picture.things, strict=True):
            rows, columns = np.nonzero(thing.mask)
            corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_array_equal(box, corners)


def test_voc_has_a_limit(tmp_path):
    things = tuple(Thing("car", None, 1.0, np.eye(16, dtype=bool)) for _ in range(255))
    with pytest.raises(
        ValueError, match="a.png has 255 objects; VOC's .* hold at most 254: choose"
    ):
        written([Labeled(tmp_path / "a.png", 16, 16, things)], "voc", tmp_path)
    many = [str(number) for number in range(255)]
    with pytest.raises(ValueError, match="there are 255 classes; VOC's .* hold at most 254: choos"):
        check("voc", many)
    check("voc", [*many[:254], "0"])
    check("coco", many)


def test_what_somebody_worked_on_is_left(pictures, tmp_path):
    out = written(pictures, "labelme", tmp_path / "out")
    written(pictures, "labelme", out)  # says the same
    (out / "Photo 1.json").write_text("mine")
    with pytest.raises(FileExistsError, match="Photo 1.json is there and says something else; ch"):
        written(pictures, "labelme", out)
    assert (out / "Photo 1.json").read_text() == "mine"
    FORMATS["labelme"](pictures, Files(out, overwrite=True), CLASSES)
    assert json.loads((out / "Photo 1.json").read_text())["shapes"]


def square(left, size=4):
    mask = np.zeros((8, 24), bool)
    mask[:size, left : left + size] = True
    return mask


def test_overlaps_go_to_the_better_score():
    cup, plate = Thing("cup", "a", 0.4, square(2)), Thing("plate", "b", 0.9, square(4, size=8))
    best, rest = resolved([cup, plate])
    assert (best.label, rest.label) == ("plate", "cup")
    np.testing.assert_array_equal(best.mask, plate.mask)
    np.testing.assert_array_equal(rest.mask, cup.mask & ~plate.mask)
    assert [one.text for one in resolved([cup, Thing("x", "c", 0.4, square(2))])] == ["a"]


def test_what_is_found_twice_counts_once():
    """Of one class; another class may cover as much as it likes, as long as something is left."""
    one, again = Thing("dog", "a", 0.9, square(0)), Thing("dog", "b", 0.8, square(1))
    beside = Thing("dog", "c", 0.7, square(2))
    assert [thing.text for thing in resolved([one, again])] == ["a"]
    assert [thing.text for thing in resolved([one, beside])] == ["a", "c"]
    assert len(resolved([one, Thing("cat", "b", 0.8, square(1))])) == 2

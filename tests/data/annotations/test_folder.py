"""Own folders: every way to say what is meant, both layouts, and every mistake by file and line."""

import json
from pathlib import Path

import pytest

from dit_jax.data.annotations import folder
from dit_jax.data.annotations.strict_json import SHOWN
from dit_jax.data.entries import MaskFile

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


@pytest.mark.parametrize(
    ("given", "segmentations", "boxes", "size"),
    [
        ({"mask": "masks/a.png"}, (MaskFile(Path("masks/a.png")),), (), None),
        ({"mask": "a.png", "label": 2}, (MaskFile(Path("a.png"), 2),), (), None),
        (
            {"mask": "a.png", "label": [1, "#ff0000"]},
            (MaskFile(Path("a.png"), (1, "#ff0000")),),
            (),
            None,
        ),
        ({"mask": RLE}, (RLE,), (), (4, 6)),
        ({"mask": {"size": [4, 6], "counts": "11g0"}}, None, (), (4, 6)),
        ({"polygon": [0, 0, 5, 0, 5, 3]}, ([[0, 0, 5, 0, 5, 3]],), (), None),
        ({"polygon": [[0, 0, 5, 0, 5, 3]]}, ([[0, 0, 5, 0, 5, 3]],), (), None),
        (
            {"polygon": [[0, 0, 5, 0, 5, 3], [1, 1, 2]]},
            ([[0, 0, 5, 0, 5, 3], [1, 1, 2]],),
            (),
            None,
        ),
        ({"box": [1, 2.5, 3, 4]}, ((1.0, 2.5, 3.0, 4.0),), ((1.0, 2.5, 3.0, 4.0),), None),
        ({"mask": None}, (), (), None),
    ],
)
def test_ways_to_say_what_is_meant(tmp_path, given, segmentations, boxes, size):
    value = {"image": "p/a.jpg", "text": ["the cup", "left cup"], **given}
    found = folder.read(lines(tmp_path, value))
    (entry,) = found.splits["train"]
    if segmentations is None:
        segmentations = (given["mask"],)
    elif segmentations and isinstance(segmentations[0], MaskFile):
        (file,) = segmentations
        segmentations = (MaskFile(tmp_path / file.path, file.label),)
    assert (entry.segmentations, entry.boxes, entry.size) == (segmentations, boxes, size)
    assert (entry.name, entry.split) == ("train.jsonl line 1", "train")
    assert (entry.file_name, entry.image_id, entry.ann_ids) == ("p/a.jpg", None, ())
    assert entry.expressions == ("the cup", "left cup") and entry.sent_ids == (0, 1)
    assert found.dataset == f"folder({tmp_path.name})" and found.images == tmp_path
    assert found.sources == {"train": tmp_path / "train.jsonl"}


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


def test_what_editors_write(tmp_path):
    """A byte-order mark, blank lines, Windows line ends, a last line without one, other scripts."""
    text = '\ufeff\r\n{"image": "für.jpg", "text": "die Tasse 杯\u2028", "mask": null}\r\n \r\n'
    text += json.dumps(LINE)
    (tmp_path / "train.jsonl").write_bytes(text.encode())
    first, last = folder.read(tmp_path).splits["train"]
    assert (first.file_name, first.expressions) == ("für.jpg", ("die Tasse 杯\u2028",))
    assert (first.name, last.name) == ("train.jsonl line 2", "train.jsonl line 4")


def test_paths(tmp_path):
    """Inside the folder they are relative to it, so a folder can be moved."""
    names = ["x/../a.jpg", "./b c.jpg", f"{tmp_path}/d/e.jpg", "/elsewhere/f.jpg", "..g/h.jpg"]
    found = folder.read(lines(tmp_path, *(LINE | {"image": name} for name in names)))
    assert [entry.file_name for entry in found.splits["train"]] == [
        "a.jpg",
        "b c.jpg",
        "d/e.jpg",
        "/elsewhere/f.jpg",
        "..g/h.jpg",
    ]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{'image': 1}", "not JSON: Expecting property name .* at character 2."),
        ('{"image": "a.jpg"', "not JSON: Expecting ',' delimiter at character 18."),
        ("3", "found 3; expected an object"),
        ("[" * 100_000, "not usable JSON: brackets are nested too deeply."),
        (json.dumps(LINE)[:-1] + ', "text": "b"}', "the key 'text' is given twice."),
        (LINE | {"box": [1, 2, float("nan"), 4]}, "NaN is no number in JSON"),
        (LINE | {"box": [1, 2, float("inf"), 4]}, "Infinity is no number in JSON"),
        ('{"box": [1e999, 0, 1, 1]}', "the number 1e999 is too large."),
        ('{"id": 99999999999999999999}', "the number 99999999999999999999 … is too large."),
        ({"image": "a.jpg", "mask": None}, "'text' is missing; expected the keys image, text and"),
        ({"text": "a", "mask": None}, "'image' is missing"),
        (LINE | {"masks": 1}, "unknown key 'masks'; the nearest valid key is 'mask'."),
        (LINE | {"image": 5}, "'image' is 5; expected text in quotes."),
        (LINE | {"image": " "}, "'image' is empty; expected the path"),
        (LINE | {"image": "p\\a.jpg"}, r"'image' is \"p\\\\a.jpg\"; expected a path with /"),
        (LINE | {"image": "x/../../a.jpg"}, r"\"x/../../a.jpg\", which leaves the folder"),
        (LINE | {"text": {"en": "cup"}}, "'text' is .*; expected text or a list of texts."),
        (LINE | {"text": ["cup", 3]}, r"'text\[1\]' is 3; expected text in quotes."),
        ('{"image": "a", "text": "\\ud800", "mask": null}', "'text' is .*holds half a character."),
        ({"image": "a.jpg", "text": "a"}, r"none is given; expected exactly one of 'mask', 'poly"),
        (LINE | {"mask": None}, "'mask' and 'box' are given; expected exactly one of"),
        (LINE | {"id": None}, "'id' is null; expected a whole number or text."),
        (LINE | {"id": True}, "'id' is true; expected a whole number or text."),
        (LINE | {"split": "dev"}, "'split' is \"dev\"; expected train, val or test"),
        (LINE | {"split": "val"}, "'split' is \"val\", but all of this file is train."),
    ],
)
def test_mistakes_in_a_line(tmp_path, line, sentence):
    lines(tmp_path, LINE, "", line, LINE | {"text": "b"})
    with pytest.raises(ValueError, match=r"^train\.jsonl line 3: .*" + sentence):
        folder.read(tmp_path)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"box": [1, 2, 3]}, r"'box' is \[1, 2, 3\]; expected \[x, y, width, height\] in pixels"),
        ({"box": [1, 2, 0, 4]}, "width and height above 0."),
        ({"box": [1, 2, "3", 4]}, "'box' is .*; expected"),
        ({"box": [1, 2, True, 4]}, "'box' is .*; expected"),
        ({"box": None}, "'box' is null; expected"),
        ({"polygon": None}, "'polygon' is null; expected numbers"),
        ({"polygon": []}, r"'polygon' is \[\]; expected numbers"),
        ({"polygon": [[]]}, "expected numbers"),
        ({"polygon": [[0, 0, 1, 0, "1", 1]]}, "expected numbers"),
        ({"polygon": [[0, 0, 1, 0, 1, 1], 3]}, "expected numbers"),
        ({"polygon": [[0, 0], [1, 0], [1, 1]]}, "'polygon' is a list of points; expected their"),
        ({"mask": 3}, "'mask' is 3; expected the path of a PNG, COCO run lengths"),
        ({"mask": ""}, "'mask' is empty; expected the path"),
        ({"mask": "../a.png"}, "which leaves the folder"),
        ({"mask": None, "label": 1}, "'label' is given; expected it beside the path of a mask pic"),
        ({"mask": RLE, "label": 1}, "'label' is given; expected it beside the path of a mask pict"),
        ({"box": [1, 2, 3, 4], "label": 1}, "'label' is given; expected it beside the path of a"),
        ({"mask": "a.png", "label": []}, "'label' is an empty list; expected a value of the mask"),
        ({"mask": "a.png", "label": "red"}, "'label' is \"red\"; expected a value of the mask pic"),
        ({"mask": "a.png", "label": [1, 2.5]}, r"'label' is \[1, 2.5\]; expected a value of the"),
        ({"mask": "a.png", "label": True}, "'label' is true; expected a value of the mask picture"),
        ({"mask": {"size": [4, 6]}}, "'mask' has no 'counts'; expected size and counts."),
        ({"mask": RLE | {"count": 1}}, "unknown key 'count'; the nearest valid key is 'counts'."),
        ({"mask": RLE | {"size": 24}}, r"'size' of 'mask' is 24; expected \[height, width\]."),
        ({"mask": RLE | {"size": [4.0, 6]}}, "'mask.size' is 4.0; expected a whole number of pix"),
        ({"mask": RLE | {"counts": None}}, "'counts' of 'mask' is null; expected text or a list."),
    ],
)
def test_mistakes_in_what_is_meant(tmp_path, given, sentence):
    lines(tmp_path, {"image": "a.jpg", "text": "the cup", **given}, name="val.jsonl")
    with pytest.raises(ValueError, match=r"^val\.jsonl line 1: .*" + sentence):
        folder.read(tmp_path)


def test_duplicates(tmp_path):
    values = [LINE | {"id": 1}, LINE | {"id": 1, "text": "a"}, LINE | {"id": 2}]
    with pytest.raises(ValueError) as caught:
        folder.read(lines(tmp_path, *values))
    assert str(caught.value).splitlines() == [
        f"{tmp_path / 'train.jsonl'} has 2 mistakes:",
        "  train.jsonl line 2: the id 1 is that of line 1 already.",
        "  train.jsonl line 3: says the same as line 1; delete one of them.",
    ]
    folder.read(lines(tmp_path, LINE, LINE | {"text": "another cup"}))  # the same object: fine


def test_the_first_mistakes_are_spelt_out(tmp_path):
    lines(tmp_path, *({"image": f"{i}.jpg"} for i in range(SHOWN + 3)))
    with pytest.raises(ValueError) as caught:
        folder.read(tmp_path)
    said = str(caught.value).splitlines()
    assert said[0].endswith("train.jsonl has 8 mistakes:") and said[-1] == "  and 3 more."
    assert said[SHOWN].startswith(f"  train.jsonl line {SHOWN}: 'text' is missing")
    assert len(said) == SHOWN + 2


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b'{"image": "f\xfcr.jpg"}', r"train.jsonl line 1: byte 0xfc at position 13 is not UTF-8"),
        ('{"image": "a"}'.encode("utf-16"), "train.jsonl is UTF-16; expected UTF-8."),
        (b'[{"image": "a.jpg"}]', "train.jsonl is one JSON document; expected one object"),
        (b'\n{\n  "image": "a.jpg"\n}', "train.jsonl is one JSON document; expected one object"),
        (b"\n \r\n", "train.jsonl is empty; expected at least one referring example."),
    ],
)
def test_files_that_are_something_else(tmp_path, data, sentence):
    (tmp_path / "train.jsonl").write_bytes(data)
    with pytest.raises(ValueError, match=sentence):
        folder.read(tmp_path)


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

"""One odd annotation among good ones: understood with a remark, or left out by itself and named."""

import json

import cv2
import numpy as np
import pytest
import refer_folders

from dit_jax.data import records
from dit_jax.data.annotations import folder, refer
from dit_jax.data.annotations.strict_json import UNREADABLE
from dit_jax.data.entries import Reading
from dit_jax.data.prepare import main, prepare

SQUARE = [[10, 10, 20, 10, 20, 20, 10, 20]]


def image(number=1, **changes):
    return {"id": number, "file_name": f"{number}.png", "height": 48, "width": 64} | changes


def annotation(number, **changes):
    sound = {"id": number, "image_id": 1, "caption": f"thing {number}", "segmentation": SQUARE}
    return sound | {"bbox": [10, 10, 10, 10]} | changes


def coco(root, *odd, images=(), text=lambda text: text):
    """Two good annotations of picture 1, and what is odd beside them."""
    for number in (1, 2):
        cv2.imwrite(str(root / f"{number}.png"), np.zeros((48, 64, 3), np.uint8))
    document = {
        "images": [*images, *([] if images else [image()]), image(2)],
        "annotations": [annotation(1), annotation(2), *odd],
    }
    (root / "train.json").write_text(text(json.dumps(document)))
    return root


NOT_A_NUMBER = {"text": lambda text: text.replace('"@"', "NaN").replace('"@@"', "1e999")}
# What is only written in another form: all of it is read.
UNDERSTOOD = {
    "a height of 48.0": ([annotation(3)], {"images": [image(height=48.0)]}, "read as 48."),
    "a height of '48'": ([annotation(3)], {"images": [image(height="48")]}, "read as 48."),
    "a picture's id as text": (
        [annotation(3, image_id="1")],
        {},
        "'image_id' is \"1\"; the picture of id 1 is meant.",
    ),
    "a picture's id as 1.0": ([annotation(3, image_id=1.0)], {}, "the picture of id 1 is meant."),
    "an id of 3.0": ([annotation(3.0, caption="thing 3")], {}, ""),
    "a box of zeros beside a polygon": (
        [annotation(3, bbox=[0, 0, 0, 0])],
        {},
        "'bbox' is [0, 0, 0, 0]; expected",
    ),
    "a box of text beside a polygon": ([annotation(3, bbox="x")], {}, "The segmentation is meant."),
    "an empty part beside a polygon": ([annotation(3, segmentation=[*SQUARE, []])], {}, ""),
    "an empty part beside a box": ([annotation(3, segmentation=[[]])], {}, ""),
    "NaN where nobody looks": ([annotation(3, area="@")], NOT_A_NUMBER, ""),
    "infinity where nobody looks": ([annotation(3, area="@@")], NOT_A_NUMBER, ""),
    "a number of 400 digits": ([annotation(3, score=10**400)], {}, ""),
    "more keys in run lengths": (
        [annotation(3, segmentation={"size": [48, 64], "counts": [9, 5, 3058], "order": "F"})],
        {},
        "",
    ),
    "a broken picture that nobody mentions": (
        [annotation(3)],
        {"images": [image(), image(9, file_name="a\\b.png"), {"id": 8}]},
        "",
    ),
}
# What cannot be read: left out by itself.
LEFT_OUT = {
    "a box of zeros alone": ([annotation(3, segmentation=[], bbox=[0, 0, 0, 0])], {}, "'bbox' is"),
    "a polygon of NaN": (
        [annotation(3, segmentation=[["@", 1, 9, 1, 9, 9]])],
        NOT_A_NUMBER,
        "'segmentation' is [[NaN, 1, 9, 1, 9, 9]]; expected numbers",
    ),
    "a box of infinity": (
        [annotation(3, segmentation=None, bbox=[1, 1, "@@", 4])],
        NOT_A_NUMBER,
        "'bbox' is [1, 1, Infinity, 4]; expected",
    ),
    "an id that repeats": ([annotation(2)], {}, "the id 2 is that of another annotation already."),
    "no such picture": ([annotation(3, image_id=99)], {}, "no picture has the id 99."),
    "two captions": ([annotation(3, text="x")], {}, "'caption' and 'text' are given"),
    "a caption of numbers": ([annotation(3, caption=5)], {}, "'caption' is 5; expected text"),
    "no object": ([7], {}, "found 7; expected an object"),
    "a key that is there twice": (
        [annotation(3, note="@")],
        {"text": lambda text: text.replace('"note"', '"bbox"')},
        "the key 'bbox' is given twice.",
    ),
    "an id beyond 64 bits": ([annotation(10**30)], {}, "'id' is 10000"),
}
# What reads well and says too little: the checks find it, with the same consequence.
SAYS_NOTHING = {
    "caption null": [annotation(3, caption=None)],
    "an empty caption": [annotation(3, caption="")],
    "a point as polygon": [annotation(3, segmentation=[[5, 5, 5, 5, 5, 5]])],
    "a polygon far away": [annotation(3, segmentation=[[700, 500, 800, 500, 800, 600]])],
}


@pytest.mark.parametrize("case", UNDERSTOOD)
def test_another_form_is_understood_with_a_remark(tmp_path, case):
    odd, changes, text = UNDERSTOOD[case]
    found = folder.read(coco(tmp_path, *odd, **changes))
    entries = found.splits["train"]
    assert [entry.expressions for entry in entries] == [(f"thing {n}",) for n in (1, 2, 3)]
    assert {entry.size for entry in entries} == {(48, 64)} and found.left_out == ()
    assert text in " ".join(remark.text for remark in found.remarks)
    assert (
        len(
            records.Records(
                prepare("folder", "", source=tmp_path, out_dir=tmp_path / "out"), "train"
            )
        )
        == 3
    )


@pytest.mark.parametrize("case", LEFT_OUT)
def test_what_cannot_be_read_stops_or_is_left_out_alone(tmp_path, case, capsys):
    odd, changes, text = LEFT_OUT[case]
    coco(tmp_path, *odd, **changes)
    with pytest.raises(ValueError) as caught:
        folder.read(tmp_path)
    assert str(caught.value).startswith(f"train.json annotations[2]: {text}")
    found = folder.read(tmp_path, skip=True)
    assert [entry.ann_ids for entry in found.splits["train"]] == [(1,), (2,)]
    (note,) = found.left_out
    assert (note.kind, note.name) == (UNREADABLE, "train.json annotations[2]")
    arguments = ["--dataset=folder", f"--source={tmp_path}", f"--out={tmp_path / 'out'}"]
    assert main(arguments) == 1 and text in capsys.readouterr().err
    assert main([*arguments, "--on-error=skip"]) == 0
    assert note.text[:60] in capsys.readouterr().out
    (built,) = (tmp_path / "out").glob("folder_*")
    (left_out,) = records.manifest(built)["left_out"]
    assert left_out == {"record": note.name, "reason": note.text}
    assert main(arguments) == 0  # the records are there, and were built of this file
    assert prepare("folder", "", source=tmp_path, out_dir=tmp_path / "out") == built


@pytest.mark.parametrize("case", SAYS_NOTHING)
def test_what_says_nothing_is_left_out_alone(tmp_path, case):
    coco(tmp_path, *SAYS_NOTHING[case])
    how = dict(source=tmp_path, out_dir=tmp_path / "out")
    with pytest.raises(ValueError, match="the first: train.json annotation 3: "):
        prepare("folder", "", **how)
    path = prepare("folder", "", **how, on_error="skip")
    assert len(records.Records(path, "train")) == 2
    (left_out,) = records.manifest(path)["left_out"]
    assert left_out["record"] == "train.json annotation 3"


@pytest.mark.parametrize(
    ("images", "text"),
    [
        ([image(height=-1)], "'height' is -1; expected a whole number of pixels above 0."),
        ([{"id": 1}], "'file_name' is missing; expected the keys id and file_name."),
        ([image(file_name="a\\b.png")], "'file_name' is \"a\\\\b.png\"; expected a path with /"),
    ],
)
def test_a_wrong_picture_is_one_mistake(tmp_path, images, text):
    """Not one for each of its annotations, which are left out with it."""
    other = annotation(3, image_id=2)
    coco(tmp_path, other, images=images)
    with pytest.raises(ValueError) as caught:
        folder.read(tmp_path)
    assert str(caught.value).startswith(f"train.json images[0]: {text}")
    assert str(caught.value).endswith(" (2 annotations)")
    found = folder.read(tmp_path, skip=True)
    assert [entry.ann_ids for entry in found.splits["train"]] == [(3,)]
    assert [note.name for note in found.left_out] == ["train.json images[0]"]


def test_pictures_of_one_id_are_told_apart_by_nobody(tmp_path):
    other = annotation(3, image_id=2)
    twice = [image(), image(1, file_name="2.png")]
    found = folder.read(coco(tmp_path, other, images=twice), skip=True)
    assert [entry.ann_ids for entry in found.splits["train"]] == [(3,)]
    (note,) = found.left_out
    assert note.text == "the id 1 is that of another picture already. (2 annotations)"
    found = folder.read(coco(tmp_path, other, images=[image(), image()]), skip=True)
    assert len(found.splits["train"]) == 3 and len(found.left_out) == 1  # the same picture


def test_a_file_that_is_left_out_altogether_is_an_error(tmp_path):
    coco(tmp_path, images=[image(height="x")])
    with pytest.raises(ValueError, match=r"^train.json images\[0\]: 'height' is \"x\""):
        folder.read(tmp_path, skip=True)
    (tmp_path / "train.json").write_text('{"images": [')
    with pytest.raises(ValueError, match="^train.json: not JSON"):
        folder.read(tmp_path, skip=True)


@pytest.mark.parametrize("iscrowd", [1, "1", 1.0, True])
def test_a_crowd_in_another_form(tmp_path, iscrowd):
    coco(tmp_path, annotation(3, iscrowd=iscrowd), annotation(4, iscrowd="0"))
    kept = folder.read(tmp_path).splits["train"]
    assert [entry.crowds for entry in kept] == [(), (), (True,), ()]


def test_a_crowd_of_an_own_file_counts_or_is_left_out(tmp_path):
    coco(tmp_path, annotation(3, iscrowd=1))
    how = dict(source=tmp_path, out_dir=tmp_path / "out")
    kept = folder.read(tmp_path).splits["train"]
    assert [entry.crowds for entry in kept] == [(), (), (True,)]
    path = prepare("folder", "", **how, reading=Reading(crowds="drop"))
    assert len(records.Records(path, "train")) == 2
    (remark,) = records.manifest(path)["remarks"]
    assert remark.startswith("crowds that are left out: train.json annotation 3: nothing else is")


def test_lines_are_left_out_likewise(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((48, 64, 3), np.uint8))
    good = {"image": "a.png", "polygon": SQUARE}
    odd = [
        '{"image"',
        '{"image": NaN}',
        json.dumps(good),
        json.dumps(good | {"text": "1", "box": [1]}),
    ]
    lines = [*odd, *(json.dumps(good | {"text": text}) for text in ("1", "2", "1"))]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="train.jsonl has 5 mistakes:"):
        folder.read(tmp_path)
    path = prepare("folder", "", source=tmp_path, out_dir=tmp_path / "out", on_error="skip")
    assert [record.expressions for record in map(records.Records(path, "train").truth, (0, 1))] == [
        ("1",),
        ("2",),
    ]
    left_out = records.manifest(path)["left_out"]
    assert [one["record"] for one in left_out] == [f"train.jsonl line {n}" for n in (1, 2, 3, 4, 7)]


def test_published_files_are_read_without_what_contradicts_itself(tmp_path):
    root = refer_folders.write(tmp_path, "refcoco", "unc", {"train": (1, 1, 2), "val": (3,)})
    file = root / "refcoco/instances.json"
    instances = json.loads(file.read_text())
    del instances["annotations"][0]["segmentation"]
    instances["annotations"][1]["image_id"] = 77
    file.write_text(json.dumps(instances))
    with pytest.raises(ValueError, match=r"wrong records of .*instances.json \(1\):"):
        refer.read("refcoco", "unc", source=root)
    found = refer.read("refcoco", "unc", source=root, skip=True)
    assert [entry.ref_id for part in found.splits.values() for entry in part] == [1002, 1003]
    assert [note.name.split("/")[-1] for note in found.left_out] == [
        "annotations[0]",
        "refcoco(unc) train ref_id 1000",
        "refcoco(unc) train ref_id 1001",
    ]


def test_of_pictures_of_one_name_the_splits_own_is_read(tmp_path):
    """CVAT numbers the pictures of every split alike."""
    document = {"images": [image(file_name="1.png")], "annotations": [annotation(1)]}
    for split in ("train", "val"):
        (tmp_path / f"{split}.json").write_text(json.dumps(document))
    places = ("images/train", "train", "images/val", "images", "")
    for number, place in enumerate(places):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / place / "1.png"), np.full((48, 64, 3), number, np.uint8))
    found = folder.read(tmp_path)
    assert {split: one.file_name for split, (one,) in found.splits.items()} == {
        "train": "images/train/1.png",
        "val": "images/val/1.png",
    }
    assert [(note.kind, note.name, note.text) for note in found.remarks] == [
        (
            "pictures of one name",
            "train.json images[0]",
            "images/train/1.png is read, and not train/1.png or images/1.png or 1.png.",
        ),
        (
            "pictures of one name",
            "val.json images[0]",
            "images/val/1.png is read, and not images/1.png or 1.png.",
        ),
    ]
    document["images"][0]["file_name"] = "train/1.png"
    (tmp_path / "train.json").write_text(json.dumps(document))
    (tmp_path / "val.json").unlink()
    (tmp_path / "train/1.png").unlink()
    found = folder.read(tmp_path)
    assert found.splits["train"][0].file_name == "images/train/1.png" and not found.remarks

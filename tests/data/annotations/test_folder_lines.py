"""Own folders of JSON lines: every way to say what is meant, and every mistake by file and line."""

import json
from pathlib import Path

import pytest
from own_folders import LINE, RLE, lines

from dit_jax.data.annotations import folder
from dit_jax.data.annotations.strict_json import SHOWN
from dit_jax.data.entries import MaskFile


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

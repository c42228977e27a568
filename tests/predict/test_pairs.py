"""Lines that say what `--mode=predict` is asked."""

import json

import pytest

from dit_jax.predict import pairs


def read(folder, line):
    (folder / "pairs.jsonl").write_text(json.dumps(line) + "\n")
    return pairs.read(folder / "pairs.jsonl")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ({"text": "x"}, "line 1: 'image' is missing; expected the path of a picture"),
        ({"image": "", "text": "x"}, "line 1: 'image' is \"\"; expected the path of a picture"),
        ({"image": "a.png", "mask": "b.png"}, "unknown key 'mask'; the nearest valid key is 'im"),
        ({"image": "a.png", "box": [1, 2, 3, 4]}, "unknown key 'box'"),
        ({"image": "a.png", "text": []}, "'text' is an empty list"),
        ({"image": "a.png", "text": 3}, "'text' is 3; expected text or a list of texts"),
        (
            {"image": "a.png", "prompt": {"point": []}},
            "unknown key 'point'; the nearest .*'points'",
        ),
        ({"image": "a.png", "text": ["a", "b"], "sent_id": 3}, "'sent_id' numbers one expression"),
        (
            {"image": "a.png", "text": "a", "index": "3"},
            "'index' is \"3\"; expected a whole number",
        ),
        ({"image": "a.png", "text": "a", "truth": [3]}, r"found \[3\]; expected an object"),
        (["a.png"], r"found \[\"a.png\"\]; expected an object"),
        ({"image": "a.png", "prompt": {"units": "%"}}, "'units' is \"%\"; expected pixel or fract"),
        (
            {"image": "a.png", "prompt": {"box": [0, 0, 9, 9], "box_xywh": [0, 0, 9, 9]}},
            "'box' and 'box_xywh' are given; expected exactly one of 'box', 'box_xywh', 'box_xyxy'",
        ),
        (
            {"image": "a.png", "prompt": {"multimask": 1}},
            "'multimask' is 1; expected true or false",
        ),
        (
            {"image": "a.png", "prompt": {"mask": 3}},
            "'mask' is 3; expected the path of a PNG, COCO",
        ),
        (
            {"image": "a.png", "prompt": {"mask": "../b.png"}},
            "'mask' is .*, which leaves the folder",
        ),
        (
            {"image": "a.png", "prompt": {"box_xyxy": [9, 9, 3, 20]}},
            r"'box_xyxy' is \[9, 9, 3, 20\]; expected corners \[x0, y0, x1, y1\] in pixels, x0 b",
        ),
    ],
)
def test_mistakes_of_pairs(tmp_path, line, sentence):
    with pytest.raises(ValueError, match=sentence):
        read(tmp_path, line)


@pytest.mark.parametrize(
    ("prompt", "box", "units"),
    [
        ({"box": [2, 3, 30, 40]}, [2, 3, 30, 40], "pixel"),
        ({"box_xyxy": [2, 3, 30, 40]}, (2, 3, 30, 40), "pixel"),
        ({"box_xywh": [2, 3, 28, 37]}, (2, 3, 30, 40), "pixel"),
        ({"box_cxcywh": [16, 20, 28, 30]}, (2, 5, 30, 35), "pixel"),
        (
            {"box_xywh": [0.25, 0.5, 0.5, 0.25], "units": "fraction"},
            (0.25, 0.5, 0.75, 0.75),
            "fraction",
        ),
        (
            {"box": [0.25, 0.5, 0.75, 0.75], "units": "fraction"},
            [0.25, 0.5, 0.75, 0.75],
            "fraction",
        ),
    ],
)
def test_a_key_says_what_the_numbers_of_a_box_are(tmp_path, prompt, box, units):
    line = {"image": "a.png", "text": "x", "prompt": prompt}
    (task,) = read(tmp_path, line)
    assert (task.boxes, task.units) == ((box,), units)

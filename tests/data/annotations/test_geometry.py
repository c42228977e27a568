"""Boxes and polygons in the conventions that people have: the mask that is meant, or a sentence."""

import json

import cv2
import numpy as np
import pytest

from dit_jax.data import records
from dit_jax.data.entries import Reading
from dit_jax.data.prepare import main, prepare

HEIGHT, WIDTH = 100, 200
CORNERS, SIZE, CENTRE = [100, 20, 160, 90], [100, 20, 60, 70], [130, 55, 60, 70]
RECTANGLE = np.zeros((HEIGHT, WIDTH), bool)
RECTANGLE[20:90, 100:160] = True
AROUND = [100, 20, 160, 20, 160, 90, 100, 90]


def fractions(numbers):
    return [number / (HEIGHT if i % 2 else WIDTH) for i, number in enumerate(numbers)]


def lines(root, *meant):
    cv2.imwrite(str(root / "1.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    values = [{"image": "1.png", "text": f"thing {i}", **one} for i, one in enumerate(meant)]
    (root / "train.jsonl").write_text("".join(json.dumps(value) + "\n" for value in values))
    return root


def coco(root, *meant):
    cv2.imwrite(str(root / "1.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    annotations = [
        {"id": i, "image_id": 1, "caption": f"thing {i}", **one} for i, one in enumerate(meant)
    ]
    images = [{"id": 1, "file_name": "1.png", "height": HEIGHT, "width": WIDTH}]
    document = {"images": images, "annotations": annotations}
    (root / "train.json").write_text(json.dumps(document))
    return root


def built(root, **reading):
    path = prepare("folder", "", source=root, out_dir=root / "out", reading=Reading(**reading))
    source = records.Records(path, "train")
    return [source.truth(i).mask for i in range(len(source))], records.manifest(path)["remarks"]


FORMS = [
    {"box_xyxy": CORNERS},
    {"box_xywh": SIZE},
    {"box_cxcywh": CENTRE},
]


@pytest.mark.parametrize("write", [lines, coco])
def test_a_key_says_what_the_numbers_of_a_box_are(tmp_path, write):
    plain = {"bbox" if write is coco else "box": SIZE}
    masks, remarks = built(write(tmp_path, plain, *FORMS))
    assert len(masks) == 4 and remarks == []
    for mask in masks:
        np.testing.assert_array_equal(mask, RECTANGLE)


@pytest.mark.parametrize("write", [lines, coco])
def test_fractions_are_read_where_they_are_announced(tmp_path, write):
    """YOLO's boxes and polygons."""
    forms = [{key: fractions(box) for key, box in form.items()} for form in FORMS]
    polygon = {"segmentation" if write is coco else "polygon": [fractions(AROUND)]}
    masks, remarks = built(write(tmp_path, *forms, polygon), units="fraction")
    assert len(masks) == 4 and remarks == []
    for mask in masks:
        np.testing.assert_array_equal(mask, RECTANGLE)


@pytest.mark.parametrize(
    "meant",
    [
        {"polygon": fractions(AROUND)},
        {"polygon": [fractions(AROUND), [0, 0, 1, 0, 1, 1]]},
        {"box": fractions(SIZE)},
        {"box_xyxy": fractions(CORNERS)},
        {"box": [0, 0, 1, 1]},
        {"polygon": [0, 0, 1.001, 0, 1.001, 1, 0, 1]},
    ],
)
def test_fractions_are_not_taken_for_pixels(tmp_path, meant, capsys):
    """They were a mask of one pixel, and nothing was said."""
    lines(tmp_path, {"box": SIZE}, meant)
    with pytest.raises(ValueError, match="looks like fractions of the picture, because all its n"):
        built(tmp_path)
    arguments = ["--dataset=folder", f"--source={tmp_path}", f"--out={tmp_path / 'out'}"]
    assert main([*arguments, "--on-error=skip"]) == 0
    assert "masks that cannot be used: 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("meant", "sentence"),
    [
        ({"polygon": AROUND}, "expected fractions of the picture, from 0 to 1, because units=frac"),
        ({"box_xywh": SIZE}, "expected fractions of the picture"),
        ({"box": fractions(SIZE)}, "of fractions expected box_xywh, box_xyxy, box_cxcywh, which"),
    ],
)
def test_pixels_are_not_taken_for_fractions(tmp_path, meant, sentence):
    with pytest.raises(ValueError, match=f"^train.jsonl line 1: .*{sentence}"):
        built(lines(tmp_path, meant), units="fraction")


def test_units_are_part_of_what_records_are(tmp_path, capsys):
    lines(tmp_path, {"box_xywh": fractions(SIZE)})
    arguments = ["--dataset=folder", f"--source={tmp_path}", f"--out={tmp_path / 'out'}"]
    assert main([*arguments, "--units=fraction"]) == 0
    assert "--config.data.units=fraction" in capsys.readouterr().out
    assert main(arguments) == 1
    assert "was built with units=fraction, and units=pixel is asked" in capsys.readouterr().err


@pytest.mark.parametrize("write", [lines, coco])
def test_corners_are_not_taken_for_a_size(tmp_path, write, capsys):
    """Where they cannot be one; skipping would leave the others in, wrong."""
    key = "bbox" if write is coco else "box"
    write(tmp_path, {key: CORNERS}, {key: [10, 10, 60, 50]})
    arguments = ["--dataset=folder", f"--source={tmp_path}", f"--out={tmp_path / 'out'}"]
    for more in ([], ["--on-error=skip"]):
        assert main([*arguments, *more]) == 1
        said = capsys.readouterr()
        assert "boxes that look like corners" in said.err
        assert "1 of 2 boxes leave their pictures as x, y, width, height, such as" in said.out
    write(tmp_path, {key: CORNERS}, {key: [110, 10, 60, 50]})  # the other one cannot be corners
    assert main([*arguments, "--on-error=skip"]) == 0
    said = capsys.readouterr().out
    assert "leaves the picture as x, y, width, height, and not as corners; expected box_xyx" in said


def test_what_is_beyond_the_border_is_cut_and_said(tmp_path):
    half = {"box": [-0.6, 20, 60.6, 80.9]}  # less than a pixel: nothing to say
    masks, remarks = built(
        lines(
            tmp_path, half, {"box_xywh": CORNERS}, {"polygon": [-9, 20, 60, 20, 60, 120, -9, 120]}
        )
    )
    expected = np.zeros((3, HEIGHT, WIDTH), bool)
    expected[0, 20:, :60] = expected[1, 20:, 100:] = expected[2, 20:, :60] = True
    np.testing.assert_array_equal(masks, expected)
    box, polygon = remarks
    assert box.startswith("boxes off their picture: train.jsonl line 2: the box x 100, y 20,")
    assert polygon.startswith("polygons off their picture: train.jsonl line 3: the polygon reaches")


RING = [[20, 20, 80, 20, 80, 80, 20, 80], [40, 40, 60, 40, 60, 60, 40, 60]]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (RING, "polygon part 2 of 2 lies inside part 1 and adds nothing; is it a hole?"),
        (RING[::-1], "polygon part 1 of 2 lies inside part 2 and adds nothing"),
        ([RING[0], RING[0]], "polygon part 2 of 2 lies inside part 1"),
        ([RING[0], [90, 20, 99, 20, 99, 30], RING[1]], "polygon part 3 of 3 lies inside part 1"),
        ([RING[0], [60, 20, 99, 20, 99, 30]], ""),
        ([RING[0]], ""),
    ],
)
def test_a_part_inside_another_is_no_hole(tmp_path, parts, said):
    """COCO's union stays; that it may have been meant otherwise is said."""
    (mask,), remarks = built(lines(tmp_path, {"polygon": parts}))
    assert mask[20:80, 20:80].all()
    assert [said in remark for remark in remarks] == ([True] if said else [])

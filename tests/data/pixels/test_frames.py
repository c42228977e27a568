"""Pictures that EXIF turns: masks lie where they were drawn, in every form of annotation."""

import io
import json

import numpy as np
import pytest
import refer_folders
from PIL import Image
from pycocotools import mask as rle

from dit_jax.data import records
from dit_jax.data.annotations import refer
from dit_jax.data.check import check
from dit_jax.data.entries import Reading
from dit_jax.data.from_pillow import turned
from dit_jax.data.pixels.pictures import rgb
from dit_jax.data.prepare import main, prepare

HEIGHT, WIDTH = 60, 100  # of the stored picture
BOX = (20, 5, 25, 20)  # x, y, width, height of the red object in it


def stored():
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    x, y, width, height = BOX
    pixels[y : y + height, x : x + width] = (255, 0, 0)
    return pixels


def encoded(kind, orientation):
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(stored()).save(
        file, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {})
    )
    return file.getvalue()


def red(pixels):
    return (pixels[..., 0] > 128) & (pixels[..., 1] < 100)


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def forms(mask, folder):
    """An object in every form of a line."""
    Image.fromarray(mask).save(folder / "mask.png")
    lengths = rle.encode(np.asfortranarray(mask, np.uint8))
    x, y, width, height = map(int, rle.toBbox(lengths))
    right, bottom = x + width, y + height
    return [
        {"polygon": [x, y, right, y, right, bottom, x, bottom]},
        {"box": [x, y, width, height]},
        {"box_xyxy": [x, y, right, bottom]},
        {"mask": "mask.png"},
        {"mask": {"size": lengths["size"], "counts": lengths["counts"].decode()}},
    ]


def own(folder, meant, *, kind="JPEG", orientation=6):
    folder.mkdir(exist_ok=True)
    (folder / "a.jpg").write_bytes(encoded(kind, orientation))
    lines = [{"image": "a.jpg", "text": f"the red thing {i}", **m} for i, m in enumerate(meant)]
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def built(folder, **reading):
    out = folder / ("-".join(reading.values()) or "usual")
    path = prepare("folder", "", source=folder, out_dir=out, reading=Reading(**reading))
    source = records.Records(path, "train")
    return [source[i] for i in range(len(source))], records.manifest(path)["remarks"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_own_annotations_are_drawn_on_what_viewers_show(tmp_path, kind, orientation):
    """As a viewer shows the picture it is trained on, scored and predicted."""
    shown = rgb(encoded(kind, orientation))
    assert shown.shape[:2] == ((WIDTH, HEIGHT) if orientation > 4 else (HEIGHT, WIDTH))
    folder = own(tmp_path, forms(red(shown), tmp_path), kind=kind, orientation=orientation)
    found, remarks = built(folder)
    assert len(found) == 5 and remarks == []
    for one in found:
        np.testing.assert_array_equal(one.image, shown)
        assert iou(one.mask, red(one.image)) > 0.98, one.id


@pytest.mark.parametrize("orientation", range(1, 9))
def test_files_that_are_drawn_on_stored_pixels_say_so(tmp_path, orientation):
    folder = own(tmp_path, forms(red(stored()), tmp_path), orientation=orientation)
    found, remarks = built(folder, orientation="stored")
    assert len(found) == 5 and remarks == []
    for one in found:
        assert one.image.shape[:2] == (HEIGHT, WIDTH)
        assert iou(one.mask, red(one.image)) > 0.98, one.id


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("reading", ["upright", "stored"])
def test_what_fits_one_frame_alone_decides(tmp_path, orientation, reading):
    """A mask's size, or a place that is only there; a remark says what was understood."""
    pixels = rgb(encoded("JPEG", orientation)) if reading == "stored" else stored()
    meant = forms(red(pixels), tmp_path)[3:]
    far = [9, 70, 9, 90, 20, 90] if reading == "stored" else [70, 9, 90, 9, 90, 20]
    folder = own(tmp_path, [*meant, {"polygon": far}], orientation=orientation)
    found, remarks = built(folder, orientation=reading)
    for one in found[:2]:
        assert one.image.shape == pixels.shape
        assert iou(one.mask, red(one.image)) > 0.98, one.id
    assert found[2].image.shape == pixels.shape
    (remark,) = remarks
    other = "upright" if reading == "stored" else "stored"
    assert remark.startswith("pictures that EXIF turns: train.jsonl line 1: a.jpg: fits ")
    assert f"so it is read as {other}" in remark


def test_a_hand_that_drew_over_the_border_turns_no_picture(tmp_path):
    """One percent of a side is cut off; what is further out is another frame's."""
    shown = rgb(encoded("JPEG", 6))  # 100 high and 60 wide
    for folder, x in (("near", 60.5), ("far", 70)):
        (tmp_path / folder).mkdir()
        polygon = [5, 20, x, 20, x, 40, 5, 40]
        (one,), remarks = built(own(tmp_path / folder, [{"polygon": polygon}]))
        assert (one.image.shape == shown.shape) == (folder == "near")
        assert any("EXIF" in remark for remark in remarks) == (folder == "far")


def test_lines_that_fit_different_frames_of_one_picture_are_an_error(tmp_path):
    own(tmp_path, [{"box": [5, 5, 10, 10]}, {"box": [80, 5, 10, 10]}])
    said = r"a.jpg fits as it is stored, and for train.jsonl line 1 as it is shown; .*orientation"
    with pytest.raises(ValueError, match=said):
        built(tmp_path)
    found, _ = built(tmp_path, orientation="stored")
    assert [one.image.shape[:2] for one in found] == [(HEIGHT, WIDTH)] * 2


def test_of_a_picture_that_is_read_two_ways_nothing_is_kept(tmp_path):
    """Nobody knows which of its lines are right."""
    own(tmp_path, [{"box": [5, 5, 10, 10]}, {"box": [80, 5, 10, 10]}])
    (tmp_path / "b.jpg").write_bytes(encoded("JPEG", 1))
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write(json.dumps({"image": "b.jpg", "text": "it", "box": [5, 5, 10, 10]}))
    how = dict(source=tmp_path, out_dir=tmp_path / "out")
    path = prepare("folder", "", on_error="skip", **how)
    left_out = [one["record"] for one in records.manifest(path)["left_out"]]
    assert left_out == ["train.jsonl line 1", "train.jsonl line 2"]
    assert len(records.Records(path, "train")) == 1
    assert prepare("folder", "", on_error="skip", **how) == path


def test_sizes_of_coco_files_decide(tmp_path):
    shown = rgb(encoded("JPEG", 6))
    polygon = forms(red(shown), tmp_path)[0]["polygon"]
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG", 6))
    thing = {"id": 1, "image_id": 1, "caption": "the red thing", "segmentation": [polygon]}
    for size, fits in (((WIDTH, HEIGHT), True), (None, True), ((HEIGHT, WIDTH), False)):
        image = {"id": 1, "file_name": "a.jpg"}
        image |= {} if size is None else {"height": size[0], "width": size[1]}
        (tmp_path / "train.json").write_text(
            json.dumps({"images": [image], "annotations": [thing]})
        )
        path = prepare("folder", "", source=tmp_path, out_dir=tmp_path / f"{size}")
        one = records.Records(path, "train")[0]
        assert (iou(one.mask, red(one.image)) > 0.98) == fits
        said = str(records.manifest(path)["remarks"])
        assert ("drawn upright? Leave height and width out." in said) == (not fits)


def test_sizes_that_fit_no_frame_are_an_error(tmp_path):
    lengths = {"size": [7, 9], "counts": [1, 62]}
    with pytest.raises(
        ValueError, match="the annotations say 7x9 .height x width. but a.jpg is 100x60"
    ):
        built(own(tmp_path, [{"mask": lengths}]))


def test_published_pictures_stay_as_they_are_stored(tmp_path):
    """COCO's masks are; that a picture of theirs carries a rotation is said once."""
    root = refer_folders.write(tmp_path, "refcoco", "unc", {"train": (1, 1, 2)})
    file = root / "images/train2014/COCO_train2014_000000000001.jpg"
    plain = refer.read("refcoco", "unc", source=root)
    before = np.asarray(Image.open(file))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(before).save(file, "JPEG", exif=exif, quality=95)
    (problem,) = [p for p in check(plain).problems if p.kind == "pictures that EXIF turns"]
    assert problem.text.endswith("its EXIF rotation is not applied, as COCO's masks want it.")
    how = dict(source=root, out_dir=tmp_path / "out")
    path = prepare("refcoco", "unc", **how, reading=Reading(orientation="upright"))
    assert records.Records(path, "train")[0].image.shape == before.shape
    assert prepare("refcoco", "unc", **how, reading=Reading(orientation="stored")) == path


def test_the_orientation_is_part_of_what_records_are(tmp_path, capsys):
    folder = own(tmp_path / "own", [{"box": [1, 1, 9, 9]}])
    arguments = ["--dataset=folder", f"--source={folder}", f"--out={tmp_path / 'out'}"]
    assert main([*arguments, "--orientation=stored"]) == 0
    assert "--config.data.orientation=stored" in capsys.readouterr().out
    assert main(arguments) == 1
    assert "built with orientation=stored, and orientation=upright" in capsys.readouterr().err
    with pytest.raises(ValueError, match="built with orientation=stored"):
        prepare("folder", "", source=folder, out_dir=tmp_path / "out")


def test_turning_is_pillows():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    for orientation in range(1, 9):
        file = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(file, "PNG", exif=exif)
        np.testing.assert_array_equal(rgb(file.getvalue()), turned(pixels, orientation))
    assert Reading().orientation == "upright"

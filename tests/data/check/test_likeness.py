"""Copies of a picture that were saved anew are found by how they look, in another split alone."""

import io

import numpy as np
import own_folders
import pytest
from PIL import Image

from dit_jax.data.annotations import datasets
from dit_jax.data.check import check, likeness
from dit_jax.data.shapes.dataset import scene

KIND = "pictures that look alike in two splits"


def shape(number):
    return Image.fromarray(scene("train", number, size=96, seed=0).image())


def encoded(image, kind="JPEG", **how):
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def turned(image, **how):
    """As a phone stores it: EXIF says how to turn it back."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image.transpose(Image.Transpose.ROTATE_90), exif=exif, **how)


def check_folder(folder, splits):
    """The remarks on a folder of splits: name → encoded picture."""
    for split, pictures in splits.items():
        lines = [{"image": name, "text": "it", "box": [1, 2, 30, 30]} for name in pictures]
        own_folders.lines(folder, *lines, name=f"{split}.jsonl")
        for name, data in pictures.items():
            (folder / name).write_bytes(data)
    report = check(datasets.open_annotations("folder", "", source=folder), progress=False)
    assert not report.fatal
    return [problem.text for problem in report.problems if problem.kind == KIND]


COPIES = {
    "the same bytes": lambda image: encoded(image, "PNG"),
    "JPEG": lambda image: encoded(image, quality=60),
    "half as large": lambda image: encoded(image.reduce(2), quality=90),
    "another frame": lambda image: turned(image, quality=80),
    "a TIFF of 16 bits": lambda image: encoded(
        Image.fromarray(np.asarray(image.convert("L"), np.uint16) << 8), "TIFF"
    ),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_said(tmp_path, kind):
    train = {f"{i}.png": encoded(shape(i), "PNG") for i in range(6)}
    val = {f"v{i}.png": encoded(shape(i), "PNG") for i in range(6, 9)}
    val["v.png"] = COPIES[kind](shape(2))
    said = "v.png of val looks like 2.png of train: the same picture, saved anew?"
    assert check_folder(tmp_path, {"train": train, "val": val}) == [said]


def test_copies_alone_are_not_their_own_average(tmp_path):
    splits = {"train": {"a.png": encoded(shape(0), "PNG")}, "val": {"b.jpg": encoded(shape(0))}}
    assert len(check_folder(tmp_path, splits)) == 1


def test_nothing_is_said_of_other_pictures(tmp_path):
    """Drawn ones; what all have in common makes none a copy, nor does emptiness."""
    drawn = [shape(i) for i in range(12)]
    fields = [Image.new("RGB", (96, 96), "black") for _ in range(12)]
    rng = np.random.default_rng(0)
    for image in fields:  # as a microscope shows them: bright in a circle, a few spots
        y, x = np.mgrid[:96, :96] - 48
        pixels = np.where(x**2 + y**2 < 40**2, 180, 0).astype(np.uint8)
        for left, top in rng.integers(25, 65, (4, 2)):
            pixels[top : top + 6, left : left + 6] = 60
        image.paste(Image.fromarray(pixels))
    white = [Image.new("RGB", (96, 96), "white")] * 2
    pictures = {f"{i}.png": encoded(one, "PNG") for i, one in enumerate(drawn + fields + white)}
    halves = {"train": dict(list(pictures.items())[::2]), "val": dict(list(pictures.items())[1::2])}
    assert check_folder(tmp_path, halves) == []


@pytest.mark.parametrize("height,width", [(427, 640), (256, 300), (255, 300), (263, 257)])
def test_blocks_of_a_jpeg_are_where_they_are(height, width):
    """Where eight rows go into one, the last of them reaches beyond the picture."""
    y, x = np.mgrid[:height, :width]
    pixels = (127 + 60 * np.sin(y / 40) + 60 * np.cos(x / 30)).astype(np.uint8)
    data = encoded(Image.fromarray(pixels), quality=95)
    found = likeness.fields(data, size=(height, width), orientation=1)
    exact = np.array(
        Image.fromarray(pixels.astype(np.float32)).resize((16, 16), Image.Resampling.BOX)
    )
    np.testing.assert_allclose(found.reshape(16, 16), exact, atol=2.0)


def test_what_cannot_be_decoded():
    whole = encoded(shape(0), "PNG")
    for data in (b"", b"no picture", whole[:20]):
        assert likeness.fields(data, size=(96, 96), orientation=1) is None
    assert list(likeness.alike({"train": {}, "val": {}})) == []

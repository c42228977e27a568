"""Pictures that are missing under one name and there under another: the sentence says which."""

import json
import unicodedata
import zipfile

import numpy as np
import pytest
from PIL import Image

from dit_jax.data.annotations import folder
from dit_jax.data.check import check
from dit_jax.data.pixels import near_names, open_images
from dit_jax.data.pixels.near_names import near
from dit_jax.data.pixels.pictures import rgb
from dit_jax.predict import pairs

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Tür.jpg") for form in ("NFC", "NFD"))
ACCENTS = "is there, with its accents in other characters: Unicode's NFC and NFD"
# What is asked for, what is there, and what is said.
NEAR = {
    "case": ("img_1.jpg", "IMG_1.JPG", " (IMG_1.JPG is there)"),
    "composed": (COMPOSED, DECOMPOSED, f" ({DECOMPOSED} {ACCENTS})"),
    "decomposed": (DECOMPOSED, COMPOSED, f" ({COMPOSED} {ACCENTS})"),
    "both": (COMPOSED.upper(), DECOMPOSED, f" ({DECOMPOSED} is there)"),
    "ending": ("1.jpg", "1.jpeg", " (1.jpeg is there)"),
    "no ending": ("1.jpg", "1", " (1 is there)"),
    "another": ("1.jpg", "2.jpg", ""),
}


@pytest.mark.parametrize("case", NEAR)
def test_a_near_name_is_named(tmp_path, case):
    asked, there, said = NEAR[case]
    (tmp_path / there).write_bytes(b"")
    assert near(tmp_path / asked) == said


def test_the_same_name_goes_before_the_same_stem(tmp_path):
    for name in ("a.JPG", "a.png", "a.heic"):
        (tmp_path / name).write_bytes(b"")
    assert near(tmp_path / "A.jpg") == " (a.JPG is there)"


def test_folders_have_near_names_as_well(tmp_path):
    (tmp_path / "Images" / "Train").mkdir(parents=True)
    (tmp_path / "Images/Train/1.png").write_bytes(b"")
    assert near(tmp_path / "images/train/1.png") == " (Images/Train/1.png is there)"
    assert near(tmp_path / "gone/train/1.png") == ""
    (tmp_path / "file").write_bytes(b"")
    assert near(tmp_path / "file/1.png") == ""


def test_a_folder_is_listed_once_for_many_missing_files(tmp_path, monkeypatch):
    (tmp_path / "A0.png").write_bytes(b"")
    listed, real = [], near_names.os.listdir
    monkeypatch.setattr(near_names.os, "listdir", lambda at: listed.append(at) or real(at))
    found = [near(tmp_path / f"a{number}.png") for number in range(9)]
    assert found == [" (A0.png is there)"] + [""] * 8 and len(listed) == 1


def test_wherever_pictures_are_missing(tmp_path):
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "IMG_1.PNG")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(tmp_path / "IMG_1.PNG", "train2014/IMG_1.PNG")
    said = r"img_1.png( of .*)? is missing \(IMG_1.PNG is there\)"
    for store in (open_images(tmp_path), open_images(tmp_path / "x.zip")):
        with pytest.raises(ValueError, match=said):
            store.read("img_1.png")
    for ask in (rgb, lambda path: pairs.named([str(path)], [])):
        with pytest.raises(FileNotFoundError, match=r"img_1.png \(IMG_1.PNG is there\)\.$"):
            ask(tmp_path / "img_1.png")
    line = {"image": "img_1.png", "text": "it", "mask": "img_1.png"}
    (tmp_path / "train.jsonl").write_text(json.dumps(line) + "\n")
    problems = check(folder.read(tmp_path)).problems
    assert [problem.text.count("img_1.png is missing (IMG_1.PNG is there)") for problem in problems]


def test_a_folder_says_what_it_leaves_out(tmp_path, caplog):
    """Pictures are known by their endings, or by what is in them."""
    for number, name in enumerate(("a.jfif", "b.JPG", "c", "d.picture", "e.png")):
        kind = "PNG" if number > 2 else "JPEG"
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / name, kind)
    (tmp_path / "damaged.jpg").write_bytes(b"x")
    (tmp_path / "f.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    for name in ("g.txt", "h", ".DS_Store"):
        (tmp_path / name).write_bytes(b"words")
    (tmp_path / "sub").mkdir()
    found = [task.image.name for task in pairs.named([str(tmp_path)], ["it"])]
    assert found == ["a.jfif", "b.JPG", "c", "d.picture", "damaged.jpg", "e.png"]
    (said,) = [record.getMessage() for record in caplog.records]
    rest = "3 files are left out, being no pictures that are read: f.heic, g.txt, h."
    assert said == f"{tmp_path}: {rest}"
    for number in range(9):
        (tmp_path / f"i{number}.txt").write_bytes(b"")
    pairs.named([str(tmp_path)], ["it"])
    assert caplog.records[1].getMessage().endswith("f.heic, g.txt, h, i0.txt, i1.txt and 7 more.")

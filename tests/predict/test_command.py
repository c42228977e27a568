"""`--mode=predict`, as people call it."""

import errno
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import launched
from PIL import Image
from pycocotools import mask as rle
from small_models import PLAIN, write_model

from dit_jax import Segmenter
from dit_jax.eval import score
from dit_jax.eval.prediction_files import encoded, read
from dit_jax.predict import command, outputs, pairs
from dit_jax.predict.outputs import Outputs

TEXTS = ["the red star", "the large square"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "ldit")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, size in enumerate([(40, 60), (70, 50), (1500, 900)]):
        noise = np.random.default_rng(number).integers(0, 256, (5, 6, 3), np.uint8)
        picture = cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
        Image.fromarray(picture).save(folder / f"Photo {number}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def lines_of(out):
    return [line.values for line in read(out / "predictions.jsonl")]


def write_lines(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_every_text_for_every_picture(model, photos, tmp_path, capsys):
    out = tmp_path / "out"
    command.predict(model, out, images=[str(photos)], texts=TEXTS)
    assert capsys.readouterr().out == f"6 masks of 3 pictures are in {out}.\n"
    lines, segmenter = lines_of(out), Segmenter.from_pretrained(model)
    assert [(Path(line["image"]).name, line["text"]) for line in lines] == [
        (f"Photo {number}.png", text) for number in range(3) for text in TEXTS
    ]
    for line, stored in zip(lines, read(out / "predictions.jsonl"), strict=True):
        (expected,) = segmenter(line["image"], line["text"])
        differ = stored.mask() != expected.mask
        assert differ.mean() < 1e-3, line["text"]  # other rows ran beside it
        written = cv2.imread(str(out / line["mask_file"]), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(written, stored.mask() * np.uint8(255))
        assert line["score"] == pytest.approx(expected.score, rel=1e-3)
        assert line["score_kind"] == expected.score_kind == "confidence"
    masks = sorted(path.name for path in (out / "masks").iterdir())
    assert masks[:2] == ["00001-photo-0-the-red-star.png", "00002-photo-0-the-large-square.png"]
    with Image.open(out / "overlays" / "00005-photo-2-the-red-star.jpg") as overlay:
        assert overlay.size == (1280, 768)  # of 1500 x 900
    with Image.open(out / "overlays" / "00001-photo-0-the-red-star.jpg") as overlay:
        assert overlay.size == (40, 60)


def test_words_that_are_not_read_are_in_the_lines(model, photos, tmp_path, capsys):
    file = write_lines(
        photos / "a.jsonl", {"image": "Photo 0.png", "text": ["star \u661f", "star"]}
    )
    command.predict(model, tmp_path / "out", pairs_file=file)
    assert [(line["cut"], line["unknown"]) for line in lines_of(tmp_path / "out")] == [
        ("", ["\u661f"]),
        ("", []),
    ]
    assert "1 text is not read whole: see cut and unknown in predictions" in capsys.readouterr().out


def test_pairs_are_scored_by_the_scorer(model, photos, tmp_path):
    truth = np.zeros((60, 40), bool)
    truth[10:50, 5:20] = True
    file = write_lines(
        tmp_path / "pairs.jsonl",
        {"image": "photos/Photo 0.png", "text": TEXTS[0], "truth": encoded(truth), "sent_id": 7},
        {"image": "photos/Photo 0.png", "text": TEXTS[1], "truth": encoded(~truth), "sent_id": 9},
    )
    command.predict(model, tmp_path / "out", pairs_file=file)
    lines = lines_of(tmp_path / "out")
    assert [(line["sent_id"], line["image_id"]) for line in lines] == [(7, 0), (9, 0)]
    score.main([str(tmp_path / "out/predictions.jsonl"), "--json", str(tmp_path / "scores.json")])
    scores = json.loads((tmp_path / "scores.json").read_text())["predictions"]["original"]
    masks = [rle.decode(line["mask"]).astype(bool) for line in lines]
    i = sum((m & t).sum() for m, t in zip(masks, (truth, ~truth), strict=True))
    u = sum((m | t).sum() for m, t in zip(masks, (truth, ~truth), strict=True))
    assert scores["oIoU"] == pytest.approx(100 * i / u, abs=1e-3) and scores["n"] == 2


def test_points_and_boxes_of_pairs(photos, tmp_path):
    model = write_model(tmp_path / "sam", **PLAIN)
    points, box = [[3, 4, 1], [30, 50, 0]], [2, 3, 30, 40]
    file = write_lines(
        tmp_path / "pairs.jsonl",
        {"image": "photos/Photo 0.png", "prompt": {"points": points}},
        {"image": str(photos / "Photo 1.png"), "prompt": {"box": box}, "id": "mine"},
    )
    command.predict(model, tmp_path / "out", pairs_file=file)
    first, second = lines_of(tmp_path / "out")
    segmenter = Segmenter.from_pretrained(model)
    expected = segmenter(photos / "Photo 0.png", points=points) + segmenter(
        photos / "Photo 1.png", box=box
    )
    for line, one in zip((first, second), expected, strict=True):
        assert (rle.decode(line["mask"]) != one.mask).mean() < 1e-3
    assert "text" not in first and second["id"] == "mine"


def test_prompts_without_text(photos, tmp_path):
    """Two boxes, a drawn mask, three answers: by flags, and by lines that name each their own."""
    model, image = write_model(tmp_path / "sam", **PLAIN), photos / "Photo 0.png"
    drawn = np.zeros((60, 40), np.uint8)
    drawn[10:40, 5:25] = 255
    cv2.imwrite(str(tmp_path / "drawn.png"), drawn)
    boxes = ["2,3,30,40", "5,5,20,50"]
    command.predict(
        model,
        tmp_path / "flags",
        **dict(images=[str(image)], points=["3,4", "30,50,0"], boxes=boxes),
        **dict(mask=tmp_path / "drawn.png", multimask=True),
    )
    lines = lines_of(tmp_path / "flags")
    assert [(line["part"], line["parts"]) for line in lines] == [(1, 3), (2, 3), (3, 3)] * 2
    points, corners = [(3, 4, 1), (30, 50, 0)], [(2, 3, 30, 40), (5, 5, 20, 50)]
    segmenter = Segmenter.from_pretrained(model)
    found = segmenter(image, points=points, box=corners, mask=drawn, multimask=True)
    for line, one in zip(lines, found, strict=True):
        assert (rle.decode(line["mask"]) != one.mask).mean() < 1e-3
    prompt = {"points": points, "mask": "drawn.png"}
    file = write_lines(
        tmp_path / "pairs.jsonl",
        {"image": str(image), "prompt": prompt | {"box": corners, "multimask": True}},
        {"image": str(image), "prompt": prompt | {"box_xywh": [[2, 3, 28, 37], [5, 5, 15, 45]]}},
    )
    command.predict(model, tmp_path / "pairs", pairs_file=file)
    named = lines_of(tmp_path / "pairs")
    assert [line["mask"] for line in named[:6]] == [line["mask"] for line in lines]
    single = segmenter(image, points=points, box=corners, mask=drawn)
    for line, one in zip(named[6:], single, strict=True):
        assert (rle.decode(line["mask"]) != one.mask).mean() < 1e-3
    assert [line["prompt"]["box"] for line in named[::3]] == [*map(list, corners), [2, 3, 30, 40]]


def test_objects_one_by_one(model, photos, tmp_path, monkeypatch):
    """A kill between the lines of a question costs that question alone."""
    images = [str(photos / f"Photo {number}.png") for number in (0, 1)]
    how = dict(images=images, texts=TEXTS[:1], instances=True)
    command.predict(model, tmp_path / "whole", **how)
    lines = lines_of(tmp_path / "whole")
    parts = [line.get("parts", 1) for line in lines if line.get("part", 1) == 1]
    assert len(parts) == 2 and max(parts) > 1 and sum(parts) == len(lines)
    masks = [rle.decode(line["mask"]).astype(bool) for line in lines[-parts[-1] :]]
    assert not np.sum(masks, axis=0, dtype=int).max() > 1
    interrupted(len(lines) - parts[-1], monkeypatch, model, tmp_path / "out", **how)
    data = (tmp_path / "whole" / outputs.PREDICTIONS).read_bytes().splitlines(keepends=True)
    kept = b"".join(data[: 1 - parts[-1] or None])
    (tmp_path / "out" / outputs.PARTIAL).write_bytes(kept)
    command.predict(model, tmp_path / "out", **how)
    assert [line["mask_file"] for line in lines_of(tmp_path / "out")] == [
        line["mask_file"] for line in lines
    ]


def test_tiles(model, photos, tmp_path):
    how = dict(images=[str(photos / "Photo 1.png")], texts=TEXTS)
    command.predict(model, tmp_path / "out", **how, tile=64, overlap=8)
    found = Segmenter.from_pretrained(model)(photos / "Photo 1.png", TEXTS, tile=64, overlap=8)
    for line, one in zip(lines_of(tmp_path / "out"), found, strict=True):
        assert (rle.decode(line["mask"]) != one.mask).mean() < 1e-3
        assert (line["tile"], line["overlap"], line["text"]) == (64, 8, one.text)


def test_names_lead_nowhere(model, photos, tmp_path):
    """Whatever pictures and texts are called, everything is written inside the folder."""
    tricky = tmp_path / "a" / "b"
    tricky.mkdir(parents=True)
    names = ["../../photos/Photo 0.png", "../evil.png", "..png", "\\..\\x.png", "a\nb.png"]
    for name in names[1:]:
        shutil.copy(photos / "Photo 0.png", tricky / name)
    before = {path for path in tmp_path.rglob("*") if "out" not in path.parts}
    lines = [{"image": name, "text": "../../../star /etc/passwd"} for name in names]
    command.predict(model, tricky / "out", pairs_file=write_lines(tricky / "p.jsonl", *lines))
    after = set(tmp_path.rglob("*"))
    new = after - before - {tricky / "p.jsonl"}
    assert all(path == tricky / "out" or tricky / "out" in path.parents for path in new)
    assert len([path for path in new if path.suffix == ".png"]) == len(names)


def test_a_name_that_is_not_utf8_is_refused_before_anything_is_computed(photos):
    (photos / "Photo 0.png").rename(photos / os.fsdecode(b"caf\xe9.png"))
    with pytest.raises(ValueError, match=r"'.*caf\\udce9.png' is not UTF-8, .* rename the file"):
        pairs.named([str(photos)], TEXTS)


@pytest.mark.parametrize(
    ("number", "image", "text", "name"),
    [
        (1, "a/b/Dog 1.JPG", "The LEFT dog!", "00001-dog-1-the-left-dog"),
        (12, "../..", None, "00012"),
        (3, "C:\\photos\\x.png", "ё", "00003-x"),
        (4, "x" * 300 + ".png", "y" * 300, "00004-" + "x" * 40 + "-" + "y" * 40),
    ],
)
def test_file_names(number, image, text, name):
    assert outputs.file_name(number, image, text) == name


def test_broken_pictures_stop_or_are_left_out(model, photos, tmp_path, capsys):
    (photos / "Photo 3.jpg").write_bytes(b"\xff\xd8\xff\xe0 not really")
    how = dict(images=[str(photos)], texts=TEXTS[:1])
    with pytest.raises(ValueError, match="Photo 3.jpg is not a picture"):
        command.predict(model, tmp_path / "out", **how)
    assert not (tmp_path / "out" / "predictions.jsonl").exists()
    command.predict(model, tmp_path / "other", **how, skip_broken=True)
    said = capsys.readouterr().out
    assert "3 masks of 3 pictures" in said and "1 left out:\n  " in said
    assert "Photo 3.jpg is not a picture" in said
    assert len(lines_of(tmp_path / "other")) == 3


def test_a_picture_that_breaks_late_costs_no_answer(model, photos, tmp_path, capsys):
    """Nor does the batch that was on the device; the same command, mended, does the rest."""
    whole, out, late = tmp_path / "whole", tmp_path / "out", photos / "Photo 2.png"
    how = dict(images=[str(photos)], texts=TEXTS)
    command.predict(model, whole, **how)
    data = late.read_bytes()
    late.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="Photo 2.png: the picture"):
        command.predict(model, out, **how)
    partial = out / outputs.PARTIAL
    assert f"{partial} keeps what was answered; the same command goes on" in capsys.readouterr().out
    kept = partial.read_bytes()
    assert kept.count(b"\n") == 4 and len(list((out / "masks").iterdir())) == 4
    partial.write_bytes(kept + kept[:100])  # a kill in the middle of a line
    late.write_bytes(data)
    command.predict(model, out, **how)
    assert capsys.readouterr().out == f"6 masks of 3 pictures are in {out}.\n"
    assert (out / "predictions.jsonl").read_bytes()[: len(kept)] == kept
    assert [line["mask_file"] for line in lines_of(out)] == [
        line["mask_file"] for line in lines_of(whole)
    ]
    assert {path.name for path in out.iterdir()} == {"masks", "overlays", "predictions.jsonl"}


def interrupted(after, monkeypatch, *about, **more):
    """`--mode=predict`, and Ctrl-C when so many masks are written."""
    write = Outputs.write

    def now_and_then(self, *answer, **said):
        if self.count == after:
            raise KeyboardInterrupt
        write(self, *answer, **said)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Outputs, "write", now_and_then)
        command.predict(*about, **more)


def test_an_interruption_keeps_what_was_answered(model, photos, tmp_path, monkeypatch):
    """Also between two texts about one picture; what was answered is not opened again."""
    how, out = dict(images=[str(photos)], texts=TEXTS), tmp_path / "out"
    interrupted(3, monkeypatch, model, out, **how)
    (photos / "Photo 0.png").write_bytes(b"no picture any more")
    command.predict(model, out, **how)
    assert [(Path(line["image"]).name, line["text"]) for line in lines_of(out)] == [
        (f"Photo {number}.png", text) for number in range(3) for text in TEXTS
    ]


def test_answers_that_cannot_be_read_are_left_with_overwrite(model, photos, tmp_path, capsys):
    out, how = tmp_path / "out", dict(images=[str(photos / "Photo 0.png")], texts=TEXTS[:1])
    out.mkdir()
    (out / outputs.PARTIAL).write_text("half a line\n")
    say = "line 1 is no JSON.* Remove that file, or leave it with --overwrite.$"
    with pytest.raises(ValueError, match=say):
        command.predict(model, out, **how)
    assert capsys.readouterr().out == ""
    command.predict(model, out, **how, overwrite=True)
    assert [line["text"] for line in lines_of(out)] == TEXTS[:1]


def test_answers_of_others_are_not_gone_on_with(model, photos, tmp_path, monkeypatch, capsys):
    out, images = tmp_path / "out", [str(photos / "Photo 0.png")]
    interrupted(1, monkeypatch, model, out, images=images, texts=TEXTS)
    other = write_model(tmp_path / "other", seed=1)
    capsys.readouterr()
    for weights, texts in ((model, TEXTS[1:]), (other, TEXTS)):
        with pytest.raises(FileExistsError, match="holds answers of another model or to other que"):
            command.predict(weights, out, images=images, texts=texts)
    assert "goes on" not in capsys.readouterr().out
    command.predict(other, out, images=images, texts=TEXTS[:1], overwrite=True)
    (line,) = lines_of(out)
    sums = json.loads((other / "manifest.json").read_text())["files"]["model.safetensors"]
    assert line["model"] == sums["sha256"][:16]


def test_what_was_not_written_is_not_said_to_be_kept(model, photos, tmp_path, monkeypatch, capsys):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(outputs, "save", full)
    with pytest.raises(OSError, match="No space left on device: .*/out'"):
        command.predict(model, tmp_path / "out", images=[str(photos)], texts=TEXTS)
    assert capsys.readouterr().out == ""


def test_one_process_writes_into_a_folder(model, photos, tmp_path):
    how = dict(images=[str(photos / "Photo 0.png")], texts=TEXTS[:1])
    (tmp_path / "out").mkdir()
    record = dict(purpose="predicting", host="elsewhere", pid=1, started="1", since="2026")
    (tmp_path / "out" / ".lease").write_text(json.dumps(record | {"token": "a"}))
    with pytest.raises(OSError, match="another process is predicting in .*: process 1 on elsewh"):
        command.predict(model, tmp_path / "out", **how)


def test_nothing_is_written_over(model, photos, tmp_path):
    how = dict(images=[str(photos / "Photo 0.png")], texts=TEXTS[:1])
    command.predict(model, tmp_path / "out", **how)
    with pytest.raises(FileExistsError, match="out is not empty; choose another folder, or"):
        command.predict(model, tmp_path / "out", **how)
    command.predict(model, tmp_path / "out", **how, overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="file is a file; expected a folder"):
        command.predict(model, tmp_path / "file", **how)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        (dict(), "--mode=predict expected --images and --text, or --pairs"),
        (dict(images=["photos/*.gif"]), r"no such picture: photos/\*.gif"),
        (dict(images=["empty"]), "the folder holds no picture: empty"),
        (dict(images=["photos"]), "no text is given for photos/Photo 0.png"),
        (dict(images=["photos"], texts=[" "]), "the expression ' ' is empty"),
        (dict(images=["photos"], points=["3;4"]), "--point is '3;4'; expected 2 or 3 numbers"),
        (dict(images=["photos"], boxes=["1,2,3"]), "--box is '1,2,3'; expected 4 numbers with com"),
        (
            dict(images=["photos"], pairs_file=Path("p.jsonl")),
            "--pairs says which pictures, texts and prompts",
        ),
        (dict(pairs_file=Path("gone.jsonl")), "no such file of pairs: gone.jsonl"),
        (dict(pairs_file=Path("nothing.jsonl")), "nothing.jsonl is empty; expected lines"),
    ],
)
def test_mistakes(model, photos, tmp_path, monkeypatch, how, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing.jsonl").touch()
    with pytest.raises((ValueError, OSError), match=sentence):
        command.predict(model, tmp_path / "out", **how)
    assert not (tmp_path / "out").exists()


def test_launch(model, photos, tmp_path):
    images = ["--images", photos / "Photo 0.png", f"--images={photos}/*1.png"]
    done = launched(
        *("--mode=predict", f"--model={model}", f"--out={tmp_path / 'out'}", *images),
        *(f"--text={TEXTS[0]}", f"--text={TEXTS[1]}"),
    )
    assert done.returncode == 0, done.stderr
    assert len(lines_of(tmp_path / "out")) == 4
    failed = launched("--mode=predict", f"--model={model}")
    assert failed.stderr == "error: --mode=predict expected --out; see --help.\n"

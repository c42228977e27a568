"""`--mode=label`, as people call it."""

import dataclasses
import json
import os

import cv2
import numpy as np
import pytest
from absl import flags
from command_line import launched
from PIL import Image
from pycocotools.coco import COCO
from quickly import compiled_quickly
from small_models import write_model

from dit_jax import Segmenter, on_pictures
from dit_jax.data import shapes
from dit_jax.predict.everything import Everything
from dit_jax.predict.label import command, record
from dit_jax.predict.label.record import Records
from dit_jax.weights import manifest

ONTOLOGY = {"the red star": "star", "the blue star": "star", "the large square": "square"}


@pytest.fixture(scope="module", autouse=True)
def quick(programs):
    with compiled_quickly(programs):
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "ldit")


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    for number, (height, width) in enumerate([(60, 40), (50, 70), (64, 64)]):
        noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "ontology.json").write_text(json.dumps(ONTOLOGY))
    return tmp_path / "photos"


def label(model, photos, out, **how):
    ontology = photos.parent / "ontology.json"
    how = dict(images=[str(photos)], ontology_file=ontology, form="coco") | how
    command.label(model, out, **how)


def test_labels_are_the_segmenters_answers(model, photos, tmp_path):
    out = tmp_path / "out"
    done = launched(
        *("label", f"--model={model}", f"--images={photos}", "--format=coco", "--review"),
        *(f"--ontology={tmp_path / 'ontology.json'}", f"--out={out}"),
    )
    coco, segmenter = COCO(out / "annotations.json"), Segmenter.from_pretrained(model)
    number = len(coco.getAnnIds())
    assert done.stdout.splitlines()[-1] == f"{number} objects in 3 pictures are in {out}."
    for row in coco.loadImgs(coco.getImgIds()):
        answers = segmenter(photos / row["file_name"], list(ONTOLOGY))
        expected = record.resolved(record.things(answers, ONTOLOGY, instances=False))
        found = coco.loadAnns(coco.getAnnIds(imgIds=row["id"]))
        assert [one["caption"] for one in found] == [thing.text for thing in expected]
        for one, thing in zip(found, expected, strict=True):
            assert (coco.annToMask(one) != thing.mask).mean() < 1e-3  # other rows ran beside it
            assert coco.cats[one["category_id"]]["name"] == ONTOLOGY[thing.text] == thing.label
        with Image.open(out / "review" / f"{row['file_name'][0]}.jpg") as drawn:
            assert drawn.width == row["width"] and drawn.height >= row["height"]
    assert number > 3


def test_a_stopped_call_goes_on(model, photos, tmp_path, monkeypatch, capsys):
    whole, out = tmp_path / "whole", tmp_path / "out"
    label(model, photos, whole)
    write = Records.write

    def once(self, *said):
        if self.done:
            raise KeyboardInterrupt
        write(self, *said)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Records, "write", once)
        label(model, photos, out)
    kept = (out / record.FILE).read_bytes()
    (out / record.FILE).write_bytes(kept + kept[-100:-1])  # a kill in the middle of a line
    asked = []
    with monkeypatch.context() as patch:
        patch.setattr(
            Records, "write", lambda self, *said: (asked.append(said), write(self, *said))
        )
        label(model, photos, out)
        label(model, photos, out, form="voc")  # asks nothing
    assert [task.path.name for task, *_ in asked] == ["1.png", "2.png"]
    assert (out / record.FILE).read_bytes()[: len(kept)] == kept
    first, second = (json.loads((f / "annotations.json").read_text()) for f in (whole, out))
    assert first["images"] == second["images"]
    captions = [[one["caption"] for one in said["annotations"]] for said in (first, second)]
    assert captions[0] == captions[1]
    assert (out / "SegmentationObject/2.png").is_file()
    assert set(os.listdir(whole)) == {record.FILE, "annotations.json"}


def test_a_picture_is_known_by_its_bytes_not_by_its_name(model, photos, tmp_path, capsys):
    """Another folder's, or one that was replaced: asked again, and its own labels come out."""
    label(model, photos, tmp_path / "out")
    other = tmp_path / "other"
    other.mkdir()
    wide = np.full((40, 90, 3), 200, np.uint8)
    cv2.imwrite(str(other / "1.png"), wide)
    label(model, other, tmp_path / "out", form="voc")
    assert cv2.imread(str(tmp_path / "out/SegmentationClass/1.png"), 0).shape == (40, 90)
    (photos / "1.png").write_bytes((other / "1.png").read_bytes())
    label(model, photos, tmp_path / "out")  # annotations.json is what an earlier call wrote
    images = json.loads((tmp_path / "out/annotations.json").read_text())["images"]
    assert {"height": 40, "width": 90} in [
        {key: row[key] for key in ("height", "width")} for row in images
    ]
    assert len(images) == 3 and len({row["file_name"] for row in images}) == 3


def test_pictures_may_be_added(model, photos, tmp_path, capsys):
    (photos / "2.png").rename(tmp_path / "2.png")
    label(model, photos, tmp_path / "out")
    (tmp_path / "2.png").rename(photos / "2.png")
    label(model, photos, tmp_path / "out")
    path = tmp_path / "out/annotations.json"
    assert len(json.loads(path.read_text())["images"]) == 3
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="annotations.json is there and says something else"):
        label(model, photos, tmp_path / "out")
    assert path.read_text() == "mine"


def test_another_threshold_is_another_question(photos, tmp_path, capsys):
    folder = write_model(tmp_path / "model", presence=True)
    label(folder, photos, tmp_path / "out")
    promise = manifest.Calibration(1e-9, 0.05, 19, "shapes", "val", {})
    manifest.note_calibration(folder, promise, of=manifest.read(folder))
    with pytest.raises(FileExistsError, match="labels of another model or ontology"):
        label(folder, photos, tmp_path / "out")


def test_labels_of_others_are_not_gone_on_with(model, photos, tmp_path, capsys):
    label(model, photos, tmp_path / "out")
    (tmp_path / "ontology.json").write_text('{"the red star": "thing"}')
    with pytest.raises(FileExistsError, match="holds labels of another model or ontology; choose"):
        label(model, photos, tmp_path / "out")
    label(model, photos, tmp_path / "out", overwrite=True)
    coco = COCO(tmp_path / "out" / "annotations.json")
    assert [row["name"] for row in coco.loadCats(coco.getCatIds())] == ["thing"]


def test_broken_pictures_stop_or_are_left_out(model, photos, tmp_path, capsys):
    (photos / "3.jpg").write_bytes(b"\xff\xd8\xff\xe0 not really")
    with pytest.raises(ValueError, match="3.jpg is not a picture"):
        label(model, photos, tmp_path / "out")
    label(model, photos, tmp_path / "out", skip_broken=True)
    said = capsys.readouterr().out
    assert (
        "in 3 pictures are in" in said and f"1 left out:\n  {photos}/3.jpg is not a picture" in said
    )


def test_objects_one_by_one(model, photos, tmp_path, capsys):
    label(model, photos, tmp_path / "out", instances=True)
    coco = COCO(tmp_path / "out" / "annotations.json")
    captions = [one["caption"] for one in coco.loadAnns(coco.getAnnIds(imgIds=1))]
    assert len(captions) > len(set(captions))
    with pytest.raises(FileExistsError, match="labels of another model or ontology"):
        label(model, photos, tmp_path / "out")


def test_tiles(model, photos, tmp_path, capsys):
    (photos / "0.png").unlink()
    label(model, photos, tmp_path / "out", tile=64, overlap=8)
    found = Segmenter.from_pretrained(model)(photos / "1.png", list(ONTOLOGY), tile=64, overlap=8)
    expected = record.resolved(record.things(found, ONTOLOGY, instances=False))
    coco = COCO(tmp_path / "out" / "annotations.json")
    for one, thing in zip(coco.loadAnns(coco.getAnnIds(imgIds=1)), expected, strict=True):
        assert (coco.annToMask(one) != thing.mask).mean() < 1e-3


def test_everything(photos, tmp_path):
    out, settings = tmp_path / "out", dict(points_per_side=4, pred_iou_thresh=0.5)
    settings |= dict(stability_score_thresh=0.5, points_per_batch=16)
    picture = shapes.scene("val", 3, size=64).image()
    Image.fromarray(picture).save(photos / "0.png")
    words = ("everything", "--model=mini_sam", f"--images={photos / '0.png'}", f"--out={out}")
    done = launched(*words, *(f"--{name}={value}" for name, value in settings.items()))
    assert done.stdout.endswith(f" in 1 picture are in {out}.\n"), done.stderr
    expected = Segmenter.from_pretrained("mini_sam").everything(picture, **settings)
    coco = COCO(out / "annotations.json")
    found = coco.loadAnns(coco.getAnnIds(imgIds=1))
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(coco.annToMask(one).astype(bool), other["segmentation"])
        assert one["score"] == one["predicted_iou"] == other["predicted_iou"]
        assert one["point_coords"] == other["point_coords"] and one["area"] == other["area"]
    with Image.open(out / "review" / "0.jpg") as drawn:
        assert drawn.size == picture.shape[1::-1]


def test_everything_is_for_plain_sam(model, photos, tmp_path):
    with pytest.raises(ValueError, match="this model reads text; expected plain SAM"):
        command.everything(model, tmp_path / "out", images=[str(photos)], settings={})
    assert not (tmp_path / "out" / record.FILE).exists()


def test_flags_are_the_settings():
    kinds = {name: flags.FLAGS[name].flag_type() for name in on_pictures.SETTINGS}
    assert kinds == {one.name: one.type.__name__ for one in dataclasses.fields(Everything)}


@pytest.mark.parametrize(
    ("ontology", "sentence"),
    [
        ("{}", 'ontology.json is empty; expected {"expression": "class", …}'),
        ('["star"]', r'ontology.json: found \["star"\]; expected an object'),
        ('{"star": 3}', "'star' is 3; expected text in quotes"),
        ('{"star": " "}', "the class of 'star' is empty; expected a name"),
        ('{"star": "a", "star": "b"}', "the key 'star' is given twice"),
        ('{" ": "a"}', "the expression ' ' is empty"),
        (None, "no such ontology: .*ontology.json"),
    ],
)
def test_mistakes(model, photos, tmp_path, ontology, sentence):
    (tmp_path / "ontology.json").unlink()
    if ontology is not None:
        (tmp_path / "ontology.json").write_text(ontology)
    with pytest.raises((ValueError, OSError), match=sentence):
        label(model, photos, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_pictures_of_one_name(model, photos, tmp_path):
    (photos / "1.jpg").write_bytes((photos / "1.png").read_bytes())
    with pytest.raises(
        ValueError, match=r"1\.png and .*1\.jpg would both be labeled as '1'; rename"
    ):
        label(model, photos, tmp_path / "out")
    with pytest.raises(ValueError, match="--format is 'cocoa'; expected one of coco, yolo"):
        label(model, photos, tmp_path / "out", form="cocoa")

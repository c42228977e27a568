"""REFER folders are read as they are: a drawn one, the real one, and broken ones."""

import json
import pickle
import zipfile

import cv2
import numpy as np
import pytest
import refer_folders
from refer_folders import HEIGHT, WIDTH

from dit_jax.data.annotations import coco, refer, safe_pickle
from dit_jax.data.pixels.masks import entry_mask
from dit_jax.data.pixels.run_lengths import decode
from dit_jax.data.pixels.stores import open_images

PHOTOS = "images/train2014"
NAME = "COCO_train2014_{:012d}.jpg"


@pytest.fixture
def root(tmp_path):
    """Three referents: two of picture 1 in train, one of picture 2 in val."""
    return refer_folders.write(tmp_path, "refcoco", "unc", {"train": (1, 1), "val": (2,)})


def rewrite(root, change):
    """Change the contents of a folder's two files."""
    refs, instances = root / "refcoco/refs(unc).p", root / "refcoco/instances.json"
    contents = pickle.loads(refs.read_bytes()), json.loads(instances.read_text())
    change(*contents)
    refs.write_bytes(pickle.dumps(contents[0], protocol=2))
    instances.write_text(json.dumps(contents[1]))


def read(root, **changes):
    return refer.read("refcoco", "unc", source=root, **changes)


def test_a_folder_is_read_as_it_is(root):
    found = read(root)
    assert found.dataset == "refcoco(unc)" and list(found.splits) == ["train", "val"]
    assert found.sources == {
        "refs": root / "refcoco/refs(unc).p",
        "instances": root / "refcoco/instances.json",
    }
    assert found.images == root / PHOTOS
    second = found.splits["train"][1]
    assert second.name == "refcoco(unc) train ref_id 1001"
    assert (second.split, second.ref_id, second.image_id) == ("train", 1001, 1)
    assert (second.ann_ids, second.sent_ids) == ((101,), (2, 3))
    assert second.file_name == NAME.format(1)  # of instances.json: REFER's has a suffix
    assert second.size == (HEIGHT, WIDTH)
    assert second.segmentations == ([[12, 6, 32, 6, 32, 30, 12, 30]],)
    assert second.boxes == ((12.0, 6.0, 20.0, 24.0),)
    assert second.expressions == ("the square number 1", "left thing")


@pytest.mark.parametrize(
    ("dataset", "split_by", "counts"),
    [
        ("refcoco", "unc", {"val": (50, 144), "testA": (26, 77), "testB": (27, 76)}),
        ("refcoco+", "unc", {"val": (50, 144), "testA": (26, 75), "testB": (27, 78)}),
        ("refcocog", "umd", {"val": (6, 12), "test": (3, 6)}),
    ],
)
def test_the_real_thing(shared, dataset, split_by, counts):
    root = shared / "data/mini_refcoco"
    found = refer.read(dataset, split_by, source=root)
    refs = safe_pickle.load(root / dataset / f"refs({split_by}).p")
    photos = open_images(found.images)
    assert set(found.splits) == set(counts)
    for split, (referents, sentences) in counts.items():
        entries, expected = found.splits[split], [r for r in refs if r["split"] == split]
        assert len(entries) == referents
        assert sum(len(entry.expressions) for entry in entries) == sentences
        for entry, ref in zip(entries, expected, strict=True):
            height, width = entry.size
            truth = cv2.imread(str(root / f"masks/{ref['ann_id']}.png"), cv2.IMREAD_GRAYSCALE)
            mask = decode(entry_mask(entry, height=height, width=width), height=height, width=width)
            np.testing.assert_array_equal(mask, truth > 0)
            assert entry.expressions == tuple(s["sent"] for s in ref["sentences"])
            assert entry.ann_ids == (ref["ann_id"],) and entry.file_name in photos


def test_without_instances_the_masks_are_unknown(root):
    (root / "refcoco/instances.json").unlink()
    found = read(root)
    assert list(found.sources) == ["refs"]
    for entry in (entry for entries in found.splits.values() for entry in entries):
        assert entry.segmentations is None and entry.size is None and entry.boxes == ()
        assert entry.file_name == NAME.format(entry.image_id)  # without REFER's suffix


@pytest.mark.parametrize("place", coco.IMAGE_PLACES)
def test_finds_pictures_in_the_usual_places(root, place):
    (root / PHOTOS).rename(root / "elsewhere")
    (root / "images").rmdir()
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    if place.endswith(".zip"):
        with zipfile.ZipFile(root / place, "w") as archive:
            for file in (root / "elsewhere").iterdir():
                archive.write(file, f"train2014/{file.name}")
    else:
        (root / "elsewhere").rename(root / place)
    found = read(root)
    assert found.images == root / place and NAME.format(2) in open_images(found.images)


def test_takes_pictures_from_a_given_place(root):
    (root / PHOTOS).rename(root / "coco")
    assert read(root, images=root / "coco").images == root / "coco"
    with pytest.raises(ValueError, match="gone.zip is missing; expected a folder or zip file"):
        read(root, images=root / "gone.zip")
    (root / "images").rmdir()
    assert read(root).images == root / PHOTOS  # `check` says that it is missing


def _unknown_picture(refs, instances):
    refs[1]["image_id"] = 99


def _unknown_annotation(refs, instances):
    refs[2]["ann_id"] = 99


def _annotation_of_another_picture(refs, instances):
    refs[0]["ann_id"] = 102


def _no_size(refs, instances):
    del instances["images"][0]["height"]


def _size_of_nothing(refs, instances):
    instances["images"][1]["width"] = 0


def _no_segmentation(refs, instances):
    del instances["annotations"][2]["segmentation"]


def _odd_box(refs, instances):
    instances["annotations"][0]["bbox"] = [1, 2, 3]


def _no_annotations(refs, instances):
    del instances["annotations"]


def _no_ref_id(refs, instances):
    del refs[1]["ref_id"]


def _ann_id_as_text(refs, instances):
    refs[1]["ann_id"] = "101"


def _sentence_is_no_dict(refs, instances):
    refs[1]["sentences"] = ["left man"]


def _sentence_is_a_number(refs, instances):
    refs[1]["sentences"][0]["sent"] = 3


def _billion_laughs(refs, instances):
    value = [0]
    for _ in range(30):
        value = [value] * 10
    refs[1]["ref_id"] = value


def _split_as_path(refs, instances):
    refs[1]["split"] = "../val"


def _file_elsewhere(refs, instances):
    instances["images"][0]["file_name"] = "../../secret.jpg"


def _absolute_file(refs, instances):
    refs[1]["file_name"] = "/etc/secret.jpg"


def _no_list(refs, instances):
    refs.clear()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            _unknown_picture,
            r"wrong references to .* \(1\):.*train ref_id 1001: there is no picture 99",
        ),
        (_unknown_annotation, "val ref_id 1002: there is no annotation 99"),
        (_annotation_of_another_picture, "annotation 102 belongs to picture 2, expected 1"),
        (_no_size, r"wrong records of .*instances.json \(1\):\s+images\[0\]: no 'height' among id"),
        (_size_of_nothing, r"images\[1\]: the size is 48x0, expected numbers above 0"),
        (_no_segmentation, r"annotations\[2\]: no 'segmentation' among"),
        (_odd_box, r"annotations\[0\]: 'bbox' is \[1, 2, 3\], expected \[x, y, width, height\]"),
        (_no_annotations, "instances.json: no 'annotations' among images, categories"),
        (
            _no_ref_id,
            r"wrong records of .*refs\(unc\).p \(1\):\s+record 1: no 'ref_id' among ann_id",
        ),
        (_ann_id_as_text, "record 1: 'ann_id' is '101', expected int"),
        (_sentence_is_no_dict, "record 1: 'left man', expected a dict with 'sent'"),
        (_sentence_is_a_number, "record 1: 'sent' is 3, expected str"),
        (_billion_laughs, r"record 1: 'ref_id' is \[\[\[.*, expected int"),
        (_split_as_path, "record 1: 'split' is '../val', expected letters, digits and _"),
        (
            _file_elsewhere,
            r"images\[0\]: 'file_name' is '../../secret.jpg', expected a name in the",
        ),
        (
            _absolute_file,
            "record 1: 'file_name' is '/etc/secret.jpg', expected a name in the folder",
        ),
        (_no_list, r"refs\(unc\).p holds no list of referents"),
    ],
)
def test_what_is_wrong_is_named(root, break_it, message):
    rewrite(root, break_it)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        read(root)


def test_all_that_is_wrong_is_said_at_once(root):
    refer_folders.write(root, "refcoco", "unc", {"train": range(1, 9)})
    rewrite(root, lambda refs, instances: instances["annotations"].clear())
    with pytest.raises(ValueError) as caught:
        read(root)
    lines = str(caught.value).split("\n  ")
    assert lines[0].endswith("instances.json (8):") and len(lines) == 5
    assert lines[1] == "refcoco(unc) train ref_id 1000: there is no annotation 100."
    assert lines[-1] == "and 5 more."


def test_files_that_are_missing_or_no_json_are_named(root):
    (root / "refcoco/instances.json").write_text('{"images": [')
    with pytest.raises(ValueError, match="instances.json: not readable as JSON"):
        read(root)
    with pytest.raises(ValueError, match=r"refs\(google\).p is missing"):
        refer.read("refcoco", "google", source=root)


@pytest.mark.parametrize(
    ("dataset", "split_by"),
    [(name, by) for name, all_by in refer.SPLITS_BY.items() for by in all_by],
)
def test_every_published_partition(tmp_path, dataset, split_by):
    root = refer_folders.write(tmp_path, dataset, split_by, {"train": (1,), "val": (2, 2)})
    found = refer.read(dataset, split_by, source=root)
    assert found.dataset == f"{dataset}({split_by})"
    assert {split: len(entries) for split, entries in found.splits.items()} == {
        "train": 1,
        "val": 2,
    }

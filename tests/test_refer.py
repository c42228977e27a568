"""REFER folders to array records and back: a drawn one, the real one, and broken ones."""

import json
import pickle
import struct
import sys

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle

from dit_jax.data import safe_pickle
from dit_jax.data.refer import Refer, build
from dit_jax.data.referent import Referent, decode_image, encode_mask

# pycocotools 2.0.11 hands NumPy an array in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

HEIGHT, WIDTH = 24, 40
SQUARE = [4, 4, 12, 4, 12, 12, 4, 12]
OVERLAPPING = [8, 8, 20, 8, 20, 16, 8, 16]
EXIF_ROTATED = (
    b"\xff\xe1"
    + struct.pack(">H", 34)
    + b"Exif\0\0"
    + struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)
)


def refer_folder(root, splits=("train", "val"), images="images/train2014"):
    """Two referents per split: an overlapping pair of polygons, and a crowd's run lengths."""
    (root / images).mkdir(parents=True)
    (root / "refcoco").mkdir()
    crowd = {"size": [HEIGHT, WIDTH], "counts": [100, 50, HEIGHT * WIDTH - 150]}
    entries, objects, refs = [], [], []
    for number, split in enumerate(s for s in splits for _ in range(2)):
        name = f"COCO_train2014_{number}.jpg"
        pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        cv2.imwrite(str(root / images / name), pixels)
        entries.append({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH})
        shape = [SQUARE, OVERLAPPING] if number % 2 == 0 else crowd
        objects.append({"id": 10 + number, "segmentation": shape, "iscrowd": number % 2})
        refs.append(
            {
                "ref_id": 20 + number,
                "ann_id": 10 + number,
                "image_id": number,
                "split": split,
                "sentences": [
                    {"sent_id": 100 * number + i, "sent": f"{split} object {number} {i}"}
                    for i in range(1 + number % 3)
                ],
            }
        )
    write(root, refs, {"images": entries, "annotations": objects})
    return refs, {"images": entries, "annotations": objects}


def write(root, refs, instances):
    (root / "refcoco/refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    (root / "refcoco/instances.json").write_text(json.dumps(instances))


def test_drawn_folder_comes_back(tmp_path):
    refs, _ = refer_folder(tmp_path)
    path = build("refcoco", "unc", source=tmp_path, out_dir=tmp_path / "out")
    val = Refer(path, "val")
    assert len(val) == 2 and val.expression_counts().tolist() == [3, 1]
    for position in range(2):
        referent, ref = val[position], refs[2 + position]
        number = ref["image_id"]
        name = f"COCO_train2014_{number}.jpg"
        pixels = cv2.imread(str(tmp_path / "images/train2014" / name))[..., ::-1]
        np.testing.assert_array_equal(referent.image, pixels)
        assert referent.expressions == tuple(s["sent"] for s in ref["sentences"])
        assert referent.id == f"refcoco val ref_id {ref['ref_id']} ({name})"
        assert referent.image_id == number
    union = np.zeros((HEIGHT, WIDTH), bool)
    union[4:12, 4:12] = union[8:16, 8:20] = True
    np.testing.assert_array_equal(val[0].mask, union)
    crowd = np.zeros(HEIGHT * WIDTH, bool)
    crowd[100:150] = True
    np.testing.assert_array_equal(val[1].mask, crowd.reshape(WIDTH, HEIGHT).T)
    assert "tensorflow" not in sys.modules
    with pytest.raises(IndexError, match="referent 2 of a split of 2"):
        val[2]


@pytest.mark.parametrize(
    ("dataset", "split_by", "counts"),
    [
        ("refcoco", "unc", {"val": (50, 144), "testA": (26, 77), "testB": (27, 76)}),
        ("refcoco+", "unc", {"val": (50, 144), "testA": (26, 75), "testB": (27, 78)}),
        ("refcocog", "umd", {"val": (6, None), "test": (3, None)}),
    ],
)
def test_real_records_equal_their_files(shared, tmp_path, dataset, split_by, counts):
    root = shared / "data/mini_refcoco"
    path = build(dataset, split_by, source=root, out_dir=tmp_path)
    refs = safe_pickle.load(root / dataset / f"refs({split_by}).p")
    for split, (n_refs, n_sentences) in counts.items():
        records, expected = Refer(path, split), [r for r in refs if r["split"] == split]
        assert len(records) == len(expected) == n_refs
        if n_sentences is not None:
            assert records.expression_counts().sum() == n_sentences
        for referent, count, ref in zip(
            records, records.expression_counts(), expected, strict=True
        ):
            truth = cv2.imread(str(root / f"masks/{ref['ann_id']}.png"), cv2.IMREAD_GRAYSCALE)
            np.testing.assert_array_equal(referent.mask, truth > 0)
            assert referent.expressions == tuple(s["sent"] for s in ref["sentences"])
            assert len(referent.expressions) == count and referent.image_id == ref["image_id"]


def test_a_second_build_reads_nothing_and_other_files_are_noticed(tmp_path):
    refs, instances = refer_folder(tmp_path)
    path = build("refcoco", "unc", source=tmp_path, out_dir=tmp_path / "out")
    before = {file: file.stat().st_mtime_ns for file in path.iterdir()}
    assert build("refcoco", "unc", source=tmp_path, out_dir=tmp_path / "out") == path
    assert build("refcoco", "unc", source=tmp_path / "gone", out_dir=tmp_path / "out") == path
    assert {file: file.stat().st_mtime_ns for file in path.iterdir()} == before
    write(tmp_path, refs[:1], instances)
    with pytest.raises(ValueError, match="was built from other files"):
        build("refcoco", "unc", source=tmp_path, out_dir=tmp_path / "out")


def test_a_failed_build_leaves_nothing_that_looks_complete(tmp_path):
    refer_folder(tmp_path)
    picture = tmp_path / "images/train2014/COCO_train2014_3.jpg"
    data = picture.read_bytes()
    picture.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"val ref_id 23 \(COCO_train2014_3.jpg\): the picture"):
        build("refcoco", "unc", source=tmp_path, out_dir=tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.array_record*"))
    picture.write_bytes(data)
    assert (
        len(Refer(build("refcoco", "unc", source=tmp_path, out_dir=tmp_path / "out"), "val")) == 2
    )


@pytest.mark.parametrize("images", ["train2014", "images", "images/mscoco/images/train2014"])
def test_finds_pictures_in_the_usual_places(tmp_path, images):
    refer_folder(tmp_path, splits=("val",), images=images)
    path = build("refcoco", "unc", source=tmp_path, out_dir=tmp_path / "out")
    assert Refer(path, "val")[0].image.shape == (HEIGHT, WIDTH, 3)


def test_takes_pictures_from_a_given_folder(tmp_path):
    refer_folder(tmp_path / "refer", splits=("val",))
    (tmp_path / "refer/images/train2014").rename(tmp_path / "coco")
    path = build(
        "refcoco",
        "unc",
        source=tmp_path / "refer",
        out_dir=tmp_path / "out",
        image_dir=tmp_path / "coco",
    )
    assert len(Refer(path, "val")) == 2


def _other_height(refs, instances):
    instances["images"][1]["height"] = HEIGHT + 1


def _other_mask_size(refs, instances):
    instances["annotations"][1]["segmentation"]["size"] = [WIDTH, HEIGHT]


def _unknown_annotation(refs, instances):
    refs[1]["ann_id"] = 99


def _unknown_picture(refs, instances):
    refs[1]["image_id"] = 99


def _missing_picture(refs, instances):
    instances["images"][1]["file_name"] = "gone.jpg"


def _blank_expression(refs, instances):
    refs[1]["sentences"][0]["sent"] = " "


def _no_polygon(refs, instances):
    instances["annotations"][1]["segmentation"] = []


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (_other_height, r"instances.json says 25x40 \(height x width\) but the picture is 24x40"),
        (_other_mask_size, r"the mask is 40x24 \(height x width\) but the picture is 24x40"),
        (_unknown_annotation, "instances.json has no annotation 99"),
        (_unknown_picture, "instances.json has no picture 99"),
        (_missing_picture, "the picture .*gone.jpg is missing"),
        (_blank_expression, "an expression is empty"),
        (_no_polygon, "the mask cannot be read"),
    ],
)
def test_a_broken_record_is_named(tmp_path, break_it, message):
    refs, instances = refer_folder(tmp_path)
    break_it(refs, instances)
    write(tmp_path, refs, instances)
    with pytest.raises(ValueError, match=f"^refcoco train ref_id 21.*{message}"):
        build("refcoco", "unc", source=tmp_path, out_dir=tmp_path / "out")


def test_wrong_names_are_answered_with_the_right_ones(tmp_path):
    with pytest.raises(ValueError, match="no data set refcoco/umd, expected one of refcoco/unc, "):
        build("refcoco", "umd", source=tmp_path, out_dir=tmp_path / "out")
    with pytest.raises(ValueError, match=r"refs\(unc\).p is missing"):
        build("refcoco", "unc", source=tmp_path, out_dir=tmp_path / "out")
    with pytest.raises(ValueError, match="no records here"):
        Refer(tmp_path, "val")
    refer_folder(tmp_path)
    path = build("refcoco", "unc", source=tmp_path, out_dir=tmp_path / "out")
    with pytest.raises(ValueError, match="no split 'testA', expected one of train, val"):
        Refer(path, "testA")


def test_records_travel_to_a_worker_process(tmp_path):
    refer_folder(tmp_path)
    val = Refer(build("refcoco", "unc", source=tmp_path, out_dir=tmp_path / "out"), "val")
    again = pickle.loads(pickle.dumps(val))
    np.testing.assert_array_equal(again[1].mask, val[1].mask)


def test_pictures_decode_to_the_pixels_as_stored():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 8, 3), np.uint8)
    jpeg = cv2.imencode(".jpg", pixels)[1].tobytes()
    plain = decode_image(jpeg, name="x")
    rotated = decode_image(jpeg[:2] + EXIF_ROTATED + jpeg[2:], name="x")
    np.testing.assert_array_equal(rotated, plain)  # masks are drawn on unrotated pixels
    grey = decode_image(cv2.imencode(".png", pixels[..., 0])[1].tobytes(), name="x")
    np.testing.assert_array_equal(grey, np.repeat(pixels[..., :1], 3, axis=2))
    deep = decode_image(cv2.imencode(".png", pixels.astype(np.uint16) * 257)[1].tobytes(), name="x")
    np.testing.assert_array_equal(deep, pixels[..., ::-1])
    for damaged in (b"", b"no picture", jpeg[: len(jpeg) // 2]):
        with pytest.raises(ValueError, match="^x: the picture .* cannot be decoded"):
            decode_image(damaged, name="x")


def test_masks_in_every_coco_form_agree():
    truth = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    truth[4:12, 4:12] = 1
    compressed = rle.encode(truth)
    flat = np.concatenate([[0], truth.ravel(order="F"), [2]])
    runs = np.diff(np.flatnonzero(np.diff(flat)), prepend=0)
    text = {"size": [HEIGHT, WIDTH], "counts": compressed["counts"].decode()}
    listed = {"size": [HEIGHT, WIDTH], "counts": runs.tolist()}
    for form in ([SQUARE], compressed, text, listed):
        assert encode_mask(form, height=HEIGHT, width=WIDTH) == compressed["counts"]


def test_a_referent_checks_itself():
    image, mask = np.zeros((4, 6, 3), np.uint8), np.zeros((6, 4), bool)
    with pytest.raises((ValueError, TypeError), match="mask"):  # TypeError: run-time shape checks
        Referent(image=image, mask=mask, expressions=("a",), id="r1", image_id=0)
    with pytest.raises(ValueError, match="^r1: expected at least one expression"):
        Referent(image=image, mask=mask.T, expressions=(), id="r1", image_id=0)


PLAIN = [
    {"sent": "the man's çhair", "ids": [1, 2**70, -3], "box": (1.5, float("inf")), "none": None},
    {True, "a", 3},
    set(),
    b"\x00\xff",
    b"",
]


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_loads_in_every_protocol(tmp_path, protocol):
    path = tmp_path / "refs.p"
    path.write_bytes(pickle.dumps(PLAIN, protocol=protocol))
    assert safe_pickle.load(path) == PLAIN


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            b"(dp0\nS'sent'\np1\nS'left man'\np2\nsS'ref_id'\np3\nI7\ns.",
            {"sent": "left man", "ref_id": 7},
        ),
        (b"\x80\x02}q\x01U\x04sentq\x02U\x05caf\xc3\xa9s.", {"sent": "café"}),  # UTF-8
        (b"\x80\x02}q\x01U\x04sentq\x02U\x04caf\xe9s.", {"sent": "café"}),  # Latin-1
        (b"c__builtin__\nset\np0\n((lp1\nI1\natp2\nRp3\n.", {1}),
        (b"L12345678901234567890L\n.", 12345678901234567890),
    ],
)
def test_pickles_of_python_2_load(tmp_path, data, expected):
    path = tmp_path / "refs.p"
    path.write_bytes(data)
    assert safe_pickle.load(path) == expected


@pytest.mark.parametrize(
    ("program", "asks_for"),
    [
        ("cos\nsystem\n(S'touch {trap}'\ntR.", "os.system"),
        ("cposix\nsystem\n(S'touch {trap}'\ntR.", "posix.system"),
        ('cbuiltins\neval\n(S\'open("{trap}", "w")\'\ntR.', "builtins.eval"),
        ("c__builtin__\nopen\n(S'{trap}'\nS'w'\ntR.", "__builtin__.open"),
        ("(S'{trap}'\nS'w'\nibuiltins\nopen\n.", "builtins.open"),
        ("cpathlib\nPath\n(S'{trap}'\ntR.", "pathlib.Path"),
        ("\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.", "builtins.getattr"),
        ("ccopyreg\n_reconstructor\n.", "copyreg._reconstructor"),
        ("Pexternal\n.", "the external object"),
    ],
)
def test_hostile_pickles_are_refused_and_nothing_runs(tmp_path, program, asks_for):
    trap, path = tmp_path / "trap", tmp_path / "refs(unc).p"
    path.write_bytes(program.format(trap=trap).encode("latin1"))
    with pytest.raises(ValueError, match=r"refs\(unc\).p: the pickle asks for .*" + asks_for):
        safe_pickle.load(path)
    assert not trap.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04}",
        b"hello",
        b"]K\x01K\x02s.",
        b"\x80\x04\x8c\x02\xff\xfe.",
        b"c__builtin__\nset\n(I1000000000000\ntR.",
        b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",
        b"c__builtin__\nset\n(dS'__class__'\nI1\nsb.",
    ],
)
def test_damaged_pickles_are_named(tmp_path, data):
    path = tmp_path / "refs.p"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="refs.p: not a readable pickle"):
        safe_pickle.load(path)

"""Objects in every form that annotation files have, and their union."""

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle

from dit_jax.data.entries import Entry, MaskFile
from dit_jax.data.pixels.masks import broken_parts, entry_mask
from dit_jax.data.pixels.run_lengths import decode

HEIGHT, WIDTH = 24, 40
SQUARE = [4, 4, 12, 4, 12, 12, 4, 12]
OVERLAPPING = [8, 8, 20, 8, 20, 16, 8, 16]


def entry(*segmentations):
    return Entry(
        name="r1",
        split="val",
        file_name="a.jpg",
        image_id=1,
        size=(HEIGHT, WIDTH),
        segmentations=segmentations,
        boxes=(),
        expressions=("a thing",),
        ref_id=1,
        ann_ids=(),
        sent_ids=(1,),
    )


def mask_of(*segmentations):
    counts = entry_mask(entry(*segmentations), height=HEIGHT, width=WIDTH)
    return decode(counts, height=HEIGHT, width=WIDTH)


def rectangle(top, bottom, left, right):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


def forms(mask, folder):
    """One mask in every form, a box and polygons apart."""
    compressed = rle.encode(np.asfortranarray(mask, np.uint8))
    flat = np.concatenate([[False], mask.ravel(order="F"), [not mask[-1, -1]]])
    runs = np.diff(np.flatnonzero(np.diff(flat)), prepend=0).tolist()
    cv2.imwrite(str(folder / "mask.png"), mask.astype(np.uint8))  # 1 is foreground already
    return {
        "runs": {"size": [HEIGHT, WIDTH], "counts": runs},
        "text": {"size": [HEIGHT, WIDTH], "counts": compressed["counts"].decode()},
        "bytes": compressed,
        "file": MaskFile(folder / "mask.png"),
    }


def test_every_form_says_the_same(tmp_path):
    truth = rectangle(4, 12, 4, 12)
    found = {**forms(truth, tmp_path), "polygon": [SQUARE], "box": (4.0, 4.0, 8.0, 8.0)}
    expected = found["bytes"]["counts"]
    for name, form in found.items():
        assert entry_mask(entry(form), height=HEIGHT, width=WIDTH) == expected, name


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_of_any_mask_come_back(tmp_path, seed):
    rng = np.random.default_rng(seed)
    truth = rng.random((HEIGHT, WIDTH)) < rng.random() ** 3
    truth[: rng.integers(HEIGHT)] = True  # long runs
    truth[-1, -1] = True
    for name, form in forms(truth, tmp_path).items():
        np.testing.assert_array_equal(mask_of(form), truth, err_msg=name)


def test_parts_and_objects_are_merged_never_summed(tmp_path):
    square, other = rectangle(4, 12, 4, 12), rectangle(8, 16, 8, 20)
    np.testing.assert_array_equal(mask_of([SQUARE, OVERLAPPING]), square | other)
    np.testing.assert_array_equal(mask_of([SQUARE], [OVERLAPPING]), square | other)
    mixed = (
        forms(other, tmp_path)["runs"],
        [SQUARE],
        (30.0, 20.0, 5.0, 3.0),
        MaskFile(tmp_path / "m.png"),
    )
    cv2.imwrite(str(tmp_path / "m.png"), rectangle(0, 2, 0, 2).astype(np.uint8) * 255)
    union = square | other | rectangle(20, 23, 30, 35) | rectangle(0, 2, 0, 2)
    np.testing.assert_array_equal(mask_of(*mixed), union)


def test_nothing_meant_is_an_empty_mask():
    assert not mask_of().any()


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        ([4, 4, 8, 8], "has 4 numbers"),  # pycocotools alone would draw a box
        ([20, 2, 30, 2, 30], "has 5 numbers"),
        ([20, 2, 30, 2, 30, 12, 20], "has 7 numbers"),
        ([], "has 0 numbers"),
        ([20, 2, 30, 2, float("nan"), 12], "coordinate"),
        ([20, 2, 30, 2, float("inf"), 12], "coordinate"),
        ([20, 2, 30, 2, 1e12, 12], "coordinate"),  # pycocotools alone would run out of memory
        ([20, 2, 30, 2, "30", 12], "coordinate"),
        (30, "is a int"),
    ],
)
def test_a_broken_polygon_part_is_left_out_and_told(part, problem):
    for parts in ([part, SQUARE], [SQUARE, part]):
        np.testing.assert_array_equal(mask_of(parts), rectangle(4, 12, 4, 12))
        (told,) = broken_parts(entry([OVERLAPPING], parts))
        assert problem in told
        assert told.startswith(f"object 2 of 2: polygon part {1 + parts.index(part)} of 2 ")
    with pytest.raises(ValueError, match=f"^object 1 of 1: the mask is empty: .*{problem}"):
        mask_of([part])
    assert broken_parts(entry([SQUARE], (0.0, 0.0, 1.0, 1.0))) == [] == broken_parts(entry())


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((4.0, 4.0, 8.0, 8.0), (4, 12, 4, 12)),
        ((-3.0, -5.0, 5.0, 6.0), (0, 1, 0, 2)),  # cut to the picture
        ((38.6, 20.4, 100.0, 100.0), (20, 24, 39, 40)),  # pixels whose centres are inside
        ((0.0, 0.0, 1e300, 1e300), (0, 24, 0, 40)),
    ],
)
def test_boxes_are_filled_and_cut_to_the_picture(box, expected):
    np.testing.assert_array_equal(mask_of(box), rectangle(*expected))


def test_mask_pictures_of_every_kind(tmp_path):
    truth = rectangle(3, 9, 5, 30)
    path = tmp_path / "m.png"
    clear = np.where(truth, 255, 0).astype(np.uint8)
    kinds = {
        "16 bits": truth.astype(np.uint16),
        "colour": np.stack([np.zeros_like(clear), np.zeros_like(clear), truth], axis=2),
        "opaque": np.stack([clear, clear, clear, np.full_like(clear, 255)], axis=2),
    }
    for name, pixels in kinds.items():
        cv2.imwrite(str(path), pixels)
        np.testing.assert_array_equal(mask_of(MaskFile(path)), truth, err_msg=name)


def _size(value):
    return {"size": value, "counts": [HEIGHT * WIDTH - 5, 5]}


def _counts(value):
    return {"size": [HEIGHT, WIDTH], "counts": value}


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], "the mask is empty: none of its 0 polygon parts is left"),
        (_size([WIDTH, HEIGHT]), r"the mask is 40x24 \(height x width\) but the picture is 24x40"),
        (_size(24), r"the mask is 24 \(height x width\) but"),
        ({"counts": [1]}, "run lengths without 'size'"),
        ({"size": [HEIGHT, WIDTH]}, "run lengths without 'counts'"),
        # pycocotools alone would return what happened to lie in memory.
        (_counts([3, 2]), "do not add up to the 960 pixels"),
        (_counts([3, 2, 10_000]), "do not add up to the 960 pixels"),
        (_counts([962, -2]), "do not add up to the 960 pixels"),
        (_counts([959.0, 1.0]), "do not add up to the 960 pixels"),
        (_counts(5), "run lengths are given as int"),
        (_counts("zz"), "run lengths are damaged, expected COCO's compressed counts"),
        (_counts("o"), "run lengths are damaged"),
        (_counts([HEIGHT * WIDTH]), "the mask is empty, but 1 object"),
        ((100.0, 100.0, 5.0, 5.0), "covers no pixel of a 24x40 picture"),
        ((1.0, 1.0, 0.0, 5.0), "size above 0"),
        ((1.0, 1.0, float("nan"), 5.0), "size above 0"),
    ],
)
def test_a_wrong_mask_gets_one_sentence(segmentation, message):
    with pytest.raises(ValueError, match=message) as caught:
        mask_of(segmentation)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_wrong_mask_pictures_are_named(tmp_path):
    path = tmp_path / "m.png"
    with pytest.raises(ValueError, match="object 1 of 1: the mask picture .*m.png is missing"):
        mask_of(MaskFile(path))
    cv2.imwrite(str(path), np.ones((WIDTH, HEIGHT), np.uint8))
    with pytest.raises(ValueError, match=r"m.png is 40x24 \(height x width\) but the picture is"):
        mask_of(MaskFile(path))
    jpeg = cv2.imencode(".jpg", rectangle(4, 12, 4, 12).astype(np.uint8))[1].tobytes()
    for data in (b"", b"no picture", jpeg, path.read_bytes()[:40]):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="m.png cannot be read, expected a complete PNG"):
            mask_of(MaskFile(path))


def test_an_unknown_mask_is_no_empty_mask():
    unknown = Entry(**{**vars(entry()), "segmentations": None})
    with pytest.raises(ValueError, match="its mask is unknown"):
        entry_mask(unknown, height=HEIGHT, width=WIDTH)
    assert broken_parts(unknown) == []

"""A check finds what is wrong with a data set, all of it, and says it shortly."""

import dataclasses
import zipfile

import cv2
import numpy as np
import pytest
import refer_folders
from refer_folders import HEIGHT, WIDTH

from dit_jax.data.annotations import datasets
from dit_jax.data.annotations.published import PUBLISHED, Count
from dit_jax.data.check.dataset import Problem, Report, check
from dit_jax.data.check.report import verdict
from dit_jax.data.entries import Annotations, Entry, MaskFile, Reading
from dit_jax.data.pixels.picture_size import picture_size
from dit_jax.data.tokenizer import Tokenizer

SQUARE = [4, 6, 24, 6, 24, 30, 4, 30]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "square", "number", "left", "##s"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("refer")
    refer_folders.write(root, "refcoco", "unc", {"train": (1, 1, 2), "val": (3,)})
    return root / "images/train2014"


@pytest.fixture
def tokenizer(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    return Tokenizer(tmp_path / "vocab.txt", length=6)


def entry(number=0, **changes):
    """The square on picture 1 of `pictures`, in train."""
    sound = Entry(
        name=f"other train ref_id {number}",
        split="train",
        file_name="COCO_train2014_000000000001.jpg",
        image_id=1,
        size=(HEIGHT, WIDTH),
        segmentations=([SQUARE],),
        boxes=((4.0, 6.0, 20.0, 24.0),),
        expressions=("the left square", "left"),
        ref_id=number,
        ann_ids=(100 + number,),
        sent_ids=(0, 1),
    )
    return dataclasses.replace(sound, **changes)


def annotations(pictures, *entries, dataset="other"):
    splits = dict.fromkeys(dict.fromkeys(one.split for one in entries), ())
    for one in entries:
        splits[one.split] += (one,)
    return Annotations(dataset=dataset, splits=splits, sources={}, images=pictures)


def kinds(report):
    return [problem.kind for problem in report.problems]


def test_nothing_is_found_where_nothing_is_wrong(pictures, tokenizer):
    report = check(annotations(pictures, entry()), tokenizer=tokenizer)
    assert report.problems == () and report.unchecked == ()
    assert report.counts == {"train": (1, 2)} and report.pictures == {"train": 1}
    assert str(report).endswith("No problem was found.")


OTHER = "COCO_train2014_000000000002.jpg"
ALONE = dict(split="val", file_name="COCO_train2014_000000000003.jpg", image_id=3)
CROWD = {"size": [HEIGHT, WIDTH], "counts": [100, 50, HEIGHT * WIDTH - 150]}
EVERYTHING = [[0, 0, WIDTH, 0, WIDTH, HEIGHT, 0, HEIGHT]]
FATAL = {
    "pictures that are missing": dict(file_name="gone.jpg"),
    "pictures of another size": dict(size=(HEIGHT, WIDTH + 1), boxes=()),
    "referents without an expression": dict(expressions=(), sent_ids=()),
    "expressions without a word": dict(
        expressions=("left", " \t"),
    ),
    "masks that cannot be used": dict(segmentations=([],)),
    "masks that are unknown": dict(segmentations=None),
}
WARNINGS = {
    "splits of unusual names": dict(split="minival"),
    "pictures in two splits": dict(split="val"),
    "ref_ids that repeat": dict(ref_id=0),
    "sentences that repeat for a referent": dict(expressions=("left", "left")),
    "polygon parts that are left out": dict(segmentations=([SQUARE, [1, 2, 3, 4]],)),
    "masks of crowds": dict(segmentations=(CROWD,), boxes=(), crowds=(True,)),
    "boxes off their picture": dict(boxes=((4.0, 6.0, 20.0, 44.0),)),
    "masks of whole pictures": dict(segmentations=(EVERYTHING,), boxes=()),
    "masks elsewhere than their boxes": dict(boxes=((40.0, 6.0, 20.0, 24.0),)),
    "sentences that are cut": dict(expressions=("the left squares number left",)),
    "words outside the vocabulary": dict(expressions=("the left zebra",)),
}


@pytest.mark.parametrize("kind", [*FATAL, *WARNINGS])
def test_each_kind_of_problem_is_found(pictures, tokenizer, kind):
    changes = (FATAL | WARNINGS)[kind]
    report = check(annotations(pictures, entry(), entry(1, **changes)), tokenizer=tokenizer)
    extra = ["pictures in two splits"] if changes.get("split") == "minival" else []
    assert sorted(kinds(report)) == sorted([kind, *extra])
    problem = next(problem for problem in report.problems if problem.kind == kind)
    assert problem.fatal == (kind in FATAL)
    whole = ("splits of", "ref_ids", "pictures in two", "masks that are unknown")
    assert problem.name == ("other" if kind.startswith(whole) else "other train ref_id 1")
    assert problem.text.endswith((".", "'"))


def test_a_word_that_the_tokenizer_drops_is_none(pictures, tokenizer):
    text = "\u200b\u200d"  # no white space, but nothing of it is left
    report = check(annotations(pictures, entry(expressions=(text, "left"))), tokenizer=tokenizer)
    assert kinds(report) == ["expressions without a word"] and report.fatal


def test_what_is_said_of_a_problem_names_it(pictures, tokenizer):
    said = {
        problem.kind: problem.text
        for changes in (FATAL | WARNINGS).values()
        for problem in check(
            annotations(pictures, entry(), entry(1, **changes)), tokenizer=tokenizer
        ).problems
    }
    assert said["pictures that are missing"].endswith("gone.jpg is missing.")
    assert "the annotations say 48x65 (height x width) but" in said["pictures of another size"]
    assert "object 1 of 1: the mask is empty" in said["masks that cannot be used"]
    assert said["masks that are unknown"].endswith(" with it the masks of 1 referent.")
    assert (
        said["splits of unusual names"]
        == "there is a split 'minival', expected train, val or test…."
    )
    assert said["pictures in two splits"] == "train and val share 1 picture, such as 1."
    assert said["sentences that repeat for a referent"] == "'left' is said 2 times."
    assert said["sentences that are cut"].startswith("8 tokens, 6 are read: 'the left sq")
    assert "has 4 numbers" in said["polygon parts that are left out"]
    assert "the boxes span x 40, y 6, width 20" in said["masks elsewhere than their boxes"]


def test_all_pictures_missing_is_one_problem(tmp_path, pictures):
    report = check(annotations(tmp_path / "gone", entry(), entry(1)))
    assert kinds(report) == ["pictures that are all missing"] and report.hopeless
    assert "gone is missing; expected a folder or a zip file" in report.problems[0].text


def test_a_picture_is_one_problem_for_all_its_referents(pictures):
    gone = [entry(number, file_name="gone.jpg") for number in range(3)]
    report = check(annotations(pictures, *gone))
    assert kinds(report) == ["pictures that are missing"]
    assert report.problems[0].name == "other train ref_id 0"
    assert report.problems[0].text.endswith("(3 referents)")


def test_damaged_pictures_are_found_in_folders_and_zip_files(tmp_path, pictures):
    name = "COCO_train2014_000000000001.jpg"
    data = (pictures / name).read_bytes()
    with zipfile.ZipFile(tmp_path / "train2014.zip", "w") as archive:
        archive.writestr(f"train2014/{name}", data)
        archive.writestr(f"train2014/{OTHER}", data[: len(data) // 2])
    broken = entry(1, file_name=OTHER, image_id=2)
    report = check(annotations(tmp_path / "train2014.zip", entry(), broken))
    assert kinds(report) == ["pictures that cannot be read"]
    assert "cannot be decoded" in report.problems[0].text


def test_sizes_come_from_pictures_where_annotations_say_none(tmp_path, pictures):
    cv2.imwrite(str(tmp_path / "mask.png"), np.zeros((HEIGHT, WIDTH), np.uint8))
    empty = entry(1, size=None, segmentations=(MaskFile(tmp_path / "mask.png"),))
    data = annotations(pictures, entry(size=None), empty)
    assert kinds(check(data)) == ["masks that cannot be used"]
    report = check(data, pictures=False)
    assert report.problems == ()
    assert report.unchecked[1:] == (
        "pictures.",
        "2 masks, because nothing says how large their pictures are.",
    )


def test_run_lengths_alone_are_no_crowd(pictures):
    lengths = entry(segmentations=(CROWD,), boxes=())
    assert check(annotations(pictures, lengths)).problems == ()


def test_what_was_not_evident_about_a_mask_is_said(tmp_path, pictures):
    soft = np.zeros((HEIGHT, WIDTH), np.uint8)
    soft[6:30, 4:24] = 255
    cv2.imwrite(str(tmp_path / "soft.png"), cv2.GaussianBlur(soft, (5, 5), 0))
    file = MaskFile(tmp_path / "soft.png")
    (problem,) = check(annotations(pictures, entry(segmentations=(file,)))).problems
    assert (problem.kind, problem.fatal) == ("masks that are not evident", False)
    assert problem.text.startswith("object 1 of 1: the mask picture soft.png has ")


def test_nothing_meant_is_counted_and_no_problem(pictures):
    report = check(annotations(pictures, entry(), entry(1, segmentations=(), boxes=())))
    assert report.problems == () and report.nothing == {"train": 1}
    assert "no target" in str(report).splitlines()[2]


def test_own_pictures_are_the_same_by_their_names(pictures):
    own = [entry(0, image_id=None), entry(1, image_id=None, split="val")]
    assert kinds(check(annotations(pictures, *own))) == ["pictures in two splits"]
    other = entry(1, image_id=None, split="val", file_name=OTHER)
    assert check(annotations(pictures, own[0], other)).problems == ()


def test_own_words_for_several_objects_of_a_picture_are_said(pictures):
    """Of which a model can learn none. Published ones are as they are."""
    other = [[SQUARE[0] + 30, *SQUARE[1:]]]
    changes = [
        dict(expressions=("left", "left square")),  # the same object
        dict(segmentations=(other,), boxes=(), expressions=("a square", "the left square")),
        dict(segmentations=(), boxes=(), expressions=("the left square",)),
        dict(segmentations=(other,), boxes=(), file_name=OTHER),
    ]
    own = [entry(n, image_id=None, **one) for n, one in enumerate([{}, *changes])]
    found = annotations(pictures, *own)
    (problem,) = check(found).problems
    assert (problem.name, problem.fatal) == (own[0].name, False)
    assert problem.kind == "words that mean several objects of a picture"
    assert problem.text == (
        "'the left square' means 3 masks of COCO_train2014_000000000001.jpg, such as that of other"
        " train ref_id 2."
    )
    masks = dataclasses.replace(found, reading=Reading(captions="optional"))
    assert check(masks).problems == ()


def test_counts_are_compared_with_the_published_ones(pictures):
    report = check(annotations(pictures, entry(), dataset="refcocog(google)"))
    assert [problem.text for problem in report.problems] == [
        "train: expected 44,822 referents, found 1; expected 85,474 expressions, found 2.",
        "val: expected 5,000 referents, found none; expected 9,536 expressions, found none.",
    ]
    assert not report.fatal
    val = next(line for line in str(report).splitlines() if line.startswith("val"))
    assert val.split() == ["val", "0", "5,000", "0", "9,536", "0", "missing"]


def test_a_partition_of_unknown_counts_is_only_counted(pictures):
    """REFER's own list does not have it, so that no split of it is missing or odd."""
    report = check(annotations(pictures, entry(), dataset="refcoco+(google)"))
    assert report.problems == ()
    assert "verdict" not in str(report) and "published" not in str(report)


@pytest.mark.parametrize(
    ("found", "expected", "says"),
    [
        ((3, 7), Count(3, 7), "as published"),
        ((3, 7), Count(3, None), "as published, where known"),
        ((3, 7), Count(None, 8), "differs"),
        ((4, 7), Count(3, 7), "differs"),
        ((0, 0), Count(3, 7), "missing"),
        ((3, 7), Count(None, None), "no published count"),
    ],
)
def test_verdicts(found, expected, says):
    assert verdict(found, expected) == says


def test_published_counts_are_those_of_every_kind_of_data_set():
    known = [f"{name}({by})" for name, row in datasets.KINDS.items() for by in row.splits_by if by]
    assert sorted(PUBLISHED) == sorted(known)
    assert sum(count.expressions for count in PUBLISHED["refcoco(unc)"].values()) == 142_210


def test_the_real_photographs_have_no_fatal_problem(shared):
    for dataset, split_by in (("refcoco", "unc"), ("refcoco+", "unc"), ("refcocog", "umd")):
        found = datasets.open_annotations(dataset, split_by, source=shared / "data/mini_refcoco")
        report = check(found)
        assert set(kinds(report)) == {
            "splits of other sizes than published",
            "sentences that repeat for a referent",
        }


def test_a_report_is_short():
    many = [Problem("odd things", False, f"record {number}", "x" * 500) for number in range(1000)]
    worst = Problem("missing things", True, "other", "all of them.")
    report = Report(
        dataset="other",
        counts={"train": (1000, 2000), "val": (1, 1)},
        pictures={"train": 10, "val": 1},
        nothing={"train": 0, "val": 0},
        problems=(*many, worst),
        unchecked=("this.",),
    )
    text = str(report)
    lines = text.splitlines()
    assert lines[0] == "other: 1,001 referents, 2,001 expressions"
    assert lines[2] == "split  referents  expressions  pictures"
    assert lines[3] == "train      1,000        2,000        10"
    assert text.count("record ") == 3 and max(map(len, lines)) <= 170
    assert text.index("Stops the build (1):") < text.index("Worth knowing (1,000):")
    assert lines[-1] == "Not checked: this."
    remarks = report.remarks()
    assert remarks[0] == "missing things: all of them."
    assert remarks[1].startswith("odd things: 1,000, the first: record 0: xxx")


def encoded(pixels, kind, *options):
    return cv2.imencode(kind, pixels, options)[1].tobytes()


def test_sizes_from_headers_are_those_of_the_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (37, 300, 3), np.uint8)
    jpeg = encoded(pixels, ".jpg")
    forms = {
        "jpeg": jpeg,
        "progressive": encoded(pixels, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "restarts": encoded(pixels, ".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
        "grey": encoded(pixels[..., 0], ".jpg"),
        "long comment": jpeg[:2] + b"\xff\xfe\xff\x00" + b"\xff" * 65278 + jpeg[2:],
        "filled up": jpeg[:2] + b"\xff\xff" + jpeg[2:],
        "followed by padding": jpeg + b"\0" * 20,
        "png": encoded(pixels, ".png"),
        "bmp": encoded(pixels, ".bmp"),
        "webp": encoded(pixels, ".webp"),
    }
    for name, data in forms.items():
        assert picture_size(data, name=name) == (37, 300), name


@pytest.mark.parametrize("kind", [".jpg", ".png", ".bmp"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_pictures_that_are_cut_off_have_no_size(kind, share):
    data = encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), kind)
    with pytest.raises(ValueError, match="^x: the picture .* cannot be decoded"):
        picture_size(data[: int(share * len(data))], name="x")

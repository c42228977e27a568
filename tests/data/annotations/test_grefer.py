"""gRefCOCO's file of expressions: several targets, none, and the variants that are about."""

import json
import pickle

import numpy as np
import pytest
import refer_folders
from refer_folders import HEIGHT, WIDTH

from dit_jax.data import records
from dit_jax.data.annotations import grefer
from dit_jax.data.entries import Reading
from dit_jax.data.pixels.masks import entry_mask
from dit_jax.data.pixels.run_lengths import decode
from dit_jax.data.prepare import prepare


@pytest.fixture
def root(tmp_path):
    """Two objects of picture 1 in train, and one referent each that means both, one and none."""
    refer_folders.write(tmp_path, "grefcoco", "unc", {"train": (1, 1)})
    (tmp_path / "grefcoco/refs(unc).p").unlink()
    write(tmp_path, record(7, [100, 101]), record(8, [100]), record(9, [-1]))
    return tmp_path


def record(ref_id, ann_id, **changes):
    ids = ann_id if isinstance(ann_id, list) else [ann_id]
    return {
        "image_id": 1,
        "split": "train",
        "sentences": [
            {"sent_id": 10 * ref_id, "sent": f"thing {ref_id}", "raw": "Thing", "tokens": ["thing"]}
        ],
        "file_name": "COCO_train2014_000000000001.jpg",
        "category_id": [1] * len(ids),
        "ann_id": ann_id,
        "sent_ids": [10 * ref_id],
        "ref_id": ref_id,
        "no_target": ids == [-1],
    } | changes


def write(root, *records):
    (root / "grefcoco/grefs(unc).json").write_text(json.dumps(records))


def test_several_targets_one_and_none(root):
    found = grefer.read("unc", source=root)
    assert found.dataset == "grefcoco(unc)" and list(found.splits) == ["train"]
    assert found.sources["refs"] == root / "grefcoco/grefs(unc).json"
    both, one, none = found.splits["train"]
    assert [e.ann_ids for e in (both, one, none)] == [(100, 101), (100,), ()]
    assert [len(e.segmentations) for e in (both, one, none)] == [2, 1, 0]
    assert [len(e.boxes) for e in (both, one, none)] == [2, 1, 0]
    assert none.name == "grefcoco(unc) train ref_id 9" and none.size == (HEIGHT, WIDTH)
    assert none.expressions == ("thing 9",) and none.sent_ids == (90,)
    union = np.zeros((HEIGHT, WIDTH), bool)
    union[6:30, 4:32] = True  # 4 to 24 and 12 to 32
    mask = entry_mask(both, height=HEIGHT, width=WIDTH)
    np.testing.assert_array_equal(decode(mask, height=HEIGHT, width=WIDTH), union)
    empty = entry_mask(none, height=HEIGHT, width=WIDTH)
    assert not decode(empty, height=HEIGHT, width=WIDTH).any()


def test_variants_that_mean_the_same(root):
    expected = grefer.read("unc", source=root).splits
    records = [record(7, [100, 101]), record(8, 100), record(9, [-1])]
    for one in records:
        del one["no_target"]
    write(root, *records)
    assert grefer.read("unc", source=root).splits == expected
    write(root, *records[:2], record(9, [], no_target=True))
    assert grefer.read("unc", source=root).splits == expected
    write(root, *records[:2], record(9, -1))
    assert grefer.read("unc", source=root).splits == expected


def test_a_pickle_is_read_where_there_is_no_json(root):
    file = root / "grefcoco/grefs(unc).json"
    (root / "grefcoco/grefs(unc).p").write_bytes(pickle.dumps(json.loads(file.read_text())))
    expected = grefer.read("unc", source=root)
    file.unlink()
    found = grefer.read("unc", source=root)
    assert found.splits == expected.splits
    assert found.sources["refs"] == root / "grefcoco/grefs(unc).p"


def test_without_instances_only_nothing_is_known(root):
    (root / "grefcoco/instances.json").unlink()
    entries = grefer.read("unc", source=root).splits["train"]
    assert [entry.segmentations for entry in entries] == [None, None, ()]


@pytest.mark.parametrize(
    ("ann_id", "changes", "message"),
    [
        ([100], {"no_target": True}, r"'ann_id' is \(100,\) and 'no_target' is True, expected"),
        ([-1], {"no_target": False}, r"'ann_id' is \(-1,\) and 'no_target' is False, expected"),
        ([-1, 100], {}, r"'ann_id' is \(-1, 100\)"),
        ([], {"no_target": False}, r"'ann_id' is \(\) and"),
        (["100"], {}, r"'ann_id' is \('100',\), expected whole numbers"),
        ("100", {}, "'ann_id' is '100', expected int | list"),
        ([100], {"no_target": 0}, "'no_target' is 0, expected true or false"),
        ([555], {}, "ref_id 9: there is no annotation 555"),
    ],
)
def test_what_is_wrong_is_named(root, ann_id, changes, message):
    write(root, record(8, [100]), record(9, ann_id, **changes))
    with pytest.raises(ValueError, match=message):
        grefer.read("unc", source=root)


@pytest.mark.parametrize("sentences", [[], [" "], [" ", "\t"]])
@pytest.mark.parametrize("ann_id", [[100], [-1], [100, 101]])
def test_referents_without_a_sentence_vanish_with_a_remark(root, tmp_path, sentences, ann_id):
    """The published file has some: it is built and trained on, and says so."""
    said = [{"sent_id": 5, "sent": text, "raw": text, "tokens": []} for text in sentences]
    write(root, record(7, [100]), record(8, ann_id, sentences=said, sent_ids=[]))
    found = grefer.read("unc", source=root)
    assert [entry.ref_id for entry in found.splits["train"]] == [7]
    (remark,) = found.remarks
    assert remark.kind == "referents without a sentence"
    assert remark.name == "grefcoco(unc) train ref_id 8"
    path = prepare("grefcoco", "unc", source=root, out_dir=tmp_path / "out")
    assert len(records.Records(path, "train")) == 1
    assert any("referents without a sentence" in one for one in records.manifest(path)["remarks"])


def crowded(root, iscrowd=1):
    """The second object of picture 1 becomes a crowd, as COCO writes one."""
    file = root / "grefcoco/instances.json"
    instances = json.loads(file.read_text())
    (crowd,) = (thing for thing in instances["annotations"] if thing["id"] == 101)
    counts = [HEIGHT * (WIDTH - 4), 2 * HEIGHT, 2 * HEIGHT]
    crowd.update(iscrowd=iscrowd, segmentation={"size": [HEIGHT, WIDTH], "counts": counts})
    file.write_text(json.dumps(instances))


@pytest.mark.parametrize("iscrowd", [1, "1", 1.0, True])
def test_a_crowd_in_another_form(root, iscrowd):
    crowded(root, iscrowd)
    write(root, record(7, [100, 101]), record(8, [100]))
    found = grefer.read("unc", source=root).splits["train"]
    assert [entry.crowds for entry in found] == [(False, True), ()]


def masks(path, split):
    source = records.Records(path, split)
    return {source.truth(i).id.split(" (")[0]: source.truth(i).mask for i in range(len(source))}


def test_crowds_count_or_do_not(root, tmp_path):
    """GSVA counts them in, ReLA leaves them out; what means only crowds is left out with them."""
    crowded(root)
    write(root, record(7, [100, 101]), record(8, [100]), record(9, [101]), record(10, [-1]))
    square, crowd = np.zeros((2, HEIGHT, WIDTH), bool)
    square[6:30, 4:24] = True
    crowd[:, WIDTH - 4 : WIDTH - 2] = True
    name = "grefcoco(unc) train ref_id {}".format
    kept = {name(7): square | crowd, name(8): square, name(9): crowd, name(10): square & False}
    dropped = {name(7): square, name(8): square, name(10): square & False}
    for crowds, expected in (("keep", kept), ("drop", dropped)):
        how = dict(source=root, out_dir=tmp_path / crowds)
        path = prepare("grefcoco", "unc", **how, reading=Reading(crowds=crowds))
        found = masks(path, "train")
        assert found.keys() == expected.keys()
        for one, mask in expected.items():
            np.testing.assert_array_equal(found[one], mask, err_msg=f"{crowds} {one}")
        assert records.Records(path, "train").remarks() == {"crowds": crowds}
        said = [line.split(":")[0] for line in records.manifest(path)["remarks"]]
        assert {"masks of crowds", "crowds that are left out"} & set(said) == {
            "masks of crowds" if crowds == "keep" else "crowds that are left out"
        }
        other = Reading(crowds="drop" if crowds == "keep" else "keep")
        with pytest.raises(ValueError, match=f"was built with crowds={crowds}, and crowds="):
            prepare("grefcoco", "unc", **how, reading=other)


def test_a_missing_or_damaged_file_is_named(root):
    (root / "grefcoco/grefs(unc).json").write_text("[{")
    with pytest.raises(ValueError, match=r"grefs\(unc\).json: not readable as JSON"):
        grefer.read("unc", source=root)
    (root / "grefcoco/grefs(unc).json").unlink()
    with pytest.raises(ValueError, match=r"grefs\(unc\).json is missing; expected gRefCOCO's"):
        grefer.read("unc", source=root)

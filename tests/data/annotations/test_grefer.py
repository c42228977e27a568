"""gRefCOCO's file of expressions: several targets, none, and the variants that are about."""

import json
import pickle

import numpy as np
import pytest
import refer_folders
from refer_folders import HEIGHT, WIDTH

from dit_jax.data.annotations import grefer
from dit_jax.data.pixels.masks import entry_mask
from dit_jax.data.pixels.run_lengths import decode


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


def test_a_missing_or_damaged_file_is_named(root):
    (root / "grefcoco/grefs(unc).json").write_text("[{")
    with pytest.raises(ValueError, match=r"grefs\(unc\).json: not readable as JSON"):
        grefer.read("unc", source=root)
    (root / "grefcoco/grefs(unc).json").unlink()
    with pytest.raises(ValueError, match=r"grefs\(unc\).json is missing; expected gRefCOCO's"):
        grefer.read("unc", source=root)

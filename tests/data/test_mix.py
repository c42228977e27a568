"""Mixes of data sets: how they are written, put together, and cleared of shared pictures."""

import itertools
import pickle

import numpy as np
import pytest

from dit_jax.data import mix
from dit_jax.data.mix import KINDS, Mix, Part, Split, Subset
from dit_jax.data.referent import Referent, Source, Truth

DEFAULTS = dict(split_by="unc", source="photos")


class Numbered:
    """A source whose referent i is of picture `ids[i]` and has i + 1 expressions."""

    def __init__(self, ids, tag="a"):
        self.ids, self.tag = ids, tag

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Referent:
        if not 0 <= index < len(self):
            raise IndexError(index)
        image = np.full((4, 6, 3), self.ids[index] % 256, np.uint8)
        texts = tuple(f"{self.tag}{index} {i}" for i in range(index + 1))
        return Referent(image, image[..., 0] > 3, texts, f"{self.tag}{index}", self.ids[index])

    def truth(self, index: int) -> Truth:
        return self[index].truth()

    def expression_counts(self) -> np.ndarray:
        return np.arange(len(self)) + 1

    def image_ids(self) -> np.ndarray:
        return np.array(self.ids, np.int64)


def parsed(text):
    return [str(part) for part in mix.parse(text, **DEFAULTS)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("refcoco", ["refcoco(unc)"]),
        ("refcoco+", ["refcoco+(unc)"]),
        ("refcoco+refcocog", ["refcoco(unc)", "refcocog(unc)"]),
        ("refcoco++refcocog", ["refcoco+(unc)", "refcocog(unc)"]),
        ("refcoco+refcoco+", ["refcoco(unc)", "refcoco+(unc)"]),
        ("refcoco(google)+refcoco", ["refcoco(google)", "refcoco(unc)"]),
        (
            "refcoco(unc)+refcoco+(unc)+refcocog(umd)",
            ["refcoco(unc)", "refcoco+(unc)", "refcocog(umd)"],
        ),
        ("folder+shapes", ["folder(photos)", "shapes"]),
        ("folder(/a/my photos+)+grefcoco", ["folder(/a/my photos+)", "grefcoco(unc)"]),
    ],
)
def test_mixes_as_people_write_them(text, parts):
    assert parsed(text) == parts


def test_every_pair_of_parts_is_told_apart():
    parts = [*KINDS, "refcoco(google)", "refcoco+(google)", "folder(b)"]
    for pair in itertools.permutations(parts, 2):
        single = [parsed(part)[0] for part in pair]
        if single[0] != single[1]:
            assert parsed("+".join(pair)) == single


@pytest.mark.parametrize(
    "text", ["", "+", "refcocox", "refcoco(unc", "refcoco +refcocog", "refcoco,refcocog", "coco"]
)
def test_what_is_no_mix_is_answered_with_how_to_write_one(text):
    with pytest.raises(ValueError, match=r"expected one of shapes, refcoco.*joined by '\+'"):
        mix.parse(text, **DEFAULTS)


def test_a_part_twice_is_refused():
    with pytest.raises(ValueError, match=r"names refcoco\(unc\) twice"):
        mix.parse("refcoco+refcoco(unc)", **DEFAULTS)


def test_splits_are_named_alone_or_with_their_data_set():
    parts = mix.parse("refcoco+refcocog(umd)", **DEFAULTS)
    assert mix.parse_split("val", parts[:1], **DEFAULTS) == Split(Part("refcoco", "unc"), "val")
    found = mix.parse_split("folder(/a/b)/my val", parts, **DEFAULTS)
    assert found == Split(Part("folder", "/a/b"), "my val")
    assert str(found) == "folder(/a/b)/my val"
    with pytest.raises(ValueError, match=r"expected refcoco\(unc\)/val or refcocog\(umd\)/val"):
        mix.parse_split("val", parts, **DEFAULTS)
    for wrong in ("", "coco/val", "refcoco/", "a/b/val"):
        with pytest.raises(ValueError, match="no split can be read"):
            mix.parse_split(wrong, parts, **DEFAULTS)


def test_labels_are_names_of_files():
    assert Part("refcoco+", "unc").label == "refcoco+"
    assert Part("folder", "/a/b/my photos/").label == "my photos"


def test_a_mix_is_its_parts_one_after_another():
    parts = [Numbered([5, 6, 7]), Numbered([8], "b"), Numbered([6, 9], "c")]
    whole = Mix(parts)
    assert isinstance(whole, Source)
    ids = [whole[i].id for i in range(len(whole))]
    assert ids == ["a0", "a1", "a2", "b0", "c0", "c1"]
    assert [whole.truth(i).id for i in range(len(whole))] == ids
    assert whole.image_ids().tolist() == [5, 6, 7, 8, 6, 9]
    assert whole.expression_counts().tolist() == [len(whole[i].expressions) for i in range(6)]
    assert whole.lengths == (3, 1, 2)
    assert [pickle.loads(pickle.dumps(whole))[i].id for i in range(6)] == ids
    for wrong in (-1, 6):
        with pytest.raises(IndexError):
            whole[wrong]


def test_a_subset_keeps_everything_in_step():
    some = Subset(Numbered([5, 6, 7, 8]), np.array([3, 1]))
    assert isinstance(some, Source)
    assert [some[i].id for i in range(2)] == [some.truth(i).id for i in range(2)] == ["a3", "a1"]
    assert some.image_ids().tolist() == [8, 6]
    assert some.expression_counts().tolist() == [4, 2]
    assert [r.id for r in map(mix.first(some, 1).__getitem__, range(1))] == ["a3"]
    assert len(mix.first(some, 9)) == 2
    for wrong in (-1, 2):  # a negative index must not reach around
        with pytest.raises(IndexError):
            some[wrong]


def test_overlap_counts_pictures_and_not_referents():
    training = {"a/train": Numbered([1, 1, 2, 3]), "b/train": Numbered([4, 5])}
    others = {"a/val": Numbered([1, 1, 9]), "b/test": Numbered([2, 3, 5])}
    found = mix.overlap(training, others)
    assert found == {"a/train": {"a/val": 1, "b/test": 2}, "b/train": {"a/val": 0, "b/test": 1}}
    lines = mix.matrix(found).split("\n")
    assert [line.split() for line in lines] == [
        ["a/val", "b/test"],
        ["a/train", "1", "2"],
        ["b/train", "0", "1"],
    ]
    assert len({len(line) for line in lines}) == 1


class Known(Numbered):
    """A source that knows its pictures' bytes as well."""

    def __init__(self, ids, contents):
        super().__init__(ids)
        self._contents = contents

    def contents(self) -> np.ndarray:
        return np.array(self._contents, np.int64)


def test_pictures_meet_by_number_or_by_content():
    big = 2**62
    coco = Known([1, 1, 2, 3], [big + 10, big + 10, big + 20, big + 30])
    own = Known([big + 20, big + 30, big + 40], [big + 20, big + 30, big + 40])
    saved_again = Known([3], [big + 99])  # the number alone says it
    others = {"own": own, "again": saved_again, "plain": Numbered([2, 7])}
    assert mix.overlap({"coco": coco}, others) == {"coco": {"own": 2, "again": 1, "plain": 1}}
    assert mix.overlap({"own": own}, {"coco": coco}) == {"own": {"coco": 2}}
    kept = mix.without(coco, [own])
    assert kept.image_ids().tolist() == [1, 1]
    assert mix.without(own, [coco]).image_ids().tolist() == [big + 40]


def test_shared_pictures_are_left_out_with_all_their_referents():
    source = Numbered([1, 1, 2, 3, 4])
    kept = mix.without(source, [Numbered([1]), Numbered([3, 7])])
    assert [kept[i].id for i in range(len(kept))] == ["a2", "a4"]
    assert mix.without(source, [Numbered([7])]) is source
    assert mix.without(source, []) is source
    assert len(mix.without(source, [source])) == 0

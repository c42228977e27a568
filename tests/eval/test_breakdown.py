"""Classes of expressions: every one in one length and one area, and in the relations it names."""

import csv

import numpy as np
import pytest

from dit_jax.eval.breakdown import breakdown, classes
from dit_jax.eval.metrics import measure
from dit_jax.eval.outcomes import Outcome, Outcomes, relation_bits
from dit_jax.eval.protocols import PROTOCOLS
from dit_jax.eval.relations import CLASSES, relation_classes

CONVENTIONS = PROTOCOLS["original"].conventions

# Sentences of RefCOCO, RefCOCO+ and RefCOCOg.
SENTENCES = {
    "person bottom left": ("side", "vertical"),
    "leftmost zebra": ("side",),
    "a bright plane": ("none",),
    "third knife from bottom": ("vertical", "order"),
    "woman in a tank top": ("none",),
    "sheep under arm of woman": ("vertical",),
    "black van in front of cab": ("depth", "colour"),
    "man with his back to us": ("none",),
    "second row farthest left one": ("side", "depth", "order"),
    "zebra closest to the camera": ("depth",),
    "closest zebra": ("depth",),
    "the duck that is closest to the water": ("near",),
    "nearest the wall": ("near",),
    "near us": ("depth",),
    "boy far left": ("side",),
    "middle guy": ("order",),
    "2nd from right": ("side", "order"),
    "player on first base": ("none",),
    "taller bottle": ("size",),
    "woman in shorts": ("none",),
    "guy in greyish hat": ("colour",),
    "glass of orange juice": ("none",),
    "man in orange": ("colour",),
    "umbrella held by a man": ("none",),
    "car parked by the door": ("near",),
    "dude by himself": ("none",),
    "girl between the boys": ("near",),
    "elephant with no tusks": ("negation",),
    "bike no 2": ("none",),
    "you can ' t see its head": ("negation",),
    "guy not wearing a hat": ("negation",),
    "notebook": ("none",),
    "LEFT MAN": ("side",),
    "blond kid": ("colour",),
}


@pytest.mark.parametrize("text", SENTENCES)
def test_relation_words(text):
    assert relation_classes(text) == SENTENCES[text]


def test_every_relation_class_has_an_example():
    assert {name for names in SENTENCES.values() for name in names} == set(CLASSES)


def rows_of(texts, targets) -> Outcomes:
    rng = np.random.default_rng(0)
    return Outcomes.of(
        [
            Outcome(
                index=i,
                image_id=i,
                intersection=int(rng.integers(0, 50)),
                union=int(rng.integers(50, 100)),
                nothing=0,
                target=target,
                picture=1000,
                words=len(text.split()),
                relations=relation_bits(text),
            )
            for i, (text, target) in enumerate(zip(texts, targets, strict=True))
        ]
    )


def test_lengths_and_areas_share_the_expressions_out():
    lengths = (1, 2, 3, 4, 6, 7, 10, 11, 40)
    targets = (0, 1, 49, 50, 99, 100, 200, 400, 1000)
    found = classes(rows_of([" ".join(["dog"] * n) for n in lengths], targets))
    for kind in ("length", "area"):
        assert (np.sum(list(found[kind].values()), axis=0) == 1).all()

    def members(kind, values):
        return {
            name: [v for v, inside in zip(values, rows, strict=True) if inside]
            for name, rows in found[kind].items()
        }

    assert members("length", lengths) == {
        **{"1": [1], "2-3": [2, 3], "4-6": [4, 6], "7-10": [7, 10], "11+": [11, 40]}
    }
    assert members("area", targets) == {
        **{"none": [0], "<5%": [1, 49], "5-10%": [50, 99], "10-20%": [100], "20-40%": [200]},
        ">=40%": [400, 1000],
    }


def test_scores_of_a_class_are_those_of_its_expressions():
    texts = list(SENTENCES)
    outcomes = rows_of(texts, [100] * len(texts))
    parts = breakdown(outcomes, CONVENTIONS)
    assert list(parts["relation"]) == list(CLASSES)
    assert list(parts["area"]) == ["10-20%"]
    for name, part in parts["relation"].items():
        inside = [name in SENTENCES[text] for text in texts]
        scores = measure(Outcomes(outcomes.table[inside]), CONVENTIONS)
        assert part == {key: scores[key] for key in ("n", "oIoU", "mIoU", "gIoU", "P@0.5")}
    assert sum(part["n"] for part in parts["length"].values()) == len(texts)
    assert sum(part["n"] for part in parts["relation"].values()) > len(texts)


def test_classes_divide_the_real_sentences(shared):
    """No class is empty or everything; RefCOCO+ forbids sides, RefCOCO is full of them."""
    shares = {}
    for name in ("refcoco_unc_val", "refcoco+_unc_val", "refcocog_umd_val"):
        with (shared / "data" / "refer_tables" / f"{name}.csv").open() as file:
            found = [relation_classes(row["sent"]) for row in csv.DictReader(file)]
        shares[name] = {c: np.mean([c in names for names in found]) for c in CLASSES}
        assert all(0.002 < share < 0.6 for share in shares[name].values()), shares[name]
    assert shares["refcoco_unc_val"]["side"] > 0.4
    assert shares["refcoco+_unc_val"]["side"] < 0.01
    assert shares["refcocog_umd_val"]["colour"] > 0.4

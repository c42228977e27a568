"""Probes: models that are known not to read must be caught, and one that knows must pass."""

import pytest
from readers import (
    ALONE,
    answering,
    bag_of_words,
    central,
    dizzy,
    exact,
    fickle,
    overall,
    passed,
    run,
    silent,
    text_blind,
    without_sides,
)

from dit_jax.eval.probe.summary import ALL, RULES


def test_an_oracle_passes_every_probe():
    result = passed()
    assert overall(result, "mirror", "consistent") == 100
    assert overall(result, "mirror", "overlap") > 99
    assert overall(result, "mirror", "IoU before") > 97
    assert overall(result, "mirror-only", "changed") == 100
    assert overall(result, "other", "follows") == overall(result, "other", "gain") == 100
    assert overall(result, "absent", "nothing") == overall(result, "absent", "gain") == 100
    assert "covered" not in result.groups["absent"][ALL].measures
    assert result.verdicts == {name: rule.reads for name, rule in RULES.items()}


@pytest.mark.parametrize("model", [text_blind, central, silent], ids=lambda m: m.__name__)
def test_a_text_blind_model_is_caught(model):
    result = run(model)
    assert result.verdicts["text"] == "text-blind"
    assert result.verdicts["absence"] == "answers anything"
    assert overall(result, "other", "gain") == 0
    assert overall(result, "other", "overlap") == 100
    for name in ("shuffle", "drop"):
        assert overall(result, name, "consistent") == 100


def test_a_text_blind_model_is_caught_where_each_picture_has_one_object():
    alone = run(text_blind, source=ALONE)
    assert "other" not in alone.plan.cases[0].questions
    assert alone.groups["other"] == {}
    assert alone.verdicts["text"] == "text-blind"
    assert run(answering(exact), source=ALONE).verdicts["text"] == "undecided"


def test_a_model_that_jumps_at_random_does_not_follow():
    result = run(fickle, limit=0)
    assert 20 < overall(result, "other", "overlap") < 80  # it moves
    gain = result.groups["other"][ALL].measures["gain"]
    assert gain.low < 0 < gain.high
    assert result.verdicts["text"] != RULES["text"].reads


def test_a_bag_of_words_ignores_the_order():
    result = run(answering(bag_of_words))
    assert overall(result, "shuffle", "consistent") == 100
    assert overall(result, "shuffle", "IoU lost") == 0
    assert overall(passed(), "shuffle", "consistent") < 10
    assert overall(passed(), "shuffle", "IoU lost") > 90


def test_a_side_blind_model_is_caught_by_the_mirror_alone():
    result = run(answering(without_sides), limit=0)
    assert overall(result, "mirror", "consistent") == 100
    assert overall(result, "mirror-only", "changed") == 0
    assert result.verdicts["sides"] == "side-blind"
    assert result.verdicts["text"] == "follows the words"


def test_a_model_that_mirroring_upsets_does_not_read_sides_for_that():
    result = run(dizzy, limit=0)
    assert 20 < overall(result, "mirror-only", "changed") < 80
    assert overall(result, "mirror-only", "gain") == 0
    assert result.verdicts == {name: rule.blind for name, rule in RULES.items()}


def test_a_model_that_always_finds_something_fails_absent():
    result = run(answering(exact, otherwise="first"))
    assert overall(result, "absent", "nothing") == 0
    assert result.verdicts["absence"] == "answers anything"
    assert result.verdicts["text"] == "follows the words"
    assert 1 < overall(result, "absent", "covered") < 50


def test_presence_empties_an_answer():
    """A model that paints everything when it does not know, but says that nothing is meant."""
    result = run(answering(exact, presence=True))
    assert overall(result, "absent", "nothing") == 100
    assert result.verdicts["absence"] == "knows what is not there"
    always = run(answering(exact, presence=True), presence_threshold=0.01)
    assert overall(always, "absent", "nothing") == 0
    assert overall(always, "absent", "covered") == 100

"""Which questions an expression leads to, and what stands in them."""

from collections import Counter

import numpy as np
from readers import REFERENTS, SCENES, SIZE, SOURCE, TOKENIZER, Kept

from dit_jax.data.pipeline.streams import eval_batches
from dit_jax.data.pixels.transforms import swap_left_right
from dit_jax.data.referent import Referent
from dit_jax.eval.probe.cases import ORIGINAL, Question, Questions, plan
from dit_jax.eval.probe.measures import PROBES
from dit_jax.eval.probe.words import content_words, names_something, shortened, shuffled
from dit_jax.eval.relations import relation_classes


def test_every_expression_leads_to_the_questions_that_fit_it():
    planned = plan(SOURCE, limit=0, seed=0)
    assert len(planned.cases) == 2 * len(SOURCE)
    for case in planned.cases:
        original = case.questions[ORIGINAL]
        truth = SOURCE.truth(case.referent)
        assert original.text in truth.expressions
        assert case.image_id == truth.image_id
        mirrored = case.questions["mirror"]
        assert (mirrored.text, mirrored.mirrored) == (swap_left_right(original.text), True)
        assert ("mirror-only" in case.questions) == ("side" in relation_classes(original.text))
        assert Counter(case.questions["shuffle"].text.split()) == Counter(original.text.split())
        lost = Counter(original.text.split()) - Counter(case.questions["drop"].text.split())
        assert lost.total() == 1
        other = SOURCE.truth(case.other)
        assert other.image_id == truth.image_id
        assert not (other.mask & truth.mask).any()
        assert case.questions["other"].text in other.expressions
        if "absent" in case.questions:
            both = (*truth.expressions, *other.expressions)
            known = frozenset().union(*map(content_words, both))
            assert not content_words(case.questions["absent"].text) & known
    counts = {p: sum(p in c.questions for c in planned.cases) for p in PROBES}
    for name, count in counts.items():
        assert count + sum(planned.left_out.get(name, {}).values()) == len(planned.cases)
    assert counts["absent"] > 0.8 * len(planned.cases)


def test_a_plan_depends_on_its_seed_alone():
    planned = plan(SOURCE, limit=0, seed=0)
    assert plan(SOURCE, limit=0, seed=0) == planned
    assert plan(SOURCE, limit=0, seed=1) != planned
    some = plan(SOURCE, limit=20, seed=0).cases
    assert {case.referent for case in some} >= {0, len(SOURCE) - 1}  # spread over the source
    without_absent = [{**case.questions, "absent": None} for case in planned.cases]
    assert all({**case.questions, "absent": None} in without_absent for case in some)


def test_a_mirrored_question_mirrors_picture_and_mask():
    asked = Questions(SOURCE, [Question(4, "left star"), Question(4, "right star", mirrored=True)])
    assert len(asked) == 2
    assert asked.expression_counts().tolist() == [1, 1]
    assert asked.image_ids().tolist() == [SOURCE.image_ids()[4]] * 2
    plain, mirrored = asked[0], asked[1]
    np.testing.assert_array_equal(mirrored.image, plain.image[:, ::-1])
    np.testing.assert_array_equal(mirrored.mask, plain.mask[:, ::-1])
    assert mirrored.expressions == asked.truth(1).expressions == ("right star",)
    np.testing.assert_array_equal(asked.truth(1).mask, mirrored.mask)
    rows = next(iter(eval_batches(asked, TOKENIZER, size=SIZE, batch_size=2)))
    np.testing.assert_array_equal(rows["image"][1], rows["image"][0][:, ::-1])
    assert rows["index"].tolist() == [0, 1]


def test_what_means_nothing_is_counted_and_not_asked():
    half = Kept(REFERENTS[::2], means=[True, False] * (SCENES // 2))
    planned = plan(half, limit=0, seed=0)
    assert planned.left_out[ORIGINAL] == {"that mean nothing in their picture": SCENES}
    assert {case.referent % 2 for case in planned.cases} == {0}
    assert planned.left_out["other"] == {
        "in pictures without another described object": len(planned.cases)
    }


def test_what_is_absent_shares_no_word_with_the_picture():
    texts = ["white bus", "left one", "red star", "the bus by a tree", "tiny thing"]
    blank = np.zeros((8, 8, 3), np.uint8)
    mask = np.ones((8, 8), bool)
    source = Kept([Referent(blank, mask, (t,), id=t, image_id=i) for i, t in enumerate(texts)])
    asked = [case.questions.get("absent") for case in plan(source, limit=0, seed=0).cases]
    assert asked[0].text == "red star"  # "left one" and "tiny thing" fit anywhere, the bus is there
    assert asked[1] is asked[4] is None  # nobody says what is in these pictures
    assert asked[2].text in ("white bus", "the bus by a tree")
    assert asked[3].text == "red star"


def test_words():
    rng = np.random.default_rng(0)
    assert shuffled("man", rng=rng) is None
    assert shuffled("Left left", rng=rng) is None
    assert shuffled("red star", rng=rng) == "star red"
    assert shortened("man", rng=rng) is None
    assert shortened("man .", rng=rng).text == "man"  # "." alone would say nothing
    dropped = {s.text: s.dropped for s in (shortened("the left man", rng=rng) for _ in range(40))}
    assert dropped == {
        "left man": ("function",),
        "the man": ("side",),
        "the left": ("other",),
    }
    assert content_words("The two white buses, left of a guy") == {"two", "white", "buse", "person"}
    assert names_something("white bus on the left")
    assert not names_something("white one on the left")
    assert not names_something("red and white thing")

"""Probes: models that are known not to read must be caught, and one that knows must pass."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from zlib import crc32

import numpy as np
import pytest
from PIL import Image
from runs import config_of, shrink

from dit_jax.data.pipeline.streams import Batch, eval_batches
from dit_jax.data.pixels.transforms import letterbox, swap_left_right
from dit_jax.data.referent import Referent, Source, Truth
from dit_jax.data.shapes.dataset import VOCAB, Shapes
from dit_jax.data.tokenizer import Tokenizer
from dit_jax.eval.predictions import Answers
from dit_jax.eval.probe import figure, report
from dit_jax.eval.probe.cases import ORIGINAL, Question, Questions, plan
from dit_jax.eval.probe.measures import MEASURES, PROBES, AnswerPair, refuse
from dit_jax.eval.probe.run import Result, probe
from dit_jax.eval.probe.summary import ALL, RULES, Outcome, by_class, verdicts
from dit_jax.eval.probe.words import content_words, names_something, shortened, shuffled
from dit_jax.eval.relations import relation_classes
from dit_jax.models import params as parameters
from dit_jax.train import probing
from dit_jax.weights import directory

SIZE, SCENES = 128, 60


class Kept:
    """A source whose referents are drawn once; with `means` False, their words mean nothing."""

    def __init__(self, referents: Sequence[Referent], means: Sequence[bool] = ()):
        self._referents, self._means = referents, means or [True] * len(referents)

    def __len__(self) -> int:
        return len(self._referents)

    def __getitem__(self, index: int) -> Referent:
        found = self._referents[index]
        mask = found.mask & self._means[index]
        return Referent(found.image, mask, found.expressions, found.id, found.image_id)

    def truth(self, index: int) -> Truth:
        return self[index].truth()

    def expression_counts(self) -> np.ndarray:
        return np.array([len(referent.expressions) for referent in self._referents])

    def image_ids(self) -> np.ndarray:
        return np.array([referent.image_id for referent in self._referents])


DRAWN = Shapes("val", size=SIZE, length=2 * SCENES, seed=3)  # two referents a scene
REFERENTS = [DRAWN[i] for i in range(len(DRAWN))]
SOURCE, ALONE = Kept(REFERENTS), Kept(REFERENTS[::2])
TOKENIZER = Tokenizer(VOCAB, length=20)
SIDES = TOKENIZER(["left right leftmost rightmost"])[0][0, 1:5].tolist()


def exact(ids: list[int]) -> tuple[int, ...]:
    return tuple(ids)


def bag_of_words(ids: list[int]) -> tuple[int, ...]:
    return tuple(sorted(ids))


def without_sides(ids: list[int]) -> tuple[int, ...]:
    swaps = dict(zip(SIDES, (SIDES[0], SIDES[0], SIDES[2], SIDES[2]), strict=True))
    return tuple(swaps.get(i, i) for i in ids)


@cache
def book(read: Callable) -> dict:
    """What every expression means in every picture and its mirror image, as masks on canvases."""
    pages = {}
    for referent in REFERENTS:
        for flip in (1, -1):
            image, _ = letterbox(np.ascontiguousarray(referent.image[:, ::flip]), SIZE)
            mask, _ = letterbox(referent.mask[:, ::flip].astype(np.uint8) * 255, SIZE)
            page = pages.setdefault(image.tobytes(), {})
            for text in referent.expressions:
                said = swap_left_right(text) if flip < 0 else text
                page.setdefault(read(TOKENIZER([said])[0][0].tolist()), mask)
    return pages


def answering(read: Callable, *, otherwise: str = "nothing", presence: bool = False) -> Callable:
    """A model that looks up what it is asked; else it answers nothing, or what comes first."""

    def mask_of(image, ids) -> np.ndarray | None:
        page = book(read)[image.tobytes()]
        found = page.get(read(ids.tolist()))
        return next(iter(page.values())) if found is None and otherwise == "first" else found

    def predict(batch: Batch) -> Answers:
        found = [mask_of(*row) for row in zip(batch["image"], batch["input_ids"], strict=True)]
        full = [np.full((SIZE, SIZE), 255 * presence, np.uint8) if m is None else m for m in found]
        there = np.array([-3.0 if m is None else 3.0 for m in found], np.float32)
        logits = np.stack(full).astype(np.float32) / 16 - 8
        return Answers(logits, there if presence else None)

    return predict


def text_blind(batch: Batch) -> Answers:
    """The object that comes first in the picture, whatever is asked."""
    firsts = [next(iter(book(exact)[image.tobytes()].values())) for image in batch["image"]]
    return Answers(np.stack(firsts).astype(np.float32) / 16 - 8)


def central(batch: Batch) -> Answers:
    """A disc in the middle of the canvas."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    disc = np.where(np.hypot(x, y) < SIZE / 4, 5, -5).astype(np.float32)
    return Answers(np.repeat(disc[None], len(batch["image"]), axis=0))


def silent(batch: Batch) -> Answers:
    """Nothing, whatever is asked."""
    return Answers(np.full(batch["mask"].shape, -5, np.float32))


def fickle(batch: Batch) -> Answers:
    """One of the described objects, by chance but always the same one for the same words."""
    masks = []
    for image, ids in zip(batch["image"], batch["input_ids"], strict=True):
        found = list({m.tobytes(): m for m in book(exact)[image.tobytes()].values()}.values())
        masks.append(found[hash(tuple(ids.tolist())) % len(found)])
    return Answers(np.stack(masks).astype(np.float32) / 16 - 8)


def dizzy(batch: Batch) -> Answers:
    """An object that the picture decides, which its mirror image may decide otherwise."""
    masks = []
    for image in batch["image"]:
        found = list({m.tobytes(): m for m in book(exact)[image.tobytes()].values()}.values())
        masks.append(found[crc32(image.tobytes()) % len(found)])
    return Answers(np.stack(masks).astype(np.float32) / 16 - 8)


def run(predict: Callable, *, source: Source = SOURCE, **changes) -> Result:
    about = dict(size=SIZE, batch_size=16, limit=120, seed=0, resamples=300, progress=False)
    return probe(predict, source, TOKENIZER, **about | changes)


@cache
def passed() -> Result:
    return run(answering(exact), limit=0)


def overall(result: Result, probe_name: str, measure: str) -> float:
    return result.groups[probe_name][ALL].measures[measure].mean


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


def test_a_small_answer_is_nothing():
    full = np.ones((20, 20), bool)
    small = np.zeros((20, 20), bool)
    small.flat[:49] = True
    assert refuse(AnswerPair(full, small, full, None, full))["nothing"] == 1
    small.flat[49] = True
    found = refuse(AnswerPair(full, small, full, None, full))
    assert (found["nothing"], found["covered"], found["gain"]) == (0, 50 / 400, 0)


def test_intervals_are_over_pictures():
    """Ten expressions of each picture that all agree: no more certain than one of each."""
    values = [float(i % 2) for i in range(40)]
    one = [outcome(value, image_id=i) for i, value in enumerate(values)]
    ten = [same for same in one for _ in range(10)]
    few, many = (by_class(os, resamples=500, seed=0)["mirror"] for os in (one, ten))
    assert (few[ALL].n, many[ALL].n, many[ALL].pictures) == (40, 400, 40)
    assert many[ALL].measures == few[ALL].measures
    bounds = few["side"].measures["consistent"]
    assert bounds.mean == 50
    assert bounds.low == pytest.approx(50 - 196 * 0.5 / 40**0.5, abs=2.5)
    assert bounds.high == pytest.approx(50 + 196 * 0.5 / 40**0.5, abs=2.5)
    assert list(few) == [ALL, "side"]
    alone = by_class(one[:1], resamples=500, seed=0)["mirror"][ALL].measures["consistent"]
    assert (alone.mean, alone.low, alone.high) == (0, None, None)


@pytest.mark.parametrize(("pictures", "verdict"), [(29, "undecided"), (30, "side-blind")])
def test_few_pictures_decide_nothing(pictures, verdict):
    rows = [outcome(0.0, image_id=i, probe="mirror-only") for i in range(pictures)]
    assert verdicts(by_class(rows, resamples=100, seed=0))["sides"] == verdict


def outcome(value: float, *, image_id: int, probe: str = "mirror") -> Outcome:
    values = dict.fromkeys(PROBES[probe].measures, value)
    return Outcome(probe, ("side",), (), image_id, values)


def test_report_and_figure(tmp_path):
    result = passed()
    about = {"dataset": "shapes", "split": "val", "seed": 0}
    found = json.loads(report.as_json(result, about=about))
    assert found["dataset"] == "shapes"
    assert found["verdicts"] == result.verdicts
    assert list(found["probes"]) == list(PROBES)
    assert found["left_out"] == result.plan.left_out
    for name, row in PROBES.items():
        classes = found["probes"][name]["classes"]
        assert set(row.measures) >= set(classes[ALL]) - {"n", "pictures"}
        assert set(row.measures) <= set(MEASURES)
        for group in classes.values():
            assert group["n"] >= group["pictures"] > 0
    mirror = found["probes"]["mirror"]["classes"]
    assert mirror["side"]["consistent"] == {"mean": 100, "low": 100, "high": 100}
    assert sum(mirror[c]["n"] for c in mirror if c != ALL) >= mirror[ALL]["n"] == 240
    said = report.as_markdown(result, about=about)
    assert "- text: **follows the words**" in said
    assert "## other: words for another object" in said
    assert "side-blind" in said  # the rule is stated
    printed = report.table(result).split("\n")
    assert printed[1].split()[:3] == ["mirror", "consistent", "100.0"]
    assert "sides: reads left and right" in printed[-1]
    assert len(printed) == 2 + len(PROBES)
    figure.save(result, tmp_path / "probe" / "shapes-val.png", title="shapes, val")
    assert [path.name for path in (tmp_path / "probe").iterdir()] == ["shapes-val.png"]
    with Image.open(tmp_path / "probe" / "shapes-val.png") as picture:
        assert picture.width > 1500
        assert len(picture.convert("L").getcolors()) > 20


def test_samples_show_what_the_words_did_not_move():
    blind = run(text_blind).stuck
    assert len(blind) == 6
    for sample in blind:
        assert sample.image.shape[:2] == sample.truth.shape == sample.predicted.shape
        assert not (sample.truth & sample.predicted).any()
        assert sample.iou == 0


def test_bad_input_is_one_sentence():
    with pytest.raises(ValueError, match="the answer to .* is not finite"):
        run(lambda batch: Answers(np.full(batch["mask"].shape, np.nan, np.float32)), limit=2)
    with pytest.raises(ValueError, match="nothing to probe: none of 4 expressions"):
        plan(Kept(REFERENTS, [False] * len(REFERENTS)), limit=4, seed=0)


def test_the_mode_probes_a_model_directory(tmp_path, monkeypatch, capsys):
    shrink(monkeypatch)
    config = config_of(data__eval_splits=("val", "testB"), probe__limit=6, eval__bootstrap=0)
    arch = config.architecture()
    folder = tmp_path / "model"
    directory.save(folder, arch, parameters.init(arch, seed=0), vocab=VOCAB)
    probing.probe(config, tmp_path, model_dir=folder)
    written = {path.name for path in (tmp_path / "probe").iterdir()}
    names = {f"shapes-{s}.{end}" for s in ("val", "testB") for end in ("json", "md", "png")}
    assert names <= written <= names | {"shapes-val-stuck.png", "shapes-testB-stuck.png"}
    found = json.loads((tmp_path / "probe" / "shapes-testB.json").read_text())
    assert (found["split"], found["limit"], found["expressions"]) == ("testB", 6, 6)
    assert (found["model"], found["resamples"]) == (str(folder), 1000)
    assert set(found["verdicts"].values()) == {"undecided"}
    said = capsys.readouterr().out
    assert said.count("text: undecided; sides: undecided; absence: undecided") == 2
    with pytest.raises(FileNotFoundError, match="holds no checkpoints; train first"):
        probing.probe(config, tmp_path / "nowhere")

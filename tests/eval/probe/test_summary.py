"""Means, intervals and verdicts, and how they are shown."""

import json

import numpy as np
import pytest
from PIL import Image
from readers import REFERENTS, Kept, passed, run, text_blind
from runs import config_of, shrink

from dit_jax.data.shapes.dataset import VOCAB
from dit_jax.eval.predictions import Answers
from dit_jax.eval.probe import figure, report
from dit_jax.eval.probe.cases import plan
from dit_jax.eval.probe.measures import MEASURES, PROBES, AnswerPair, refuse
from dit_jax.eval.probe.summary import ALL, Outcome, by_class, verdicts
from dit_jax.models import params as parameters
from dit_jax.train import probing
from dit_jax.weights import directory


def test_a_small_answer_is_nothing():
    full = np.ones((20, 20), bool)
    small = np.zeros((20, 20), bool)
    small.flat[:49] = True
    assert refuse(AnswerPair(full, small, full, None, full))["nothing"] == 1
    small.flat[49] = True
    found = refuse(AnswerPair(full, small, full, None, full, scores=(0.9, 0.2)))
    assert (found["score"], found["score before"]) == (0.2, 0.9)
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


def test_a_verdict_is_as_sure_with_some_reactions():
    """One of 40 pictures: the bootstrap's bound is 7.5 %, and 1 of 40 is seen of 11 % as well."""
    rows = [outcome(float(i == 0), image_id=i, probe="mirror-only") for i in range(40)]
    assert verdicts(by_class(rows, resamples=400, seed=0))["sides"] == "undecided"
    rows = [outcome(float(i == 0), image_id=i, probe="mirror-only") for i in range(60)]
    assert verdicts(by_class(rows, resamples=400, seed=0))["sides"] == "side-blind"


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

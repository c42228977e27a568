"""One split's evaluation: every expression once, exact for any batch size."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from drawn import COUNTS, Drawn, predict, predict_presence, scored

from dit_jax.data.pixels import restore
from dit_jax.eval.metrics import METRICS, RANKING, measure, ranking
from dit_jax.eval.outcomes import ONE, Outcomes, about, outcome
from dit_jax.eval.prediction_files import read
from dit_jax.eval.predictions import Answers
from dit_jax.eval.protocols import PROTOCOLS, THRESHOLD, Answer, logit
from dit_jax.eval.report import table, write_scores

EMPTY = (1, 4)  # referents that mean nothing, where a test asks for them
ALL = list(PROTOCOLS)


def test_any_batch_size_writes_the_same_bytes(tokenizer, tmp_path):
    written = {}
    for batch_size in (1, 3, 8):
        found = scored(tokenizer, batch_size=batch_size, protocols=ALL, bootstrap=50)
        folder = tmp_path / str(batch_size)
        paths = write_scores(folder, "drawn", "val", found.scores)
        assert [p.name for p in paths] == [f"drawn-val-{name}.json" for name in ALL]
        assert sorted(folder.rglob("*.*")) == sorted([*paths, folder / "eval" / "scores.md"])
        written[batch_size] = [p.read_bytes() for p in sorted((folder / "eval").iterdir())]
    assert written[1] == written[3] == written[8]


@pytest.mark.parametrize("model", [predict, predict_presence])
def test_scores_equal_a_plain_loop_over_the_expressions(tokenizer, model):
    seen = []
    source = Drawn(empty=EMPTY)
    scored(tokenizer, predict=lambda b: seen.append(b) or model(b), batch_size=1, source=source)
    found = scored(tokenizer, predict=model, source=source, protocols=ALL)
    referents = np.repeat(np.arange(len(COUNTS)), COUNTS)
    for name, protocol in PROTOCOLS.items():
        rows = []
        for index, (batch, which) in enumerate(zip(seen, referents, strict=True)):
            truth, said = source.truth(int(which)), model(batch)
            content = tuple(int(side) for side in batch["content"][0])
            presence = None if said.presence is None else float(said.presence[0])
            pair = protocol.pair(Answer(said.logits[0], content, truth.mask, presence))
            text = truth.expressions[index - int(np.searchsorted(referents, which))]
            ids = dict(index=index, image_id=truth.image_id, target=int(truth.mask.sum()))
            known = about(text, truth.mask, **ids)
            # A confidence: no head was asked.
            inside = restore(
                said.logits[0], content, height=truth.mask.shape[0], width=truth.mask.shape[1]
            )
            inside = inside[inside > logit(THRESHOLD)].astype(np.float64)
            score = (1 / (1 + np.exp(-inside))).mean() if inside.size else 0.0
            about_it = dict(nothing=pair.nothing, about=known, score=score)
            rows.append(outcome(pair.predicted, pair.truth, **about_it))
        ours, theirs = found.outcomes[name], Outcomes.of(rows)
        np.testing.assert_array_equal(ours.table[:, :-1], theirs.table[:, :-1])
        np.testing.assert_allclose(ours["score"] / ONE, theirs["score"] / ONE, rtol=1e-5)
        assert found.scores[name]["score_kind"] == "confidence"
        expected = measure(Outcomes.of(rows), protocol.conventions)
        assert {key: found.scores[name][key] for key in expected} == expected
        assert 10 < expected["gIoU"] < 95
    assert found.scores["gres"]["N-acc"] is not None


def test_scores_of_a_trained_head_are_those_that_rank(tokenizer):
    """What the head says, not the mask's confidence; in every protocol, and on every host."""
    heads = np.linspace(1.2, -0.1, sum(COUNTS))

    def judged(batch):
        return Answers(predict(batch).logits, None, heads[batch["index"]].astype(np.float32))

    found = scored(tokenizer, predict=judged, protocols=ALL, batch_size=5)
    for name in ALL:
        score = found.outcomes[name]["score"] / ONE
        np.testing.assert_allclose(score, heads, rtol=1e-6)
        row = found.scores[name]
        assert row["score_kind"] == "predicted_iou"
        expected = ranking(found.outcomes[name], PROTOCOLS[name].conventions)
        assert {key: row[key] for key in RANKING} == expected
        assert None not in expected.values()
    broken = lambda batch: Answers(predict(batch).logits, None, np.full(4, np.nan))  # noqa: E731
    with pytest.raises(ValueError, match="drawn 0: the logits for 'one dog left' are not finite"):
        scored(tokenizer, predict=broken)


def test_a_perfect_model_scores_almost_100(tokenizer):
    perfect = scored(tokenizer, predict=lambda b: Answers(b["mask"].astype(np.float32) / 16 - 8))
    assert perfect.scores["original"]["mIoU"] > 90
    assert perfect.scores["original"]["P@0.8"] == 100
    none = scored(tokenizer, predict=lambda b: Answers(np.full(b["mask"].shape, -9, np.float32)))
    assert none.scores["dit"]["oIoU"] == none.scores["original"]["mIoU"] == 0


def test_the_model_is_one_batch_ahead_of_the_scoring(tokenizer):
    events = []

    class Pending:
        """Logits that are computed when they are looked at, like a JAX array's."""

        def __init__(self, batch):
            self.batch = batch
            events.append(("start", int(batch["index"][0])))

        def __array__(self, dtype=None, copy=None):
            events.append(("wait", int(self.batch["index"][0])))
            return predict(self.batch).logits

    scored(tokenizer, predict=lambda batch: Answers(Pending(batch)), batch_size=5)
    starts = [("start", 0), ("start", 5), ("wait", 0), ("start", 10), ("wait", 5), ("wait", 10)]
    assert events == starts


def test_jax_arrays_of_half_precision_are_accepted(tokenizer):
    def half(batch):
        said = predict_presence(batch)
        logits, presence = (jnp.asarray(x, jnp.bfloat16) for x in (said.logits, said.presence))
        return Answers(logits, presence)

    exact = scored(tokenizer, predict=predict_presence, protocols=["gres"]).scores["gres"]
    found = scored(tokenizer, predict=half, protocols=["gres"]).scores["gres"]
    assert found["gIoU"] == pytest.approx(exact["gIoU"], abs=2)


def test_scoring_looks_a_truth_up_once_and_opens_only_pictures_that_are_kept(tokenizer):
    source = Drawn()
    scored(tokenizer, source=source, keep=0)
    without = len(source.opened)
    assert source.looked_up == list(range(len(COUNTS)))
    source = Drawn()
    scored(tokenizer, source=source, keep=2)
    assert len(source.opened) == without + 2


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_limit_scores_the_first_expressions_and_says_so(tokenizer, tmp_path, batch_size):
    found = scored(tokenizer, limit=5, batch_size=batch_size, keep=100)
    assert found.scores["dit"]["n"] == found.scores["dit"]["remarks"]["limit"] == 5
    assert [s.id for s in found.samples] == ["drawn 0"] * 3 + ["drawn 1", "drawn 2"]
    path = write_scores(tmp_path, "drawn", "val", found.scores)[0]
    assert json.loads(path.read_text())["remarks"] == {"limit": 5}


def test_every_score_says_what_its_source_says(tokenizer):
    """Records say whether crowds count."""

    class Crowded(Drawn):
        def remarks(self):
            return {"crowds": "drop"}

    found = scored(tokenizer, source=Crowded(), protocols=ALL, limit=5).scores
    assert {row["remarks"]["crowds"] for row in found.values()} == {"drop"}
    assert found["lisa"]["remarks"] == {"limit": 5, "crowds": "drop"}


@pytest.mark.parametrize("limit", [0, sum(COUNTS), 1000])
def test_a_limit_that_cuts_nothing_is_the_whole_split(tokenizer, limit):
    scores = scored(tokenizer, limit=limit).scores
    assert scores == scored(tokenizer).scores
    assert scores["dit"]["n"] == sum(COUNTS)


def test_written_scores_have_the_promised_keys(tokenizer, tmp_path):
    found = scored(tokenizer, bootstrap=20, source=Drawn(empty=EMPTY))
    path = write_scores(tmp_path, "refcoco+", "testA", found.scores, remarks={"leak": 3})[1]
    assert path == tmp_path / "eval" / "refcoco+-testA-original.json"
    row = json.loads(path.read_text())
    about_it = ["reported", "intervals", "breakdown", "remarks", "dataset", "split"]
    assert list(row) == [*METRICS, "n", *RANKING, "score_kind", "protocol", *about_it]
    assert (row["protocol"], row["dataset"], row["split"]) == ("original", "refcoco+", "testA")
    assert row["remarks"] == {"leak": 3}
    assert all(row[key] == round(row[key], 4) for key in METRICS)
    for key in METRICS:
        low, high = row["intervals"][key]
        assert 0 <= low <= high <= 100
    assert set(row["breakdown"]) == {"length", "area", "relation"}
    assert set(row["breakdown"]["relation"]["side"]) == {"n", "oIoU", "mIoU", "gIoU", "P@0.5"}
    assert row["breakdown"]["area"]["none"]["n"] == 2


def test_thresholds_that_are_not_the_protocols_own_are_named_in_the_scores(tokenizer):
    plain = scored(tokenizer, protocols=ALL).scores
    found = scored(tokenizer, protocols=ALL, threshold=0.6, presence_threshold=0.4).scores
    assert {name for name in ALL if "threshold" in found[name]["remarks"]} == {
        *("dit", "original", "cris")
    }
    assert found["dit"]["remarks"]["threshold"] == 0.6
    assert found["dit"]["mIoU"] != plain["dit"]["mIoU"]
    ours = dict.fromkeys(RANKING)  # of the confidence of the mask that users get
    assert found["lisa"] | ours == plain["lisa"] | ours
    assert found["gres"]["remarks"] == {"nothing": "fewer than 50 pixels"}
    said = scored(tokenizer, predict=predict_presence, protocols=["gres"], presence_threshold=0.4)
    assert said.scores["gres"]["remarks"] == {"nothing": "presence below 0.4"}


def test_samples_are_spread_over_the_split(tokenizer):
    first, same = (scored(tokenizer, keep=3, batch_size=b).samples for b in (2, 5))
    assert [s.id for s in first] == [s.id for s in same] == ["drawn 0", "drawn 3", "drawn 5"]
    for sample in first:
        assert sample.image.shape[:2] == sample.truth.shape == sample.predicted.shape
        i, u = (sample.truth & sample.predicted).sum(), (sample.truth | sample.predicted).sum()
        assert sample.iou == pytest.approx(i / u, abs=1e-9)
    assert first[-1].expression == "two dog left"
    assert scored(tokenizer, keep=0).samples == []


def test_bad_input_is_one_sentence(tokenizer):
    def changed(change):
        return lambda batch: Answers(change(predict(batch).logits))

    with pytest.raises(ValueError, match="no protocol 'gresa'"):
        scored(tokenizer, protocols=["gresa"])
    with pytest.raises(ValueError, match="limit is -1"):
        scored(tokenizer, limit=-1)
    with pytest.raises(ValueError, match=r"shape \(4, 8, 8\), expected \(4, 32, 32\)"):
        scored(tokenizer, predict=changed(lambda logits: logits[:, :8, :8]))
    with pytest.raises(ValueError, match="drawn 0: the logits for 'one dog left' are not finite"):
        scored(tokenizer, predict=changed(lambda logits: logits * np.nan))
    with pytest.raises(ValueError, match="drawn 0: the logits for 'one dog left' are not finite"):
        scored(tokenizer, predict=lambda b: Answers(predict(b).logits, np.full(4, np.inf)))


@pytest.mark.parametrize("model", [predict, predict_presence])
def test_predictions_are_written_with_all_that_scoring_needs(tokenizer, tmp_path, model):
    path, source = tmp_path / "new" / "val.jsonl", Drawn(empty=EMPTY)
    names = {"dataset": "drawn", "split": "val"}
    settings = {"source": source, "predict": model, "batch_size": 5}
    found = scored(tokenizer, **settings, predictions_path=path, about=names, protocols=["lisa"])
    assert found.scores == scored(tokenizer, **settings, protocols=["lisa"]).scores
    lines = list(read(path))
    assert [line.values["index"] for line in lines] == list(range(sum(COUNTS)))
    assert [line.values["sent_id"] for line in lines] == list(range(100, 100 + sum(COUNTS)))
    referents = np.repeat(np.arange(len(COUNTS)), COUNTS)
    for line, which in zip(lines, referents.tolist(), strict=True):
        truth = source.truth(which)
        np.testing.assert_array_equal(line.truth(), truth.mask)
        assert line.values["size"] == list(truth.mask.shape) == list(line.mask().shape)
        assert (line.values["id"], line.values["image_id"]) == (truth.id, truth.image_id)
        assert line.values["text"] in truth.expressions
        assert line.values | names == line.values
        assert (line.nothing() is None) == (model is predict)
    keys = ["dataset", "split", "index", "image_id", "id", "sent_id", "text", "size", "nothing"]
    assert list(lines[0].values) == [*keys, "score", "score_kind", "mask", "truth"]


def test_an_evaluation_that_breaks_leaves_no_predictions(tokenizer, tmp_path):
    def breaks(batch):
        if batch["index"][0] > 4:
            raise RuntimeError("no device")
        return predict(batch)

    with pytest.raises(RuntimeError, match="no device"):
        scored(tokenizer, predict=breaks, predictions_path=tmp_path / "val.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_table_is_aligned(tokenizer):
    whole = scored(tokenizer, protocols=["dit", "cris"]).scores
    part = scored(tokenizer, protocols=["original"], limit=2).scores
    lines = table({"refcoco val": whole, "testA": part}).split("\n")
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    precision = [f"P@0.{x}" for x in range(5, 10)]
    assert lines[0].split() == [
        "split",
        "protocol",
        "oIoU",
        "mIoU",
        "gIoU",
        *precision,
        *RANKING,
        "n",
    ]
    assert lines[1].split()[2:4] == ["dit", f"{whole['dit']['oIoU']:.2f}"]
    assert lines[2].split()[2:5] == ["cris", "–", f"{whole['cris']['mIoU']:.2f}"]
    assert lines[1].endswith(" 13")
    assert lines[3].split()[:2] == ["testA", "original"]
    assert lines[3].endswith(" 2*")

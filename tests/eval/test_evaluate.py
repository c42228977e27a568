"""One split's evaluation: every expression once, exact for any batch size and number of hosts."""

import json
import threading

import jax.numpy as jnp
import numpy as np
import pytest
from drawn import COUNTS, SIZE, WORDS, Drawn, predict, predict_presence

from dit_jax.data.pixels import restore
from dit_jax.data.tokenizer import Tokenizer
from dit_jax.eval.evaluate import evaluate, summarise
from dit_jax.eval.metrics import METRICS, RANKING, measure, ranking
from dit_jax.eval.outcomes import ONE, Outcomes, about, join, outcome
from dit_jax.eval.prediction_files import read
from dit_jax.eval.predictions import Answers
from dit_jax.eval.protocols import PROTOCOLS, THRESHOLD, Answer, logit
from dit_jax.eval.report import table, write_scores

EMPTY = (1, 4)  # referents that mean nothing, where a test asks for them
ALL = list(PROTOCOLS)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)) + "\n")
    return Tokenizer(path, length=8)


def run(tokenizer, *, predict=predict, source=None, **changes):
    settings = {"size": SIZE, "batch_size": 4, "protocols": ["dit", "original"], "progress": False}
    return evaluate(predict, source or Drawn(), tokenizer, **(settings | changes))


def test_any_batch_size_writes_the_same_bytes(tokenizer, tmp_path):
    written = {}
    for batch_size in (1, 3, 8):
        found = run(tokenizer, batch_size=batch_size, protocols=ALL, bootstrap=50)
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
    run(tokenizer, predict=lambda b: seen.append(b) or model(b), batch_size=1, source=source)
    found = run(tokenizer, predict=model, source=source, protocols=ALL)
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

    found = run(tokenizer, predict=judged, protocols=ALL, batch_size=5)
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
        run(tokenizer, predict=broken)


def test_a_perfect_model_scores_almost_100(tokenizer):
    perfect = run(tokenizer, predict=lambda b: Answers(b["mask"].astype(np.float32) / 16 - 8))
    assert perfect.scores["original"]["mIoU"] > 90
    assert perfect.scores["original"]["P@0.8"] == 100
    none = run(tokenizer, predict=lambda b: Answers(np.full(b["mask"].shape, -9, np.float32)))
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

    run(tokenizer, predict=lambda batch: Answers(Pending(batch)), batch_size=5)
    starts = [("start", 0), ("start", 5), ("wait", 0), ("start", 10), ("wait", 5), ("wait", 10)]
    assert events == starts


def test_jax_arrays_of_half_precision_are_accepted(tokenizer):
    def half(batch):
        said = predict_presence(batch)
        logits, presence = (jnp.asarray(x, jnp.bfloat16) for x in (said.logits, said.presence))
        return Answers(logits, presence)

    exact = run(tokenizer, predict=predict_presence, protocols=["gres"]).scores["gres"]
    found = run(tokenizer, predict=half, protocols=["gres"]).scores["gres"]
    assert found["gIoU"] == pytest.approx(exact["gIoU"], abs=2)


def test_scoring_looks_a_truth_up_once_and_opens_only_pictures_that_are_kept(tokenizer):
    source = Drawn()
    run(tokenizer, source=source, keep=0)
    without = len(source.opened)
    assert source.looked_up == list(range(len(COUNTS)))
    source = Drawn()
    run(tokenizer, source=source, keep=2)
    assert len(source.opened) == without + 2


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_limit_scores_the_first_expressions_and_says_so(tokenizer, tmp_path, batch_size):
    found = run(tokenizer, limit=5, batch_size=batch_size, keep=100)
    assert found.scores["dit"]["n"] == found.scores["dit"]["remarks"]["limit"] == 5
    assert [s.id for s in found.samples] == ["drawn 0"] * 3 + ["drawn 1", "drawn 2"]
    path = write_scores(tmp_path, "drawn", "val", found.scores)[0]
    assert json.loads(path.read_text())["remarks"] == {"limit": 5}


def test_every_score_says_what_its_source_says(tokenizer):
    """Records say whether crowds count."""

    class Crowded(Drawn):
        def remarks(self):
            return {"crowds": "drop"}

    found = run(tokenizer, source=Crowded(), protocols=ALL, limit=5).scores
    assert {row["remarks"]["crowds"] for row in found.values()} == {"drop"}
    assert found["lisa"]["remarks"] == {"limit": 5, "crowds": "drop"}


@pytest.mark.parametrize("limit", [0, sum(COUNTS), 1000])
def test_a_limit_that_cuts_nothing_is_the_whole_split(tokenizer, limit):
    scores = run(tokenizer, limit=limit).scores
    assert scores == run(tokenizer).scores
    assert scores["dit"]["n"] == sum(COUNTS)


@pytest.mark.parametrize("limit", [0, 7])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_three_shards_joined_equal_one(tokenizer, batch_size, limit):
    settings = {"batch_size": batch_size, "protocols": ALL, "limit": limit, "bootstrap": 20}
    whole = run(tokenizer, **settings)
    steps, parts = [], []
    for index in range(3):
        ran = []
        counted = {"predict": lambda batch, ran=ran: ran.append(1) or predict(batch)}
        sharding = {"shard_index": index, "shard_count": 3, "keep": 2}
        parts.append(run(tokenizer, **settings, **sharding, **counted))
        steps.append(len(ran))
        assert len(parts[-1].samples) == 2
    assert len(set(steps)) == 1  # every host runs the model equally often
    assert steps[0] == -(-(limit or sum(COUNTS)) // (3 * batch_size))
    for name in ALL:
        joined = join([part.outcomes[name] for part in parts])
        np.testing.assert_array_equal(joined.table, whole.outcomes[name].table)
        remarks = whole.scores[name]["remarks"]
        about = dict(bootstrap=20, remarks=remarks, score_kind="confidence")
        assert summarise(name, joined, **about) == whole.scores[name]


@pytest.mark.parametrize("hosts", [2, 5])
def test_hosts_that_gather_all_have_the_scores_of_one(tokenizer, hosts):
    whole = run(tokenizer, protocols=["original", "gres"], bootstrap=20)
    tables: dict[int, np.ndarray] = {}
    barrier = threading.Barrier(hosts)
    found = [None] * hosts

    def host(index):
        def gather(rows):
            tables[index] = rows
            barrier.wait()
            together = np.concatenate([tables[i] for i in reversed(range(hosts))])
            barrier.wait()
            return together

        sharding = {"shard_index": index, "shard_count": hosts, "gather": gather}
        found[index] = run(tokenizer, protocols=["original", "gres"], bootstrap=20, **sharding)

    threads = [threading.Thread(target=host, args=(index,)) for index in range(hosts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(one.scores == whole.scores for one in found)
    assert len({table.shape for table in tables.values()}) == 1


def test_hosts_that_lose_or_repeat_expressions_are_refused(tokenizer):
    part = {"shard_index": 0, "shard_count": 2}
    with pytest.raises(ValueError, match="scored 7 expressions together, expected 13"):
        run(tokenizer, **part, gather=lambda rows: rows)
    with pytest.raises(ValueError, match="expression 0 was scored more than once"):
        run(tokenizer, **part, gather=lambda rows: np.concatenate([rows, rows]))


def test_written_scores_have_the_promised_keys(tokenizer, tmp_path):
    found = run(tokenizer, bootstrap=20, source=Drawn(empty=EMPTY))
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
    plain = run(tokenizer, protocols=ALL).scores
    found = run(tokenizer, protocols=ALL, threshold=0.6, presence_threshold=0.4).scores
    assert {name for name in ALL if "threshold" in found[name]["remarks"]} == {
        *("dit", "original", "cris")
    }
    assert found["dit"]["remarks"]["threshold"] == 0.6
    assert found["dit"]["mIoU"] != plain["dit"]["mIoU"]
    ours = dict.fromkeys(RANKING)  # of the confidence of the mask that users get
    assert found["lisa"] | ours == plain["lisa"] | ours
    assert found["gres"]["remarks"] == {"nothing": "fewer than 50 pixels"}
    said = run(tokenizer, predict=predict_presence, protocols=["gres"], presence_threshold=0.4)
    assert said.scores["gres"]["remarks"] == {"nothing": "presence below 0.4"}


def test_samples_are_spread_over_the_split(tokenizer):
    first, same = (run(tokenizer, keep=3, batch_size=b).samples for b in (2, 5))
    assert [s.id for s in first] == [s.id for s in same] == ["drawn 0", "drawn 3", "drawn 5"]
    for sample in first:
        assert sample.image.shape[:2] == sample.truth.shape == sample.predicted.shape
        i, u = (sample.truth & sample.predicted).sum(), (sample.truth | sample.predicted).sum()
        assert sample.iou == pytest.approx(i / u, abs=1e-9)
    assert first[-1].expression == "two dog left"
    assert run(tokenizer, keep=0).samples == []


def test_bad_input_is_one_sentence(tokenizer):
    def changed(change):
        return lambda batch: Answers(change(predict(batch).logits))

    with pytest.raises(ValueError, match="no protocol 'gresa'"):
        run(tokenizer, protocols=["gresa"])
    with pytest.raises(ValueError, match="limit is -1"):
        run(tokenizer, limit=-1)
    with pytest.raises(ValueError, match=r"shape \(4, 8, 8\), expected \(4, 32, 32\)"):
        run(tokenizer, predict=changed(lambda logits: logits[:, :8, :8]))
    with pytest.raises(ValueError, match="drawn 0: the logits for 'one dog left' are not finite"):
        run(tokenizer, predict=changed(lambda logits: logits * np.nan))
    with pytest.raises(ValueError, match="drawn 0: the logits for 'one dog left' are not finite"):
        run(tokenizer, predict=lambda b: Answers(predict(b).logits, np.full(4, np.inf)))


@pytest.mark.parametrize("model", [predict, predict_presence])
def test_predictions_are_written_with_all_that_scoring_needs(tokenizer, tmp_path, model):
    path, source = tmp_path / "new" / "val.jsonl", Drawn(empty=EMPTY)
    names = {"dataset": "drawn", "split": "val"}
    settings = {"source": source, "predict": model, "batch_size": 5}
    found = run(tokenizer, **settings, predictions_path=path, about=names, protocols=["lisa"])
    assert found.scores == run(tokenizer, **settings, protocols=["lisa"]).scores
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


def test_shards_write_predictions_of_their_own(tokenizer, tmp_path):
    for index in range(2):
        sharding = {"shard_index": index, "shard_count": 2}
        run(tokenizer, predictions_path=tmp_path / "val.jsonl", **sharding)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [f"val-0000{i}-of-00002.jsonl" for i in range(2)]
    indices = [line.values["index"] for file in files for line in read(file)]
    assert sorted(indices) == list(range(sum(COUNTS)))


def test_an_evaluation_that_breaks_leaves_no_predictions(tokenizer, tmp_path):
    def breaks(batch):
        if batch["index"][0] > 4:
            raise RuntimeError("no device")
        return predict(batch)

    with pytest.raises(RuntimeError, match="no device"):
        run(tokenizer, predict=breaks, predictions_path=tmp_path / "val.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_table_is_aligned(tokenizer):
    whole = run(tokenizer, protocols=["dit", "cris"]).scores
    part = run(tokenizer, protocols=["original"], limit=2).scores
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

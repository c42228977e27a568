"""Anybody's masks: read strictly, matched with the truth, and scored like our own."""

import json

import numpy as np
import pytest
import refer_folders
from drawn import COUNTS, SIZE, Drawn, predict, predict_presence

from dit_jax.data import records
from dit_jax.data.annotations import refer
from dit_jax.eval.evaluate import evaluate
from dit_jax.eval.prediction_files import Line, Writer, encoded, read
from dit_jax.eval.protocols import PROTOCOLS
from dit_jax.eval.score import main, score_file
from dit_jax.eval.truths import TruthInLines, TruthInRecords

EMPTY = (1, 4)
REFERENTS = np.repeat(np.arange(len(COUNTS)), COUNTS).tolist()
FIRST = np.searchsorted(REFERENTS, REFERENTS)  # expression → the first of its referent
MASK_LEVEL = ["original", "lisa", "gres"]


def lines_of(source: Drawn, *, seed: int = 0) -> list[dict]:
    """A prediction for each expression: the truth, with pixels turned. No key, no truth."""
    rng, lines = np.random.default_rng(seed), []
    for referent in REFERENTS:
        truth = source.truth(referent).mask
        lines.append({"mask": encoded(truth ^ (rng.random(truth.shape) < 0.2))})
    return lines


def keyed_by(key: str, source: Drawn) -> list[dict]:
    keyed = []
    for index, line in enumerate(lines_of(source)):
        truth = source.truth(REFERENTS[index])
        text = truth.expressions[index - FIRST[index]]
        names = {
            "sent_id": {"sent_id": 100 + index},
            "index": {"index": index},
            "id": {"id": truth.id, "text": text},
            "truth": {"truth": encoded(truth.mask), "image_id": truth.image_id, "text": text},
        }
        keyed.append(line | names[key])
    return keyed


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def without_remarks(scores):
    return {name: {k: v for k, v in row.items() if k != "remarks"} for name, row in scores.items()}


@pytest.mark.parametrize("model", [predict, predict_presence])
@pytest.mark.parametrize("truths", ["in the lines", "in records"])
def test_what_evaluation_wrote_scores_the_same(tokenizer, tmp_path, model, truths):
    """At 0.5, where `original` makes the mask that the others make, too."""
    path, source = tmp_path / "val.jsonl", Drawn(empty=EMPTY)
    settings = {"size": SIZE, "batch_size": 4, "threshold": 0.5, "progress": False}
    settings |= {"protocols": MASK_LEVEL, "bootstrap": 40, "predictions_path": path}
    found = evaluate(model, source, tokenizer, **settings)
    known = TruthInLines() if truths == "in the lines" else TruthInRecords(source)
    again = score_file(path, known, protocols=MASK_LEVEL, bootstrap=40)
    assert without_remarks(again) == without_remarks(found.scores)
    assert found.scores["gres"]["N-acc"] is not None


def test_every_way_to_name_an_expression_leads_to_its_truth(tmp_path):
    source, scores = Drawn(empty=EMPTY), []
    for key in ("sent_id", "index", "id", "truth"):
        lines = keyed_by(key, source)
        order = np.random.default_rng(0).permutation(len(lines))  # any order will do
        path = write(tmp_path / f"{key}.jsonl", [lines[i] for i in order])
        known = TruthInLines() if key == "truth" else TruthInRecords(source)
        scores.append(score_file(path, known, protocols=MASK_LEVEL, bootstrap=10))
    assert scores[0] == scores[1] == scores[2] == scores[3]
    assert scores[0]["original"]["n"] == sum(COUNTS)
    assert 20 < scores[0]["original"]["oIoU"] < 95


@pytest.mark.parametrize("key", ["sent_id", "index"])
def test_predictions_for_other_records_are_refused(tmp_path, key):
    """Own folders' numbers count lines: in a file that was sorted, others stand there."""
    source = Drawn(empty=EMPTY)
    lines = [
        ours | theirs
        for ours, theirs in zip(keyed_by(key, source), keyed_by("truth", source), strict=True)
    ]
    how = dict(protocols=MASK_LEVEL)
    expected = score_file(write(tmp_path / "p.jsonl", lines), TruthInRecords(source), **how)
    tidied = [line | {"text": f" {line['text'].upper()}."} for line in lines]  # as other tools do
    again = score_file(write(tmp_path / "p.jsonl", tidied), TruthInRecords(source), **how)
    assert again == expected
    for other, sentence in (
        (lines[1] | {"truth": None}, "says 'two dog left', but the records have index 0"),
        (lines[4] | {"text": None}, "has another 'truth' than the records' index 0"),
    ):
        path = write(tmp_path / "p.jsonl", [other | {key: lines[0][key]}])
        with pytest.raises(ValueError, match=rf"line 1 {sentence} \(drawn 0, 'one dog left'\)"):
            score_file(path, TruthInRecords(source), **how, partial=True)


def test_of_a_sent_id_that_several_expressions_have_the_index_decides(tmp_path):
    class Alike(Drawn):
        def record_ids(self, index):
            ids = super().record_ids(index)
            return {**ids, "sent_ids": [7] * len(ids["sent_ids"])}

    source, lines = Alike(empty=EMPTY), keyed_by("index", Drawn(empty=EMPTY))
    both = [
        score_file(write(tmp_path / "p.jsonl", some), TruthInRecords(source), protocols=MASK_LEVEL)
        for some in (lines, [line | {"sent_id": 7} for line in lines])
    ]
    assert both[0] == both[1]
    del lines[0]["index"]
    with pytest.raises(ValueError, match="sent_id 7 is there more than once, expected an 'index'"):
        some = write(tmp_path / "p.jsonl", [lines[0] | {"sent_id": 7}])
        score_file(some, TruthInRecords(source), protocols=MASK_LEVEL)


@pytest.mark.parametrize("key", ["mask", "prediction", "rle"])
@pytest.mark.parametrize("form", ["text", "list"])
def test_masks_may_be_called_and_written_differently(tmp_path, key, form):
    source = Drawn()
    expected = score_file(
        write(tmp_path / "plain.jsonl", keyed_by("index", source)),
        TruthInRecords(source),
        protocols=MASK_LEVEL,
    )
    lines = []
    for line in keyed_by("index", source):
        runs = line.pop("mask")
        lines.append({**line, key: runs if form == "text" else plain(runs)})
    path = write(tmp_path / "other.jsonl", lines)
    assert score_file(path, TruthInRecords(source), protocols=MASK_LEVEL) == expected


def plain(runs: dict) -> dict:
    """Uncompressed run lengths, counted down the columns."""
    mask = Line("a line", {"mask": runs}).mask()
    flat = mask.T.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes.tolist(), flat.size]).tolist()
    return {"size": runs["size"], "counts": ([0] if flat[0] else []) + counts}


def test_missing_expressions_are_listed_and_counted_where_wanted(tmp_path):
    source = Drawn()
    lines = [line for i, line in enumerate(keyed_by("index", source)) if i not in (4, 9)]
    path = write(tmp_path / "some.jsonl", lines)
    sentence = (
        r"some.jsonl lacks 2 of 13 expressions: index 4 \(drawn 2, 'one dog left'\);"
        r" index 9 \(drawn 3, 'four dog left'\) \(--partial"
    )
    with pytest.raises(ValueError, match=sentence):
        score_file(path, TruthInRecords(source), protocols=["lisa"])
    scores = score_file(path, TruthInRecords(source), protocols=["lisa"], partial=True)
    assert scores["lisa"]["n"] == 11
    assert scores["lisa"]["remarks"] == {"partial": "2 expressions missing"}


@pytest.mark.parametrize("score", [True, "0.9", 1e7, [0.5]])
def test_a_score_that_is_none_is_named(tmp_path, score):
    source = Drawn()
    lines = [line | {"score": score} for line in keyed_by("index", source)]
    path = write(tmp_path / "some.jsonl", lines)
    with pytest.raises(ValueError, match="some.jsonl line 1: 'score' is .*, expected a number"):
        score_file(path, TruthInRecords(source), protocols=["original"])


def test_lavt_compares_in_its_square(tmp_path):
    source, square = Drawn(), np.zeros((480, 480), bool)
    square[100:300, 80:400] = True
    lines = [{"index": i, "mask": encoded(square)} for i in range(sum(COUNTS))]
    scores = score_file(
        write(tmp_path / "l.jsonl", lines), TruthInRecords(source), protocols=["lavt"]
    )
    truths = [source.truth(which).mask for which in REFERENTS]
    pairs = [PROTOCOLS["lavt"].compare(square, truth, None) for truth in truths]
    i, u = (
        sum(int(f(p.predicted, p.truth).sum()) for p in pairs)
        for f in (np.logical_and, np.logical_or)
    )
    assert scores["lavt"]["oIoU"] == pytest.approx(100 * i / u, abs=1e-9)


WRONG = {
    "is no JSON": "{",
    "is list, expected an object": "[1]",
    "'mask' has no size": {"index": 0, "mask": "abc"},
    "has no 'mask', expected run lengths": {"index": 0},
    "do not add up to the 12 pixels": {"index": 0, "mask": {"size": [3, 4], "counts": [5]}},
    "expected run lengths: COCO's text": {"index": 0, "mask": {"size": [3, 4], "counts": None}},
    "damaged": {"index": 0, "mask": {"size": [3, 4], "counts": "é"}},
    r"is 3x4 \(height x width\), expected 62x51 for the protocol 'lisa'": {
        **{"index": 0, "mask": {"size": [3, 4], "counts": [12]}}
    },
    "index 13 is not in this split": {"index": 13},
    "sent_id 5 is not in this split": {"sent_id": 5},
    "'drawn 0' with 'no such words' is not in": {"id": "drawn 0", "text": "no such words"},
    "'index' is '0', expected a whole number": {"index": "0"},
    "'index' is True, expected a whole number": {"index": True},
    "does not say which expression": {"mask": {}},
    "'nothing' is 1, expected true, false or null": {
        **{"index": 0, "nothing": 1, "mask": {"size": [3, 4], "counts": [12]}}
    },
}


@pytest.mark.parametrize("sentence", WRONG)
def test_what_cannot_be_scored_is_named_with_file_and_line(tmp_path, sentence):
    line = WRONG[sentence]
    path = tmp_path / "theirs.jsonl"
    path.write_text("\n" + (line if isinstance(line, str) else json.dumps(line)) + "\n")
    with pytest.raises(ValueError, match=f"theirs.jsonl line 2.*{sentence}"):
        score_file(path, TruthInRecords(Drawn()), protocols=["lisa"])


def test_an_expression_that_comes_twice_is_refused(tmp_path):
    source = Drawn()
    for key in ("index", "sent_id", "id"):
        lines = keyed_by(key, source)
        path = write(tmp_path / "twice.jsonl", [*lines, lines[3]])
        with pytest.raises(ValueError, match="line 14 has the same expression as .* line 4"):
            score_file(path, TruthInRecords(source), protocols=["lisa"])
    first, second = keyed_by("truth", source)[:2]
    for lines in (
        [first | {"index": 7}, second | {"index": 7}],
        [first | {"id": "a"}, first | {"id": "a"}],
    ):
        path = write(tmp_path / "inline.jsonl", lines)
        with pytest.raises(ValueError, match="line 2 has the same expression as .* line 1"):
            score_file(path, TruthInLines(), protocols=["lisa"])


@pytest.mark.parametrize("key", ["truth", "image_id", "text"])
def test_lines_without_records_need_their_own_truth(tmp_path, key):
    line = keyed_by("truth", Drawn())[0]
    del line[key]
    path = write(tmp_path / "alone.jsonl", [line])
    with pytest.raises(ValueError, match=f"alone.jsonl line 1 has no '{key}'"):
        score_file(path, TruthInLines(), protocols=["lisa"])


def test_what_editors_write_before_the_first_line(tmp_path):
    """A byte-order mark changes no score; UTF-16 is named."""
    source = Drawn()
    path = write(tmp_path / "p.jsonl", keyed_by("sent_id", source))
    how = dict(protocols=MASK_LEVEL)
    expected = score_file(path, TruthInRecords(source), **how)
    text = path.read_text()
    for data in ("\ufeff" + text, "\ufeff\n" + text, ("\ufeff" + text).replace("\n", "\r\n")):
        path.write_bytes(data.encode())
        assert score_file(path, TruthInRecords(source), **how) == expected
    path.write_bytes(text.encode("utf-16"))
    with pytest.raises(ValueError, match=r"p.jsonl is UTF-16; expected UTF-8\."):
        score_file(path, TruthInRecords(source), **how)


def test_an_empty_file_is_refused(tmp_path):
    path = write(tmp_path / "none.jsonl", [])
    with pytest.raises(ValueError, match="none.jsonl holds no prediction"):
        score_file(path, TruthInLines(), protocols=["lisa"])


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "a.jsonl"
    with Writer(path, about={"split": "val"}) as writer:
        writer.write({"index": 1})
        assert not path.exists()
    assert [line.values for line in read(path)] == [{"split": "val", "index": 1}]


@pytest.fixture
def two_models(tmp_path):
    """Array records of four referents, and two files of predictions for their eight expressions."""
    root = refer_folders.write(tmp_path / "refer", "refcoco", "unc", {"val": [1, 1, 2, 3]})
    annotations = refer.read("refcoco", "unc", source=root)
    folder = records.build(annotations, out_dir=tmp_path / "records", progress=False)
    source = records.Records(folder, "val")
    files = []
    for name, share in (("good", 0.01), ("bad", 0.4)):
        rng, lines = np.random.default_rng(0), []
        for referent in range(len(source)):
            mask = source.truth(referent).mask
            for sent_id in source.record_ids(referent)["sent_ids"]:
                turned = mask ^ (rng.random(mask.shape) < share)
                lines.append({"sent_id": sent_id, "mask": encoded(turned)})
        files.append(str(write(tmp_path / f"{name}.jsonl", lines)))
    return folder, files


def test_command_line_puts_models_in_one_table(tmp_path, two_models, capsys):
    folder, files = two_models
    outputs = ["--json", str(tmp_path / "out.json"), "--markdown", str(tmp_path / "out.md")]
    names = ["--name", "Good Model", "--name", "B"]
    main([*files, "--truth", str(folder), "--split", "val", "--bootstrap", "30", *names, *outputs])
    printed = capsys.readouterr().out.splitlines()
    assert len({len(line) for line in printed}) == 1
    starts = [line[:10].strip() for line in printed]
    assert starts == ["model", *["Good Model"] * 3, *["B"] * 3]
    scores = json.loads((tmp_path / "out.json").read_text())
    assert list(scores) == ["Good Model", "B"]
    assert list(scores["B"]) == MASK_LEVEL
    assert scores["B"]["lisa"]["oIoU"] < 60 < 90 < scores["Good Model"]["lisa"]["oIoU"]
    assert scores["B"]["lisa"]["n"] == 8
    assert all(row["remarks"] == {"crowds": "keep"} for row in scores["B"].values())
    rows = (tmp_path / "out.md").read_text().splitlines()
    low, high = scores["B"]["original"]["intervals"]["oIoU"]
    assert (
        f"| B | original | {scores['B']['original']['oIoU']:.1f} [{low:.1f}, {high:.1f}] |"
        in rows[5]
    )
    assert all(row.count("|") == rows[0].count("|") for row in rows)


def test_command_line_says_what_is_wrong(two_models, tmp_path):
    folder, files = two_models
    with pytest.raises(ValueError, match="expected --truth RECORDS and --split NAME together"):
        main([*files, "--truth", str(folder)])
    with pytest.raises(ValueError, match="expected a name of its own for each"):
        main([*files, "--name", "A"])
    with pytest.raises(ValueError, match="no protocol 'lsia'"):
        main([*files, "--truth", str(folder), "--split", "val", "--protocols", "lsia"])
    with pytest.raises(ValueError, match="--bootstrap is -1; expected 0 or more resamples"):
        main([*files, "--bootstrap=-1"])
    with pytest.raises(ValueError, match="no split 'test'"):
        main([*files, "--truth", str(folder), "--split", "test"])
    with pytest.raises(
        ValueError, match="none.jsonl is no file; expected predictions as JSON lines"
    ):
        main([str(tmp_path / "none.jsonl")])

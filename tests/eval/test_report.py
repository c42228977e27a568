"""What is shown of scores: text, Markdown and the summary of a folder."""

import json

import pytest

from dit_jax.eval.metrics import METRICS
from dit_jax.eval.protocols import PROTOCOLS
from dit_jax.eval.report import breakdown_markdown, markdown, summary, table, write_scores


def scores_of(protocol: str, *, value: float = 68.54, **changes) -> dict:
    row = dict.fromkeys(METRICS, value) | {"n": 12, "protocol": protocol}
    row |= {"reported": list(PROTOCOLS[protocol].conventions.reported)}
    row |= {"intervals": {name: [66.85, 70.12] for name in METRICS}, "remarks": {}}
    part = {"n": 3, "oIoU": value, "mIoU": None, "gIoU": 1.25, "P@0.5": 40.0}
    row |= {"breakdown": {"length": {"1": part}, "area": {}, "relation": {"side": part}}}
    return row | changes


def test_unreported_metrics_are_blank_and_columns_without_any_are_left_out():
    results = {"val": {name: scores_of(name) for name in ("cris", "lisa")}}
    head, cris, lisa = (line.split() for line in table(results).splitlines())
    precision = [f"P@0.{x}" for x in range(5, 10)]
    assert head == ["split", "protocol", "oIoU", "mIoU", "gIoU", *precision, "n"]
    assert cris == ["val", "cris", "–", "68.54", "–", *["68.54"] * 5, "12"]
    assert lisa == ["val", "lisa", "68.54", "–", "68.54", *["–"] * 5, "12"]


def test_markdown_has_intervals_where_there_are_any():
    results = {"val": {"lisa": scores_of("lisa"), "gres": scores_of("gres", intervals={})}}
    lines = markdown(results, label="model").splitlines()
    assert lines[0].startswith("| model | protocol | oIoU | gIoU | P@0.7 |")
    assert lines[1].startswith("| --- | --- | ---: |")
    assert lines[2].startswith("| val | lisa | 68.5 [66.8, 70.1] | 68.5 [66.8, 70.1] | – |")
    assert lines[3].startswith("| val | gres | 68.5 | 68.5 | 68.5 |")


@pytest.mark.parametrize("remark", ["limit", "partial"])
def test_a_part_of_a_split_has_a_star(remark):
    results = {"val": {"lisa": scores_of("lisa", remarks={remark: 12})}}
    assert table(results).endswith(" 12*")
    assert markdown(results).endswith("| 12* |\n")


def test_undefined_metrics_are_blank():
    row = scores_of("gres") | {"N-acc": None, "T-acc": None}
    assert "acc" not in table({"val": {"gres": row}})
    lines = breakdown_markdown("original", scores_of("original")).splitlines()
    assert lines[0] == "| part (`original`) | class | oIoU | mIoU | gIoU | P@0.5 | n |"
    assert lines[2] == "| words of the expression | 1 | 68.5 | – | 1.2 | 40.0 | 3 |"
    assert lines[3].startswith("| relation words | side |")


def test_the_summary_holds_all_splits_of_a_folder(tmp_path):
    write_scores(tmp_path, "refcoco", "val", {name: scores_of(name) for name in PROTOCOLS})
    (tmp_path / "eval" / "other-file.json").write_text("[1, 2]")
    (tmp_path / "eval" / "old-val-dit.json").write_text('{"oIoU": 1.0, "protocol": "dit"}')
    scores = {"cris": scores_of("cris", remarks={"threshold": 0.5}), "dit": scores_of("dit")}
    write_scores(tmp_path, "refcoco", "testA", scores, remarks={"leak": {"refcocog": 3}})
    text = (tmp_path / "eval" / "scores.md").read_text()
    assert text == summary(tmp_path / "eval")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## refcoco testA",
        "## refcoco val",
    ]
    rows = [line.split(" | ")[1] for line in text.splitlines() if line.startswith("| val |")]
    assert rows == list(PROTOCOLS)
    assert "`cris`: threshold: 0.5.\n" in text
    assert text.count('\nleak: {"refcocog": 3}.\n') == 1  # of all protocols
    row = json.loads((tmp_path / "eval" / "refcoco-testA-cris.json").read_text())
    assert row["remarks"] == {"threshold": 0.5, "leak": {"refcocog": 3}}


def test_the_summary_follows_what_is_written_again(tmp_path):
    for value in (10.0, 20.0):
        write_scores(tmp_path, "shapes", "val", {"lisa": scores_of("lisa", value=value)})
    text = (tmp_path / "eval" / "scores.md").read_text()
    assert "| 20.0 [" in text and "| 10.0 [" not in text


def test_names_with_a_slash_stay_in_the_folder(tmp_path):
    scores = {"lisa": scores_of("lisa")}
    paths = write_scores(tmp_path, "folder(my/photos)", "refcoco(unc)/val", scores)
    assert paths == [tmp_path / "eval" / "folder(my_photos)-refcoco(unc)_val-lisa.json"]
    assert "## folder(my/photos) refcoco(unc)/val" in (tmp_path / "eval" / "scores.md").read_text()

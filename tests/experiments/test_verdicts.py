"""What the miniature's tables say of runs whose truth is known."""

import json
import re

import cv2
import numpy as np
import pytest
from scipy import stats

from dit_jax import viz
from dit_jax.eval.prediction_files import Writer, encoded
from experiments import miniature, verdicts
from experiments.verdicts import CLAIMS, TABLES, Claim

BETTER = Claim("better beats worse", "ldit_vit_b", "default_vit_b")
GAP = Claim(
    "the gap is larger", "ldit_vit_b", "default_vit_b", more_than=("edit_vit_b", "default_vit_b")
)


def line(row, seed, *, share, pictures=200):
    rng = np.random.default_rng([seed, *row.encode()])
    union = rng.integers(200, 400, pictures)
    hit = (union * np.clip(share + 0.05 * rng.standard_normal(pictures), 0, 1)).astype(int)
    areas = {"intersection": hit.tolist(), "union": union.tolist()}
    sizes = {"parameters": 2_500_000, "trained": 2_000_000, "gflop": 0.25, "seconds": 60}
    sizes["loss"] = [(step, (2 - share) / step) for step in (50, 100)]
    return {"row": row, "seed": seed, "splits": dict.fromkeys(verdicts.SPLITS, areas), **sizes}


@pytest.fixture
def runs(monkeypatch):
    monkeypatch.setattr(verdicts, "DRAWS", 200)
    shares = {"default_vit_b": 0.6, "edit_vit_b": 0.6, "ldit_vit_b": 0.7}
    found = [line(row, seed, share=share) for row, share in shares.items() for seed in (0, 1, 2)]
    return verdicts.by_row(found)


def test_a_claim_holds_fails_or_is_undecided(runs):
    ours, interval, seeds, verdict = verdicts.judge(runs, BETTER)
    low, high = map(float, interval.split(" … "))
    assert float(ours) == pytest.approx(10, abs=1) and low < float(ours) < high
    assert (seeds, verdict) == ("3, 3", "holds")
    assert verdicts.judge(runs, Claim("", "default_vit_b", "ldit_vit_b"))[-1] == "fails"
    assert verdicts.judge(runs, Claim("", "edit_vit_b", "default_vit_b"))[-1] == "undecided"
    assert verdicts.judge(runs, GAP)[-1] == "holds"
    assert verdicts.judge(runs, Claim("", "ldit_vit_b", "crossatt_vit_b")) is None


def test_every_seed_of_a_row_counts_whatever_the_other_has(runs):
    runs["default_vit_b"] = {7: runs["default_vit_b"][1]}
    ours, _, seeds, verdict = verdicts.judge(runs, BETTER)
    means = [
        np.mean([miniature.oiou(one["splits"]["val"]) for one in runs[row].values()])
        for row in ("ldit_vit_b", "default_vit_b")
    ]
    assert ours == f"{means[0] - means[1]:+.1f}"
    assert (seeds, verdict) == ("3, 1", "holds, as far as one seed tells")


def areas_of(scores, pictures=400):
    """Of seeds that score this, in percent, on every picture."""
    union = np.full((len(scores), pictures), 10_000)
    return np.stack([np.round(100 * np.array(scores))[:, None] * (union // 10_000), union], axis=-1)


def test_the_interval_is_welchs_where_pictures_are_alike(monkeypatch):
    monkeypatch.setattr(verdicts, "DRAWS", 20)
    more, less = (61.0, 63.5, 66.0), (60.0, 60.5, 61.9)
    whole, (low, high) = verdicts.difference([(1, areas_of(more)), (-1, areas_of(less))])
    expected = stats.ttest_ind(more, less, equal_var=False).confidence_interval(0.95)
    assert whole == pytest.approx(np.mean(more) - np.mean(less))
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize("seeds", [2, 3])
def test_rows_without_a_difference_seldom_differ(monkeypatch, seeds):
    """5 % of the verdicts may be wrong; seeds drawn with replacement were wrong in 20 to 40 %."""
    monkeypatch.setattr(verdicts, "DRAWS", 20)
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(300):
        parts = [(weight, areas_of(60 + 2 * rng.standard_normal(seeds), 20)) for weight in (1, -1)]
        _, (low, high) = verdicts.difference(parts)
        wrong += low > 0 or high < 0
    assert wrong <= 0.05 * 300 + 12


def test_pictures_are_drawn_together(runs):
    """What both rows have in common, here hard pictures, is no part of their difference."""
    one = runs["default_vit_b"][0]["splits"]["val"]
    areas = np.stack([one["intersection"], one["union"]], axis=1)[None]
    assert not verdicts.drawn([(1, areas), (-1, areas)]).any()
    assert verdicts.difference([(1, areas), (-1, areas)]) == (0, (0, 0))


def test_tables_have_every_row_of_the_paper_and_every_claim_its_rows():
    listed = {row for rows in TABLES.values() for row in rows}
    assert listed <= set(miniature.ROWS)
    claimed = {row for c in CLAIMS for row in (c.more, c.less, *(c.more_than or ()))}
    assert claimed <= listed


def test_the_page_is_written_between_its_marks(tmp_path, runs):
    page, results = tmp_path / "page.md", tmp_path / "results.jsonl"
    page.write_text(
        "Before.\n\n" + "\n".join(m.format("tables") for m in verdicts.MARKS) + "\nAfter."
    )
    verdicts.write(page, "tables", verdicts.table(runs, ("ldit_vit_b", "crossatt_vit_b")))
    text = page.read_text()
    assert text.startswith("Before.") and text.endswith("After.")
    assert re.search(r"\| ldit \| 71.98 \| (69|70).\d ± 0.\d \|", text)
    assert "| crossatt | 67.06 | – |" in text
    with pytest.raises(ValueError, match="has no <!-- claims"):
        verdicts.write(page, "claims", "")
    results.write_text(json.dumps(line("ldit_vit_b", 0, share=0.7)) + "\n")
    assert [one["row"] for one in miniature.lines(results)] == ["ldit_vit_b"]


def test_one_command_writes_every_part(tmp_path, monkeypatch):
    """Of runs with more steps only what was run."""
    monkeypatch.setattr(verdicts, "DRAWS", 20)
    page, files = tmp_path / "page.md", [tmp_path / "results.jsonl", tmp_path / "longer.jsonl"]
    names = ("tables", "claims", "longer")
    page.write_text("\n".join(m.format(name) for name in names for m in verdicts.MARKS))
    for path, rows in zip(files, (("default_vit_b", "ldit_vit_b"), ("edit_vit_b",)), strict=True):
        for row in rows:
            miniature.append(path, line(row, 0, share=0.6))
    monkeypatch.setattr(
        "sys.argv",
        ["verdicts", f"--results={files[0]}", f"--longer={files[1]}", f"--page={page}"],
    )
    verdicts.main()
    tables, claims, longer = re.findall("verdicts -->(.*?)<!-- end", page.read_text(), re.DOTALL)
    assert "| ldit_scratch | – |" in tables and "| L-DIT beats default fusion | +11.2 |" in claims
    assert claims.count("not run") == len(CLAIMS) - 1
    assert "| edit | 68.07 | 60" in longer and "| ldit |" not in longer
    assert "beats" not in longer and "not run" not in longer


def test_curves_are_drawn_of_what_was_run(tmp_path, runs):
    verdicts.curves(runs, tmp_path / "some.png")
    verdicts.curves({}, tmp_path / "none.png")
    some, none = (cv2.imread(str(tmp_path / name)) for name in ("some.png", "none.png"))
    colour = np.array(viz.COLOURS[2])[::-1]  # of L-DIT
    assert (some == colour).all(axis=-1).any() and not (none == colour).all(axis=-1).any()


def test_a_row_is_what_its_command_says(tmp_path):
    words = miniature.command("default_plus1_vit_b", 2, steps=None, workdir=tmp_path)
    assert "--config=configs/miniature.py:default_vit_b" in words
    assert "--config.model.decoder_depth=3" in words and "--config.seed=2" in words
    plain, control, ours = map(
        miniature.sizes, ("default_vit_b", "default_plus1_vit_b", "ldit_vit_b")
    )
    assert plain["parameters"] < ours["parameters"] <= control["parameters"]
    frozen = miniature.sizes("ldit_vit_b_frozen")
    assert frozen["parameters"] == ours["parameters"] and frozen["trained"] < ours["trained"]


@pytest.mark.parametrize("own", [None, "", "--a=1"])
@pytest.mark.parametrize("flags", ["", "--b=2"])
def test_a_runs_flags_are_nothing_but_flags(tmp_path, monkeypatch, own, flags):
    """XLA takes what does not start with a dash, such as a space, for the name of a file."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if own is not None:
        monkeypatch.setenv("XLA_FLAGS", own)
    said = ["-c", "import os; print(repr(os.environ['XLA_FLAGS']))"]
    miniature.finish(said, tmp_path, xla_flags=flags)
    expected = " ".join(filter(None, (own, flags)))
    assert (tmp_path / "log.txt").read_text() == f"{expected!r}\n"


def test_areas_are_summed_over_a_picture(tmp_path):
    masks = [np.zeros((4, 6), bool) for _ in range(3)]
    masks[0][:2], masks[1][1:3], masks[2][:, :1] = True, True, True
    pairs = [(-2, 0, 1), (-2, 0, 0), (-1, 2, 1)]  # picture, predicted, true
    with Writer(tmp_path / "val.jsonl", about={}) as lines:
        for number, (picture, one, other) in enumerate(pairs):
            both = {"mask": encoded(masks[one]), "truth": encoded(masks[other])}
            lines.write({"index": number, "image_id": picture} | both)
    expected = {"intersection": [6 + 12, 2], "union": [18 + 12, 14]}
    assert miniature.areas(tmp_path / "val.jsonl") == expected


def test_runs_of_another_budget_are_not_mixed_in(tmp_path, monkeypatch, capsys):
    results = tmp_path / "results.jsonl"
    words = miniature.command("ldit_vit_b", 0, steps=3000, workdir=tmp_path)
    about = {"command": " ".join(words)}
    results.write_text(json.dumps(line("ldit_vit_b", 0, share=0.7) | about) + "\n")
    monkeypatch.setattr("sys.argv", ["miniature", "--rows=ldit_vit_b", f"--results={results}"])
    with pytest.raises(SystemExit):
        miniature.main()
    assert "holds runs with --steps=3000, not None; expected another" in capsys.readouterr().err

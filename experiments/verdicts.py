"""The paper's claims, and whether the miniature bears them out: docs/miniature.md's tables, and its
learning curves.

    python -m experiments.verdicts

Each claim is that one row scores more than another, or gains more, in oIoU on val, mean over seeds.
The 95 % interval of a difference is Student's, after Welch: its variance is that of a paired
bootstrap over pictures, the same ones for every row, and of every row's seeds. A claim holds where
the interval lies above 0, fails where it lies below, and is undecided otherwise. One seed says
nothing of its spread: the interval is then over pictures alone, and the verdict says so.
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from dit_jax import variants, viz
from experiments.miniature import CONTROLS, RESULTS, ROWS, lines, oiou

PAGE = Path(__file__).parents[1] / "docs" / "miniature.md"
LONGER = RESULTS.with_name("longer.jsonl")  # runs of more steps
MARKS = "<!-- {}: written by experiments.verdicts -->", "<!-- end of {} -->"
SPLITS = ("val", "testA", "testB", "heldout")
DRAWS, LEVEL = 4000, 0.95
SIGNS = (1, -1, -1, 1)  # of a claim's rows

Line = dict[str, Any]
Runs = dict[str, dict[int, Line]]  # row → seed → what came out
Areas = Int[np.ndarray, "seeds pictures 2"]

TABLES = {
    "Table 1: how text is fused": (
        *("default_vit_b", "default_plus1_vit_b", "default_plus2_vit_b", "default_plus4_vit_b"),
        *("edit_vit_b", "ldit_vit_b", "default_vit_b_frozen", "default_plus2_vit_b_frozen"),
        *("default_plus4_vit_b_frozen", "edit_vit_b_frozen", "ldit_vit_b_frozen"),
    ),
    "Table 2: static prompts": (
        "edit_vit_b",
        "edit_static_vit_b",
        "ldit_vit_b",
        "ldit_static_vit_b",
    ),
    "Table 3: freezing": (
        *("edit_vit_b", "edit_vit_b_frozen", "edit_vit_b_both_frozen"),
        *("ldit_vit_b", "ldit_vit_b_frozen", "ldit_vit_b_both_frozen"),
    ),
    "Table 4: how text is projected": ("ldit_vit_b", "crossatt_vit_b", "crossatt_ffn_vit_b"),
    "Beyond the paper: without the pre-trained parts": (
        *("default_scratch_vit_b", "edit_scratch_vit_b", "ldit_scratch_vit_b"),
        *("ldit_only_sam_vit_b", "ldit_only_bert_vit_b", "ldit_vit_b"),
    ),
    "Beyond the paper: text enters at block 0, 2 or 4 of 6": (
        *("ldit_vit_b", "ldit_from2_vit_b", "ldit_from4_vit_b"),
    ),
}


@dataclass(frozen=True)
class Claim:
    """That `more` less `less` is above 0; of two pairs, that the first differs by more."""

    text: str
    more: str
    less: str
    more_than: tuple[str, str] | None = None


CLAIMS = (
    Claim("E-DIT beats default fusion", "edit_vit_b", "default_vit_b"),
    Claim("L-DIT beats E-DIT", "ldit_vit_b", "edit_vit_b"),
    Claim("L-DIT beats default fusion", "ldit_vit_b", "default_vit_b"),
    Claim("frozen, E-DIT beats default fusion", "edit_vit_b_frozen", "default_vit_b_frozen"),
    Claim("frozen, L-DIT beats E-DIT", "ldit_vit_b_frozen", "edit_vit_b_frozen"),
    Claim("frozen, L-DIT beats default fusion", "ldit_vit_b_frozen", "default_vit_b_frozen"),
    Claim(
        "L-DIT's gain over default fusion is larger frozen than tuned",
        *("ldit_vit_b_frozen", "default_vit_b_frozen"),
        more_than=("ldit_vit_b", "default_vit_b"),
    ),
    Claim("two more decoder layers help default fusion", "default_plus2_vit_b", "default_vit_b"),
    Claim("L-DIT beats default fusion + 4 layers", "ldit_vit_b", "default_plus4_vit_b"),
    Claim("static prompts help E-DIT", "edit_static_vit_b", "edit_vit_b"),
    Claim("static prompts hurt L-DIT", "ldit_vit_b", "ldit_static_vit_b"),
    Claim("a linear projection beats CrossAtt", "ldit_vit_b", "crossatt_vit_b"),
    Claim("a linear projection beats CrossAtt + FFN", "ldit_vit_b", "crossatt_ffn_vit_b"),
    Claim("tuning the image encoder helps L-DIT", "ldit_vit_b", "ldit_vit_b_frozen"),
    Claim(
        "from scratch, E-DIT beats default fusion", "edit_scratch_vit_b", "default_scratch_vit_b"
    ),
    Claim("from scratch, L-DIT beats E-DIT", "ldit_scratch_vit_b", "edit_scratch_vit_b"),
    Claim(
        "from scratch, L-DIT beats default fusion", "ldit_scratch_vit_b", "default_scratch_vit_b"
    ),
    Claim("L-DIT gains from the pre-trained parts", "ldit_vit_b", "ldit_scratch_vit_b"),
    Claim("L-DIT beats late fusion with as many parameters", "ldit_vit_b", "default_plus1_vit_b"),
    Claim("text from block 0 beats text from block 2 of 6", "ldit_vit_b", "ldit_from2_vit_b"),
    Claim("text from block 0 beats text from block 4 of 6", "ldit_vit_b", "ldit_from4_vit_b"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--longer", type=Path, default=LONGER)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    runs = by_row(lines(options.results))
    parts = {name: table(runs, rows) for name, rows in TABLES.items()}
    text = "\n\n".join(f"### {name}\n\n{part}" for name, part in parts.items())
    write(options.page, "tables", text)
    write(options.page, "claims", claims(runs))
    longer = by_row(lines(options.longer))
    known = tuple(row for row in ROWS if row in longer)
    write(options.page, "longer", f"{table(longer, known)}\n\n{claims(longer, open_ones=False)}")
    curves(runs, options.page.with_suffix(".png"))


def by_row(found: Iterable[Line]) -> Runs:
    runs: Runs = {}
    for line in found:
        runs.setdefault(line["row"], {})[line["seed"]] = line
    return runs


def table(runs: Runs, rows: tuple[str, ...]) -> str:
    """Markdown: the paper's oIoU and ours, mean ± standard deviation over seeds."""
    head = ("row", "paper, RefCOCO val", *SPLITS, "seeds", "parameters", "trained", "GFLOP")
    text = [_row(head), _row(["---"] * len(head))]
    for row in rows:
        known = runs.get(row, {})
        scores = [
            _spread([oiou(line["splits"][name]) for line in known.values()]) for name in SPLITS
        ]
        one = next(iter(known.values()), None)
        sizes = ("–",) * 3
        if one is not None:
            millions = (f"{one[key] / 1e6:.2f} M" for key in ("parameters", "trained"))
            sizes = (*millions, f"{one['gflop']:.3f}")
        text.append(_row((row.replace("_vit_b", ""), _paper(row), *scores, len(known), *sizes)))
    return "\n".join(text)


def claims(runs: Runs, *, open_ones: bool = True) -> str:
    """Markdown; without those that nobody has tried, unless `open_ones`."""
    head = ("claim", "paper", "ours", "95 % interval", "seeds", "verdict")
    text = [_row(head), _row(["---"] * len(head))]
    for claim in CLAIMS:
        found = judge(runs, claim)
        if found is None and not open_ones:
            continue
        ours = ("–", "–", "–", "not run") if found is None else found
        text.append(_row((claim.text, _claimed(claim), *ours)))
    return "\n".join(text)


def judge(runs: Runs, claim: Claim) -> tuple[str, str, str, str] | None:
    """Difference, interval, seeds of each row and verdict; None where a row was not run."""
    rows = (claim.more, claim.less, *(claim.more_than or ()))
    if not all(runs.get(row) for row in rows):
        return None
    areas = {row: np.stack([_areas(line) for line in runs[row].values()]) for row in rows}
    weights = dict.fromkeys(rows, 0)
    for row, sign in zip(rows, SIGNS, strict=False):
        weights[row] += sign
    whole, (low, high) = difference([(weights[row], part) for row, part in areas.items()])
    verdict = "holds" if low > 0 else "fails" if high < 0 else "undecided"
    counts = [len(part) for part in areas.values()]
    if 1 in counts and verdict != "undecided":
        verdict += ", as far as one seed tells"
    seeds = ", ".join(map(str, counts))
    return f"{whole:+.1f}", f"{low:+.1f} … {high:+.1f}", seeds, verdict


def difference(parts: list[tuple[int, Areas]]) -> tuple[float, tuple[float, float]]:
    """The weighted sum of the rows' mean oIoU in percent, and its interval.

    Its degrees of freedom are Welch's and Satterthwaite's (Biometrika 1947).
    """
    whole = sum(weight * score(areas.sum(axis=1)).mean() for weight, areas in parts)
    shares = [(drawn(parts).var(ddof=1), parts[0][1].shape[1] - 1)]  # variance, degrees of freedom
    for weight, areas in parts:
        if len(areas) > 1:
            spread = weight**2 * score(areas.sum(axis=1)).var(ddof=1) / len(areas)
            shares.append((spread, len(areas) - 1))
    variance = sum(share for share, _ in shares)
    if not variance:
        return whole, (whole, whole)
    freedom = variance**2 / sum(share**2 / degrees for share, degrees in shares)
    reach = stats.t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(variance)
    return whole, (whole - reach, whole + reach)


def drawn(parts: list[tuple[int, Areas]]) -> Float[np.ndarray, " draws"]:
    """The difference on pictures drawn with replacement, the same ones for every row and seed."""
    pictures = parts[0][1].shape[1]
    rng = np.random.default_rng(0)
    found = np.zeros(DRAWS)
    for draw in range(DRAWS):
        often = np.bincount(rng.integers(pictures, size=pictures), minlength=pictures)
        for weight, areas in parts:
            found[draw] += weight * score(np.einsum("p,spk->sk", often, areas)).mean()
    return found


def score(sums: Int[np.ndarray, "seeds 2"]) -> Float[np.ndarray, " seeds"]:
    """oIoU in percent of intersections and unions."""
    return 100 * sums[:, 0] / np.maximum(sums[:, 1], 1)


CURVES = {
    "tuned": ("default_vit_b", "edit_vit_b", "ldit_vit_b"),
    "image encoder frozen": ("default_vit_b_frozen", "edit_vit_b_frozen", "ldit_vit_b_frozen"),
    "from scratch": ("default_scratch_vit_b", "edit_scratch_vit_b", "ldit_scratch_vit_b"),
}


def curves(runs: Runs, path: Path) -> None:
    """Training losses: the mean over seeds, and the band from the least to the greatest; a panel
    for what was run."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    run = {title: rows for title, rows in CURVES.items() if runs.keys() & set(rows)}
    figure = Figure(figsize=(1 + 3 * max(len(run), 1), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, max(len(run), 1), sharey=True, squeeze=False)[0]
    for panel, (title, rows) in zip(panels, run.items(), strict=False):
        for number, row in enumerate(rows):
            losses = [dict(line["loss"]) for line in runs.get(row, {}).values()]
            steps = sorted(set.intersection(*map(set, losses))) if losses else []
            values = np.array([[one[step] for step in steps] for one in losses])
            if not steps:
                continue
            colour = tuple(part / 255 for part in viz.COLOURS[number])
            name = row.split("_")[0]
            panel.plot(steps, values.mean(axis=0), color=colour, label=name, linewidth=1.6)
            panel.fill_between(
                *(steps, values.min(axis=0), values.max(axis=0)), color=colour, alpha=0.2
            )
        panel.set_title(title, fontsize=10, loc="left", fontweight="bold")
        panel.set_xlabel("step", fontsize=8)
        panel.set_yscale("log")
        panel.tick_params(labelsize=8)
        panel.grid(color="#dddddd", linewidth=0.7)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize=9)
    panels[0].set_ylabel("training loss", fontsize=8)
    figure.savefig(path, dpi=130)


def _areas(line: Line) -> Int[np.ndarray, "pictures 2"]:
    val = line["splits"]["val"]
    return np.stack([val["intersection"], val["union"]], axis=1)


def _paper(row: str) -> str:
    known = None if row in CONTROLS else variants.VARIANTS[row].oiou
    return "–" if known is None else f"{known[0]:.2f}"


def _claimed(claim: Claim) -> str:
    rows = (claim.more, claim.less, *(claim.more_than or ()))
    known = [None if row in CONTROLS else variants.VARIANTS[row].oiou for row in rows]
    if None in known:
        return "–"
    return f"{np.dot(SIGNS[: len(rows)], [one[0] for one in known]):+.1f}"


def _spread(values: list[float]) -> str:
    if not values:
        return "–"
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if values[1:] else "")


def _row(cells: Iterable[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def write(page: Path, name: str, text: str) -> None:
    """Puts `text` between the page's marks; raises ValueError where they are not there."""
    start, end = (mark.format(name) for mark in MARKS)
    before, found, rest = page.read_text().partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page} has no {start} … {end}.")
    page.write_text(f"{before}{start}\n\n{text}\n\n{end}{after}")


if __name__ == "__main__":
    main()

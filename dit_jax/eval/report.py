"""Scores for people and for programs: aligned text, Markdown and JSON.

A metric that a protocol's papers do not report is shown as "–"; the JSON files hold all of them.
RANKING is ours, and shown under every protocol.
LISA and gRefCOCO say cIoU for what stands under oIoU.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dit_jax.eval.metrics import METRICS, RANKING, Scores
from dit_jax.eval.protocols import CLICKS, PROTOCOLS

SUMMARY = "scores.md"
KNOWN = (*PROTOCOLS, *CLICKS)
BLANK = "–"
KINDS = {
    "length": "words of the expression",
    "area": "target's share of the picture",
    "relation": "relation words",
}

Results = Mapping[str, Mapping[str, Scores]]  # split, or model → protocol → scores


def write_scores(
    workdir: str | os.PathLike[str],
    dataset: str,
    split: str,
    scores: Mapping[str, Scores],
    *,
    remarks: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write each protocol's scores to `<workdir>/eval/<dataset>-<split>-<protocol>.json`.

    `remarks` join those of the scores. A "/" in a name becomes "_". Also writes `scores.md` there,
    with all scores that the folder holds.
    """
    folder = Path(workdir) / "eval"
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for protocol, row in scores.items():
        path = folder / f"{dataset}-{split}-{protocol}.json".replace("/", "_")
        more = {"dataset": dataset, "split": split}
        row = {**row, **more, "remarks": {**row.get("remarks", {}), **(remarks or {})}}
        write_text(path, json.dumps(rounded(row), indent=2, ensure_ascii=False) + "\n")
        paths.append(path)
    write_text(folder / SUMMARY, summary(folder))
    return paths


def summary(folder: Path) -> str:
    """All scores of a folder of JSON files as Markdown, data set by data set, split by split."""
    splits: dict[tuple[str, str], dict[str, Scores]] = {}
    for path in sorted(folder.glob("*-*.json")):
        if path.stem.rpartition("-")[2] in KNOWN:
            row = json.loads(path.read_text(encoding="utf-8"))
            if {"dataset", "split", "reported"} <= row.keys():  # older files do not say
                splits.setdefault((row["dataset"], row["split"]), {})[row["protocol"]] = row
    parts = ["# Scores\n\nIn percent; in brackets, 95 % intervals over the pictures.\n"]
    for (dataset, split), found in splits.items():
        scores = {name: found[name] for name in KNOWN if name in found}
        parts.append(f"## {dataset} {split}\n\n{markdown({split: scores})}")
        name = "original" if "original" in scores else next(iter(scores))
        parts.append(f"{breakdown_markdown(name, scores[name])}\n{_remarks(scores)}")
        if kind := scores[name].get("score_kind"):
            parts.append(f"AURC and ECE are those of the score `{kind}`.\n")
    return "\n".join(parts)


def table(results: Results, *, label: str = "split") -> str:
    """An aligned text table, one row for each split (or whatever `label` names) and protocol.

    An `n` with a star counts a part of the split.
    """
    lines = _rows(results, label=label, cell=lambda row, name: f"{row[name]:.2f}")
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(_aligned(line, widths) for line in lines)


def markdown(results: Results, *, label: str = "split") -> str:
    """The same as Markdown, with intervals: "68.5 [66.9, 70.1]"."""
    head, *lines = _rows(results, label=label, cell=_with_interval)
    return _markdown_table(head, lines, words=2)


def breakdown_markdown(protocol: str, row: Scores) -> str:
    """Scores of the classes of expressions under one protocol."""
    metrics = [name for name in ("oIoU", "mIoU", "gIoU", "P@0.5") if name in row["reported"]]
    lines = []
    for kind, parts in row.get("breakdown", {}).items():
        for name, part in parts.items():
            figures = (_figure(part[metric]) for metric in metrics)
            lines.append((KINDS[kind], name, *figures, str(part["n"])))
    return _markdown_table((f"part (`{protocol}`)", "class", *metrics, "n"), lines, words=2)


def headlines(dataset: str, split: str, scores: Mapping[str, Scores]) -> dict[str, dict[str, Any]]:
    """`"<dataset>-<split>-<protocol>"` → n, the figures that its papers report, and RANKING."""
    return {
        f"{dataset}-{split}-{protocol}": {
            "dataset": dataset,
            "split": split,
            "protocol": protocol,
            "n": row["n"],
            **rounded({name: row[name] for name in row["reported"]}),
            **rounded({name: row[name] for name in RANKING if row.get(name) is not None}),
        }
        for protocol, row in scores.items()
    }


def read_headlines(folder: Path) -> dict[str, dict[str, Any]]:
    """The headlines of all scores that `write_scores` wrote into `<folder>/eval`.

    Raises FileNotFoundError where there are none.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((folder / "eval").glob("*-*.json")):
        row = json.loads(path.read_text(encoding="utf-8"))
        if {"dataset", "split", "reported"} <= row.keys():  # older files do not say
            found |= headlines(row["dataset"], row["split"], {row["protocol"]: row})
    if not found:
        raise FileNotFoundError(f"{folder} holds no scores; expected {folder}/eval/*.json.")
    return found


def rounded(value: Any) -> Any:
    """Floats to four digits, at any depth."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return value


def write_text(path: Path, text: str) -> None:
    """A reader never meets half a file."""
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def _rows(results: Results, *, label: str, cell: Any) -> list[tuple[str, ...]]:
    """Head and rows; metrics that no row shows are left out."""
    every = [row for scores in results.values() for row in scores.values()]
    shown = [name for name in (*METRICS, *RANKING) if any(_shows(row, name) for row in every)]
    lines = [(label, "protocol", *shown, "n")]
    for first, scores in results.items():
        for protocol, row in scores.items():
            figures = (cell(row, name) if _shows(row, name) else BLANK for name in shown)
            star = "*" if {"limit", "partial"} & row["remarks"].keys() else ""
            lines.append((first, protocol, *figures, f"{row['n']}{star}"))
    return lines


def _shows(row: Scores, metric: str) -> bool:
    return metric in (*row["reported"], *RANKING) and row.get(metric) is not None


def _with_interval(row: Scores, metric: str) -> str:
    interval = row.get("intervals", {}).get(metric)
    around = "" if interval is None else f" [{interval[0]:.1f}, {interval[1]:.1f}]"
    return f"{row[metric]:.1f}{around}"


def _figure(value: float | None) -> str:
    return BLANK if value is None else f"{value:.1f}"


def _remarks(scores: Mapping[str, Scores]) -> str:
    """One line for each remark, with the protocols that it is about where it is not all."""
    said: dict[str, list[str]] = {}
    for protocol, row in scores.items():
        for key, value in row["remarks"].items():
            said.setdefault(f"{key}: {_plain(value)}", []).append(f"`{protocol}`")
    lines = []
    for remark, protocols in said.items():
        about = "" if len(protocols) == len(scores) else f"{', '.join(protocols)}: "
        lines.append(f"{about}{remark}.\n")
    return "\n".join(lines)


def _plain(value: Any) -> str:
    if value is None:
        return "not known"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Words to the left, figures to the right."""
    words = [c.ljust(w) for c, w in zip(cells[:2], widths[:2], strict=True)]
    figures = [c.rjust(w) for c, w in zip(cells[2:], widths[2:], strict=True)]
    return "  ".join([*words, *figures])


def _markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]], *, words: int) -> str:
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    cells = ([cell.replace("|", r"\|") for cell in line] for line in (head, rule, *lines))
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)

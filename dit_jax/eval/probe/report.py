"""What the probes of one split showed, as JSON, Markdown and a table to print."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from dit_jax.eval.probe.measures import MEASURES, PROBES
from dit_jax.eval.probe.run import Result
from dit_jax.eval.probe.summary import ALL, FEWEST_PICTURES, LITTLE, RULES, Group, Interval
from dit_jax.eval.report import rounded
from dit_jax.strict import counted


def as_json(result: Result, *, about: Mapping[str, Any]) -> str:
    """Everything; `about` says what was probed and how, and comes first."""
    probes = {}
    for name, groups in result.groups.items():
        row = PROBES[name]
        probes[name] = {
            "title": row.title,
            "expected": row.expected,
            "drawn": row.measures[0],
            "classes": {key: _plain(group) for key, group in groups.items()},
        }
    probes["drop"]["dropped"] = {key: _plain(group) for key, group in result.dropped.items()}
    contents = {
        **about,
        "expressions": len(result.plan.cases),
        "verdicts": result.verdicts,
        "rules": {name: rule_in_words(name) for name in RULES},
        "left_out": result.plan.left_out,
        "score_kind": result.score_kind,
        "probes": probes,
    }
    return json.dumps(contents, indent=2, ensure_ascii=False) + "\n"


def as_markdown(result: Result, *, about: Mapping[str, Any]) -> str:
    """For people: verdicts, the overall figures, then each probe by relation class."""
    lines = [f"# Probes of {about['dataset']}, {about['split']}", ""]
    lines += [
        f"{counted(len(result.plan.cases), 'expression')}; {_settings(about)}. Percent, with 95 % "
    ]
    lines[-1] += "intervals over pictures."
    lines += ["", *_verdict_lines(result), "", "## Overall", "", *_markdown(_overview(result))]
    for name, groups in result.groups.items():
        row = PROBES[name]
        lines += ["", f"## {name}: {row.title}", "", f"Expected: {row.expected}.", ""]
        lines += _markdown(_by_group("class", groups, row.measures))
        if name == "drop" and result.dropped:
            lines += ["", "By the word that was dropped:", ""]
            lines += _markdown(_by_group("dropped", result.dropped, row.measures))
    lines += ["", "## Left out", "", *_left_out(result), "", "## Measures", ""]
    lines += [f"- **{name}**: {text}." for name, text in MEASURES.items()]
    lines += ["", f"The score of an answer is its `{result.score_kind}`."]
    lines += ["", "## Verdicts", "", *(f"- **{name}**: {rule_in_words(name)}" for name in RULES)]
    return "\n".join(lines) + "\n"


def table(result: Result) -> str:
    """The overall figures and the verdicts, aligned."""
    rows = _overview(result)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    said = (f"{name}: {verdict}" for name, verdict in result.verdicts.items())
    return "\n".join([*(line.rstrip() for line in lines), "; ".join(said)])


def rule_in_words(name: str) -> str:
    """A verdict's rule."""
    rule = RULES[name]
    named = [f"`{probe}: {measure}`" for probe, measure in rule.measures]
    return (
        f"“{rule.reads}” where the lower bound of {named[0]} is above {LITTLE:g} %; else"
        f" “{rule.blind}” where the upper bound of {' or '.join(named)} is at most {LITTLE:g} %;"
        f" else undecided. Fewer than {FEWEST_PICTURES} pictures decide nothing."
    )


def figure_text(interval: Interval | None) -> str:
    """ "81.2 [77.0, 85.1]"; a dash where there is nothing to say."""
    if interval is None:
        return "–"
    if interval.low is None:
        return f"{interval.mean:.1f}"
    return f"{interval.mean:.1f} [{interval.low:.1f}, {interval.high:.1f}]"


def _overview(result: Result) -> list[tuple[str, ...]]:
    """Of each probe the measure that is drawn, over all expressions."""
    rows = [("probe", "measure", "percent", "n", "expected")]
    for name, groups in result.groups.items():
        row, group = PROBES[name], groups.get(ALL)
        value = figure_text(group.measures[row.measures[0]] if group else None)
        count = str(group.n) if group else "0"
        rows.append((name, row.measures[0], value, count, row.expected))
    return rows


def _by_group(
    head: str, groups: Mapping[str, Group], measures: Sequence[str]
) -> list[tuple[str, ...]]:
    rows = [(head, "n", "pictures", *measures)]
    for name, group in groups.items():
        figures = (figure_text(group.measures.get(measure)) for measure in measures)
        rows.append((name, str(group.n), str(group.pictures), *figures))
    return rows


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return [head, "|" + "---|" * len(rows[0]), *body]


def _verdict_lines(result: Result) -> list[str]:
    return [f"- {name}: **{verdict}**" for name, verdict in result.verdicts.items()]


def _left_out(result: Result) -> list[str]:
    lines = [
        f"- {probe}: {counted(count, 'expression')} {reason}"
        for probe, reasons in result.plan.left_out.items()
        for reason, count in reasons.items()
    ]
    return lines or ["Nothing."]


def _settings(about: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in about.items() if key not in ("dataset", "split")}
    return ", ".join(f"{key} {value}" for key, value in rest.items())


def _plain(group: Group) -> dict[str, Any]:
    measures = {name: dataclasses.asdict(interval) for name, interval in group.measures.items()}
    return {"n": group.n, "pictures": group.pictures, **rounded(measures)}

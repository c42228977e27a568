"""The probes of one split as a figure: one panel a probe, one line a relation class."""

import os
from collections.abc import Mapping
from pathlib import Path

from dit_jax.eval.probe.measures import PROBES, Probe
from dit_jax.eval.probe.run import Result
from dit_jax.eval.probe.summary import ALL, FEWEST_PICTURES, Group
from dit_jax.eval.relations import CLASSES

COLUMNS = 3
LEGEND = f"● mean and 95 % interval   ○ fewer than {FEWEST_PICTURES} pictures   × without reading"
INK, GREY = "#1f4e79", "#8a8a8a"
SIZE = (11.0, 6.6)  # inches: the width of a page, turned


def save(result: Result, path: Path, *, title: str) -> None:
    """Write a PNG with means and 95 % intervals; hollow points are of few pictures."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes a second to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    FigureCanvasAgg(figure)  # draws without a display
    names = _names(result)
    axes = figure.subplots(-(-len(PROBES) // COLUMNS), COLUMNS, sharey=True).flat
    for panel, (probe, groups) in zip(axes, result.groups.items(), strict=True):
        _draw(panel, probe, groups, names=names)
    figure.suptitle(f"{title}    {LEGEND}", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".tmp")
    figure.savefig(unfinished, format="png", dpi=150)
    os.replace(unfinished, path)


def _names(result: Result) -> list[str]:
    """The classes that some probe has, in the table's order."""
    found = {name for groups in result.groups.values() for name in groups}
    return [name for name in (ALL, *CLASSES) if name in found]


def _draw(panel, probe: str, groups: Mapping[str, Group], *, names: list[str]) -> None:
    row = PROBES[probe]
    panel.set_title(row.title, fontsize=10, loc="left", fontweight="bold")
    panel.set_xlabel(f"% {row.measures[0]}   (expected: {row.expected})", fontsize=8)
    panel.set_xlim(-4, 128)
    panel.set_xticks(range(0, 101, 25))
    panel.set_yticks(range(len(names)), names, fontsize=9)
    panel.set_ylim(len(names) - 0.5, -0.5)  # the first class on top
    panel.tick_params(axis="x", labelsize=8)
    panel.grid(axis="x", color="#dddddd", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.axhline(0.5, color=GREY, linewidth=0.6)
    for place, name in enumerate(names):
        if name in groups:
            _point(panel, place, groups[name], row)


def _point(panel, place: int, group: Group, row: Probe) -> None:
    value = group.measures[row.measures[0]]
    if row.baseline:
        without = group.measures[row.baseline].mean
        panel.plot(without, place, "x", color=GREY, markersize=6, markeredgewidth=1.4)
    if value.low is not None:
        panel.hlines(place, value.low, value.high, color=INK, linewidth=1.6)
        panel.vlines((value.low, value.high), place - 0.16, place + 0.16, color=INK, linewidth=1.6)
    face = INK if group.pictures >= FEWEST_PICTURES else "white"
    panel.plot(value.mean, place, "o", color=INK, markerfacecolor=face, markersize=5.5)
    panel.text(126, place, f"n={group.n}", ha="right", va="center", fontsize=7.5, color="#444444")

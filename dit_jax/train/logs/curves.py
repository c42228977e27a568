"""The curves of a run as one figure: loss, scores, learning rate and gradient, images/s."""

import os
from pathlib import Path
from typing import Any

SIZE = (11.0, 6.6)  # inches: the width of a page, turned
MARGINS = dict(left=0.07, right=0.98, bottom=0.08, top=0.95, wspace=0.24, hspace=0.22)
INK, LIGHT = "#1f4e79", "#b9cfe4"
SMOOTH = 0.9  # of the running mean that is drawn over a noisy curve

Line = dict[str, Any]  # of metrics.jsonl


def save(lines: list[Line], path: Path) -> None:
    """Write a PNG; panels without points stay empty and say so."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes a second to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE)  # fixed margins: a layout that measures takes half the time
    FigureCanvasAgg(figure)  # draws without a display
    (loss, scores), (rate, speed) = figure.subplots(2, 2, gridspec_kw=MARGINS)
    _noisy(loss, lines, "train/loss", title="loss", log=True)
    _scores(scores, lines)
    _noisy(rate, lines, "train/grad_norm", title="norm of the gradient, before clipping", log=True)
    _noisy(speed, lines, "train/images_per_s", title="images/s")
    _plain(rate.twinx(), lines, "train/lr")
    for panel in (rate, speed):
        panel.set_xlabel("step")
    unfinished = path.with_name(path.name + ".tmp")
    figure.savefig(unfinished, format="png", dpi=110)
    os.replace(unfinished, path)


def points(lines: list[Line], key: str) -> tuple[list[int], list[float]]:
    """Steps and values of the lines that have this key."""
    found = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
    return [step for step, _ in found], [value for _, value in found]


def smooth(values: list[float]) -> list[float]:
    """Running mean; the first values count fully, as in Adam's bias correction."""
    result, mean, weight = [], 0.0, 0.0
    for value in values:
        mean = SMOOTH * mean + (1 - SMOOTH) * value
        weight = SMOOTH * weight + (1 - SMOOTH)
        result.append(mean / weight)
    return result


def _noisy(panel, lines: list[Line], key: str, *, title: str, log: bool = False) -> None:
    """The values, light, and their running mean."""
    _dress(panel, title)
    steps, values = points(lines, key)
    if not steps:
        panel.text(0.5, 0.5, "nothing logged yet", ha="center", transform=panel.transAxes)
        return
    panel.plot(steps, values, color=LIGHT, linewidth=1.0)
    alone = "o" if len(steps) == 1 else None  # a line of one point would not be seen
    panel.plot(steps, smooth(values), color=INK, linewidth=1.6, marker=alone, markersize=3.5)
    if log and min(values) > 0 and not alone:
        panel.set_yscale("log")
    else:
        panel.set_ylim(bottom=0)


def _plain(panel, lines: list[Line], key: str) -> None:
    """A second axis on the right: the learning rate."""
    steps, values = points(lines, key)
    ring = dict(marker="o", markersize=7, fillstyle="none") if len(steps) == 1 else {}
    panel.plot(steps, values, color="#c55a11", linewidth=1.2, linestyle="--", **ring)
    panel.set_ylabel("learning rate (dashed)", color="#c55a11", fontsize=8)
    panel.tick_params(labelsize=8, which="both")
    panel.set_ylim(bottom=0)
    panel.spines[["top"]].set_visible(False)


def _scores(panel, lines: list[Line]) -> None:
    _dress(panel, "oIoU, %")
    names = sorted({key for line in lines for key in line if key.endswith("/oIoU")})
    if not names:
        panel.text(0.5, 0.5, "not evaluated yet", ha="center", transform=panel.transAxes)
        return
    for name in names:
        panel.plot(*points(lines, name), marker="o", markersize=3.5, label=name[: -len("/oIoU")])
    panel.set_ylim(bottom=0)
    panel.legend(fontsize=8, frameon=False)


def _dress(panel, title: str) -> None:
    panel.set_title(title, fontsize=10, loc="left", fontweight="bold")
    panel.grid(color="#dddddd", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.tick_params(labelsize=8, which="both")
    panel.spines[["top", "right"]].set_visible(False)

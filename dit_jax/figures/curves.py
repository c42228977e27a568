"""Learning curves of one run or several, from the `metrics.jsonl` of their workdirs."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dit_jax import viz

FILE = "metrics.jsonl"
LOSS, SCORE = "train/loss", "/oIoU"
COLUMNS, PANEL = 3, (4.0, 2.9)  # inches of a panel
SINGLE = 3  # points, up to which each is marked


@dataclass(frozen=True)
class Curve:
    steps: list[int]
    values: list[float]


Curves = dict[str, Curve]  # metric → curve


def read(workdir: Path) -> Curves:
    """All curves of a run; where a step is there twice, its last line counts.

    Raises FileNotFoundError or ValueError, in a sentence, for a folder without metrics.
    """
    file = workdir / FILE
    if not file.is_file():
        raise FileNotFoundError(f"{workdir} holds no {FILE}; expected the --workdir of a run.")
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    points: dict[str, dict[int, float]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
            step = values.pop("step")
            for key, value in values.items():
                points.setdefault(key, {})[int(step)] = float(value)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number == len(lines):  # the one that a run was writing when it was killed
                break
            raise ValueError(
                f'{file} line {number} is no record of a run; expected {{"step": …, …}}.'
            ) from error
    if not points:
        raise ValueError(f"{file} holds no metric yet.")
    return {
        key: Curve(sorted(found), [found[step] for step in sorted(found)])
        for key, found in points.items()
    }


def save(runs: Mapping[str, Curves], path: Path, *, keys: Sequence[str] = ()) -> None:
    """Write a PNG with one panel a metric and one line a run.

    Args:
      keys: metrics; by default the loss, and the oIoU of every split and protocol.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes a second to import
    from matplotlib.figure import Figure

    shown = list(keys) or _usual(runs)
    _check(shown, runs)
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a display
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for panel, key in zip(panels, shown, strict=False):
        _draw(panel, key, runs)
    for panel in list(panels)[len(shown) :]:
        panel.set_visible(False)
    handles, names = figure.axes[0].get_legend_handles_labels()
    how = dict(ncols=min(4, 2 * columns), frameon=False, fontsize=9)
    figure.legend(handles, names, loc="outside upper left", **how)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".tmp")
    figure.savefig(unfinished, format="png", dpi=130)
    os.replace(unfinished, path)


def _usual(runs: Mapping[str, Curves]) -> list[str]:
    found = dict.fromkeys(key for curves in runs.values() for key in curves)
    return [key for key in found if key == LOSS] + [key for key in found if key.endswith(SCORE)]


def _check(keys: Sequence[str], runs: Mapping[str, Curves]) -> None:
    known = sorted({key for curves in runs.values() for key in curves})
    unknown = [key for key in keys if key not in known]
    if unknown or not keys:
        named = f"no run has the metric {unknown[0]!r}" if unknown else "no run has a loss or oIoU"
        raise ValueError(f"{named}; expected some of {', '.join(known)}.")


def _draw(panel, key: str, runs: Mapping[str, Curves]) -> None:
    for number, (name, curves) in enumerate(runs.items()):
        colour = tuple(part / 255 for part in viz.COLOURS[number % len(viz.COLOURS)])
        curve = curves.get(key, Curve([], []))
        mark = "o" if len(curve.steps) <= SINGLE else None
        panel.plot(
            *(curve.steps, curve.values), color=colour, linewidth=1.6, marker=mark, label=name
        )
    panel.set_title(key, fontsize=10, loc="left", fontweight="bold")
    panel.set_xlabel("step", fontsize=8)
    panel.set_ylabel("%" if key.endswith(SCORE) else "", fontsize=8)
    panel.tick_params(labelsize=8)
    panel.grid(color="#dddddd", linewidth=0.7)
    panel.spines[["top", "right"]].set_visible(False)

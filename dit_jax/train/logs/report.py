"""`<workdir>/report.md`: what a run is, how it went and how fast, for people.

Everything is read from the files that the run writes anyway (`run.json`, `metrics.jsonl`,
`pictures/`), so a report can be made again at any time, of a run of any age.
"""

import statistics
from collections.abc import Collection
from pathlib import Path
from typing import Any

from dit_jax.eval.protocols import PROTOCOLS
from dit_jax.eval.report import SUMMARY, write_text
from dit_jax.models import flops
from dit_jax.models.architecture import Architecture
from dit_jax.strict import counted
from dit_jax.train.logs import curves, provenance
from dit_jax.train.logs.progress import JSONL, read_lines

REPORT, CURVES = "report.md", "curves.png"

Line = dict[str, Any]  # of metrics.jsonl


def write(
    workdir: Path,
    settings: dict[str, Any],
    *,
    arch: Architecture,
    freeze: tuple[str, ...],
    scored: Collection[int],
) -> None:
    """Write `report.md` and `curves.png`; call it in one process.

    Args:
      settings: the config's values by dotted key.
      freeze: encoders that are not trained.
      scored: steps whose evaluations count; others meant something else.
    """
    lines = read_lines(workdir / JSONL)
    starts = provenance.starts(workdir)
    curves.save(lines, workdir / CURVES)
    parts = [
        f"# {workdir.resolve().name}: {settings['model.variant']} on {settings['data.dataset']}\n",
        _scores(lines, workdir, scored),
        f"## Curves\n\n![loss, scores, rate and speed by step]({CURVES})\n",
        _pictures(workdir),
        _speed(lines, starts, arch=arch, freeze=freeze),
        _starts(starts),
        _config(settings, starts),
    ]
    write_text(workdir / REPORT, "\n".join(part for part in parts if part))


def _scores(lines: list[Line], workdir: Path, scored: Collection[int]) -> str:
    """The best evaluation under each protocol, in the order of the protocols' table."""
    rows, lines = [], [line for line in lines if line["step"] in scored]
    for name in sorted(
        {key for line in lines for key in line if key.endswith("/oIoU")}, key=_order
    ):
        last = {line["step"]: line for line in lines if name in line}  # of a step's evaluations
        best = max(last.values(), key=lambda line: line[name])
        head = name.removesuffix("/oIoU")
        split, _, protocol = head.rpartition("-")
        mean = best.get(f"{head}/mIoU")
        shown = "–" if mean is None else f"{mean:.2f}"
        rows.append(f"| {split} | {protocol} | {best[name]:.2f} | {shown} | {best['step']} |")
    if not rows:
        return "## Scores\n\nNot evaluated yet.\n"
    table = ["| split | protocol | best oIoU | mIoU | step |", "|---|---|---|---|---|", *rows]
    text = "## Scores\n\nBest of the evaluations during training, in percent.\n\n"
    text += "\n".join(table) + "\n"
    if (workdir / "eval" / SUMMARY).is_file():
        text += f"\nAll splits, with intervals and breakdowns: [eval/{SUMMARY}](eval/{SUMMARY}).\n"
    return text


def _order(name: str) -> tuple[str, int]:
    split, _, protocol = name.removesuffix("/oIoU").rpartition("-")
    known = list(PROTOCOLS)
    return split, known.index(protocol) if protocol in known else len(known)


def _pictures(workdir: Path) -> str:
    pictures = sorted((workdir / "pictures").glob("step_*.png"))
    if not pictures:
        return ""
    last = pictures[-1].name
    return f"## Pictures\n\n![photo, truth and prediction](pictures/{last})\n"


def _speed(
    lines: list[Line], starts: list[dict], *, arch: Architecture, freeze: tuple[str, ...]
) -> str:
    """Of the last start that logged anything; its devices are known."""
    logged = [line for line in lines if "train/images_per_s" in line]
    if not logged:
        return ""
    start = next((one for one in reversed(starts) if one["step"] < logged[-1]["step"]), None)
    since = 0 if start is None else start["step"]
    rates = [line["train/images_per_s"] for line in logged if line["step"] > since]
    rate = statistics.median(rates)
    text = f"## Speed\n\n{rate:.2f} images/s (median of {counted(len(rates), 'logged value')}"
    if start is None:
        return f"{text}).\n"
    devices = start["devices"]
    text += f"), {rate / devices['count']:.2f} on each of {devices['count']} × {devices['kind']}."
    work = flops.training(arch, freeze=freeze)
    text += f" Training takes {work / 1e9:,.3g} GFLOP an image"
    about = dict(device_kind=devices["kind"], devices=devices["count"], freeze=freeze)
    share = flops.mfu(rate, arch, **about)
    if share is None:
        return f"{text}; no peak is known for this device, so no MFU.\n"
    return f"{text}: {share:.1%} of the devices' bfloat16 peak (MFU).\n"


def _starts(starts: list[dict]) -> str:
    if not starts:
        return ""
    rows = ["| time | step | commit | devices | mesh | jax |", "|---|---|---|---|---|---|"]
    for start in starts:
        git, devices = start["git"], start["devices"]
        commit = "–" if git is None else git["commit"][:10] + (" + changes" if git["dirty"] else "")
        mesh = " × ".join(f"{axis} {count}" for axis, count in start["mesh"].items())
        rows.append(
            f"| {start['time']} | {start['step']} | {commit} | {devices['count']} ×"
            f" {devices['kind']} | {mesh} | {start['packages']['jax']} |"
        )
    return "## Starts\n\n" + "\n".join(rows) + "\n"


def _config(settings: dict[str, Any], starts: list[dict]) -> str:
    """The last command, whose `--config.…` are what differs from the file, and every value."""
    text = "## Config\n\n"
    if starts:
        text += "    " + " ".join(starts[-1]["command"]) + "\n\n"
    values = "\n".join(f"    {key} = {value!r}" for key, value in settings.items())
    return f"{text}<details><summary>Every value</summary>\n\n{values}\n\n</details>\n"

"""The page of a card, from the lines of JSON that its measurements left."""

from collections.abc import Iterable
from typing import Any

from benchmarks import synthetic
from benchmarks.gpu_day import worker
from dit_jax.models import flops

Line = dict[str, Any]
# What the quickstart scored on two CPU cores: README.md.
ON_A_CPU = {"val": 74.1, "testA": 71.7, "testB": 43.8, "heldout": 68.3}
INTRODUCTION = (
    "Batch 64, 512 px, 20 tokens, bfloat16, one layer of BERT, no dropout, except where it says"
    " otherwise; ten steps that follow one another. MFU is of the card's dense bfloat16 peak, so"
    " that products of 8 bits have none; recomputation is not counted. GiB: of dit_jax what the"
    " compiler sets aside, of PyTorch the peak that it allocated."
)
FOLDED = "PyTorch, `torch.compile`, positions folded into channels"
BIAS = "PyTorch, `torch.compile`, SDPA with a bias"
WHO = {
    "folded": FOLDED,
    "cudnn": f"{FOLDED}, cuDNN's kernels",
    "fused": BIAS,
    "cudnn_fused": f"{BIAS}, cuDNN's kernels",
    "none": "dit_jax",
    "fp8": "dit_jax, products of 8 bits",
}


def text(lines: list[Line]) -> str:
    """The page; `lines` are in the order in which they came."""
    (about,) = [line for line in lines if line["part"] == "machine"]
    parts = [f"# Measured on one {about['card']}", f"    {about['command']}"]
    parts += [f"{about['about']} {INTRODUCTION}"]
    for names, (title, section) in SECTIONS.items():
        answers = [line for line in lines if line["part"] in names.split() and "key" in line]
        parts.append(f"## {title}")
        if whole := [line for line in answers if "error" not in line]:
            parts.append(section(whole, about["card"]))
        parts += [remark(line) for line in answers if "error" in line]
        for name in names.split():
            if not any(line["part"] == name for line in answers):
                why = [line["skipped"] for line in lines if line["part"] == name]
                parts.append(f"`{name}` was skipped: {why[-1]}." if why else f"`{name}`: not yet.")
    return "\n\n".join(parts) + "\n"


def remark(line: Line) -> str:
    size = f" ({line['GiB']:.1f} GiB)" if line.get("GiB") else ""
    return f"`{line['key']}`: {line['error']}{size}."


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def kernels(lines: list[Line], card: str) -> str:
    rows = [(l["key"], _error(l), l["fault"] or "agrees") for l in lines]  # noqa: E741
    named = [line["key"] for line in lines if line["fault"]]
    verdict = f"The kernel check names {len(named)} of {len(lines)}: {', '.join(named) or 'none'}."
    head = ("kernel, heads of, px, text, type", "largest error, of the largest number", "check")
    return f"{verdict}\n\n{table(head, rows)}"


def _error(line: Line) -> str:
    return f"{max(line['errors']):.2g}" if line["errors"] else "–"


def speed(lines: list[Line], card: str) -> str:
    peak, fastest = flops.peak(card), {}
    lines = sorted(lines, key=lambda line: line["key"].split()[:2])
    rows = []
    for line in lines:
        row, what, how = line["key"].split()
        theirs = line["part"] == "torch"
        who = WHO.get(how, f"dit_jax, `remat={how}`")
        rate = 1e3 * line["batch"] / line["ms"]
        work = getattr(flops, what)(
            synthetic.architecture(row, image_size=worker.sizes(row)["size"])
        )
        mfu = "–" if peak is None or how == "fp8" else f"{100 * rate * work / peak:.1f} %"
        gib = "–" if line["GiB"] is None else f"{line['GiB']:.1f}"
        rows.append((row, what, who, line["batch"], f"{line['ms']:.1f}", f"{rate:.0f}", mfu, gib))
        if how != "fp8":
            best = fastest.setdefault((row, what), {})
            best[theirs] = max(rate, best.get(theirs, 0.0))
    ratios = [
        f"{row}, {what}: dit_jax is {best[False] / best[True]:.2f} times as fast as the fastest"
        " PyTorch."
        for (row, what), best in fastest.items()
        if len(best) == 2
    ]
    head = ("", "", "", "batch", "ms", "pictures/s", "MFU", "GiB")
    return "\n\n".join([table(head, rows), *ratios])


def attention(lines: list[Line], card: str) -> str:
    rows = [
        (*line["key"].split()[1:], f"{line['forward_ms']:.2f}", f"{line['both_ms']:.2f}")
        for line in lines
    ]
    return table(("", "heads of", "px", "forward, ms", "forward and backward, ms"), rows)


def run(lines: list[Line], card: str) -> str:
    return "\n\n".join(_run(line, card) for line in lines)


def _run(line: Line, card: str) -> str:
    took = "in several starts" if line["s"] is None else f"{line['s']:.0f} s, compilation included"
    known = ON_A_CPU if line["key"] == "quickstart" else {}
    rows = [(split, known.get(split, "–"), f"{score:.1f}") for split, score in line["oIoU"].items()]
    scores = table(("oIoU, %", "two CPU cores", card), rows)
    command = f"`{line['command']}`, from data to scores"
    return f"{command}: {took}; {line['pictures_per_s']:.0f} pictures/s.\n\n{scores}"


def kills(lines: list[Line], card: str) -> str:
    (line,) = lines
    names, count = line["different"], line["results"]
    what = f"Killed once with SIGKILL (it met the run {line['met']}) and started again: "
    if not names:
        return f"{what}all {count} results are bit for bit those of an undisturbed run."
    two, own = len(line["undisturbed_different"]), line["undisturbed_apart"]
    return (
        f"{what}{len(names)} of {count} results have other bits than those of an undisturbed run;"
        f" the last models' weights are {line['apart']:.2g} apart. Two undisturbed runs differ in"
        f" {two}, and their weights by {own:.2g}."
    )


def rows(lines: list[Line], card: str) -> str:
    table_rows = []
    for line in lines:
        seeds = line["oIoU"].values()
        splits = {split: [one[split] for one in seeds] for split in next(iter(seeds))}
        means = [f"{split} {sum(values) / len(values):.1f}" for split, values in splits.items()]
        table_rows.append((line["key"], len(seeds), ", ".join(means)))
    said = "Their lines belong to `experiments/results/miniature.jsonl`."
    return f"{said}\n\n{table(('row', 'seeds', 'mean oIoU, %'), table_rows)}"


SECTIONS = {
    "kernels": ("Every kernel against plain attention in float32", kernels),
    "speed torch": ("Forward passes and training steps, and PyTorch's", speed),
    "run": ("From data to scores", run),
    "kills": ("Killed and started again", kills),
    "attention": ("A block's attention, gradients of tables included, and a LayerNorm", attention),
    "rows": ("Rows of the miniature tables", rows),
}

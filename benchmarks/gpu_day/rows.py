"""Rows of docs/miniature.md that nobody has run yet: a worker of `benchmarks.gpu_day`.

    python -m benchmarks.gpu_day.rows --only default_plus2_vit_b edit_carried_vit_b

A key is a row of `experiments.miniature`, whose seeds are one program. What came out also goes to
OUT/miniature.jsonl, lines as in experiments/results/miniature.jsonl. `self-test` is for CPUs.
"""

import concurrent.futures

from benchmarks.gpu_day import worker
from experiments import miniature

TEST = "self-test"
SMALL = {
    "model.backbone": "tiny",
    "model.text_layer": 1,
    "model.init.sam": "",
    "model.init.bert": "",
    "data.shapes.length": 64,
    "data.shapes.eval_length": 4,
    "data.eval_splits": ("val",),
    "eval.batch_size": 4,
    "optim.batch_size": 2,
}


def missing() -> dict[str, list[int]]:
    """The seeds of each row that experiments/results/miniature.jsonl does not have."""
    known = {(line["row"], line["seed"]) for line in miniature.lines(miniature.RESULTS)}
    rows = {row: [s for s in miniature.SEEDS if (row, s) not in known] for row in miniature.ROWS}
    return {row: seeds for row, seeds in rows.items() if seeds}


def main() -> None:
    about = worker.parsed(__doc__)
    seeds = missing() | {TEST: [0]}
    if TEST in about.only:
        miniature.CONTROLS[TEST] = ("ldit_vit_b", SMALL)
    with concurrent.futures.ThreadPoolExecutor(miniature.TOGETHER) as pool:
        runs = {
            pool.submit(
                miniature.run_together,
                row,
                seeds[row],
                steps=2 if row == TEST else None,
                workdir=about.work.resolve() / "miniature",
            ): row
            for row in about.only
        }
        for each in concurrent.futures.as_completed(runs):
            worker.answer(runs[each], lambda each=each: kept(each.result(), about.out))


def kept(lines: list[miniature.Line], out) -> dict:
    """oIoU of each split, by seed."""
    for line in lines:
        miniature.append(out / "miniature.jsonl", line)
    return {
        "oIoU": {
            line["seed"]: {split: miniature.oiou(table) for split, table in line["splits"].items()}
            for line in lines
        }
    }


if __name__ == "__main__":
    main()

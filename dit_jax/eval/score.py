"""Score anybody's masks, so that every model can stand in the same table.

    python -m dit_jax.eval.score MODEL_A.jsonl MODEL_B.jsonl --truth RECORDS --split val

Each line of a file is one expression's mask, see `prediction_files` and docs/protocols.md. The
truth comes from the line itself, or from array records (`--truth`), by `sent_id`, `index`, or `id`
with `text`; then every expression of the split must be there exactly once.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dit_jax import storage
from dit_jax.data.records import Records, bucket
from dit_jax.eval.evaluate import summarise
from dit_jax.eval.metrics import Scores
from dit_jax.eval.outcomes import Outcome, Outcomes, about, join, outcome
from dit_jax.eval.prediction_files import Line, read
from dit_jax.eval.protocols import PROTOCOLS, Mask, Protocol, rows
from dit_jax.eval.report import markdown, rounded, table, write_text
from dit_jax.eval.truths import ExpressionTruth, TruthInLines, TruthInRecords, Truths
from dit_jax.strict import counted

DEFAULT = "original,lisa,gres"


def score_file(
    path: str | Path,
    truths: Truths,
    *,
    protocols: Sequence[str],
    bootstrap: int = 0,
    partial: bool = False,
) -> dict[str, Scores]:
    """The scores of one file of predictions.

    The masks are made already, so that a protocol only says how they are compared and counted.
    `partial` accepts a file that leaves expressions out, and the scores say so. Raises ValueError,
    naming file and line, for what cannot be read or does not fit the truth.
    """
    chosen = rows(protocols)
    found: dict[str, list[Outcome]] = {name: [] for name in chosen}
    where: dict[int, str] = {}  # expression → the line that brought it
    keyed = [(truths.index(line), line) for line in read(path)]
    if not keyed:
        raise ValueError(f"{path} holds no prediction, expected one line an expression.")
    for index, line in sorted(keyed, key=lambda pair: pair[0]):  # neighbours share their truth
        if index in where:
            raise ValueError(f"{line.where} has the same expression as {where[index]}.")
        where[index] = line.where
        for name, row in _outcomes(line, truths.known(index, line), chosen).items():
            found[name].append(row)
    missing = truths.missing(where.keys())
    if missing and not partial:
        raise ValueError(
            f"{path} lacks {len(missing)} of {len(missing) + len(where)} expressions:"
            f" {'; '.join(map(truths.name, missing[:5]))}{' …' if len(missing) > 5 else ''}"
            " (--partial scores the others)."
        )
    remarks = {"partial": f"{counted(len(missing), 'expression')} missing"} if missing else {}
    remarks |= truths.remarks()
    kinds = {line.text("score_kind") for _, line in keyed}
    about = dict(bootstrap=bootstrap, remarks=remarks)
    about["score_kind"] = kinds.pop() if len(kinds) == 1 else None
    return {
        name: summarise(name, join([Outcomes.of(part)]), **about) for name, part in found.items()
    }


def _outcomes(
    line: Line, known: ExpressionTruth, chosen: Mapping[str, Protocol]
) -> dict[str, Outcome]:
    """One expression under every protocol."""
    predicted, truth, nothing, score = line.mask(), known.truth, line.nothing(), line.score()
    target = int(np.count_nonzero(truth))
    common = about(known.text, truth, index=known.index, image_id=known.image_id, target=target)
    found = {}
    for name, protocol in chosen.items():
        _check_size(line, predicted, protocol.size or truth.shape, name=name)
        pair = protocol.compare(predicted, truth, nothing)
        how = dict(nothing=pair.nothing, about=common, score=score)
        found[name] = outcome(pair.predicted, pair.truth, **how)
    return found


def _check_size(line: Line, mask: Mask, size: tuple[int, ...], *, name: str) -> None:
    if mask.shape != size:
        raise ValueError(
            f"{line.where}: the mask is {mask.shape[0]}x{mask.shape[1]} (height x width), expected"
            f" {size[0]}x{size[1]} for the protocol {name!r}."
        )


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    names = options.name or [Path(path).stem for path in options.predictions]
    if len(set(names)) != len(options.predictions):
        raise ValueError(
            f"{len(options.predictions)} files are named {', '.join(names)}; expected a name of its"
            " own for each (--name A --name B)."
        )
    if options.bootstrap < 0:
        raise ValueError(f"--bootstrap is {options.bootstrap}; expected 0 or more resamples.")
    if (options.truth is None) != (options.split is None):
        raise ValueError("expected --truth RECORDS and --split NAME together, or neither.")
    truths = (
        TruthInLines()
        if options.truth is None
        else TruthInRecords(Records(_records(options.truth), options.split))
    )
    results = {
        name: score_file(
            storage.local(path),
            truths,
            protocols=[name.strip() for name in options.protocols.split(",")],
            bootstrap=options.bootstrap,
            partial=options.partial,
        )
        for name, path in zip(names, options.predictions, strict=True)
    }
    print(table(results, label="model"))
    if options.json:
        text = json.dumps(rounded(results), indent=2, ensure_ascii=False)
        _write(options.json, text + "\n")
    if options.markdown:
        _write(options.markdown, markdown(results, label="model"))


def _records(folder: str) -> Path | str:
    """Of records in a bucket their copy, without shards."""
    name = storage.parse(folder)
    return folder if name is None else bucket.copy(name) or str(name)


def _write(path: str, text: str) -> None:
    with storage.written(path) as file:
        write_text(file, text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dit_jax.eval.score",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, home = parser.add_argument, os.path.expanduser  # a shell leaves ~ in --json=~/… alone
    add("predictions", type=home, nargs="+", help="files of JSON lines, one a model")
    add("--truth", type=home, help="folder of array records; else each line has its own 'truth'")
    add("--split", help="of these records, e.g. val")
    add("--protocols", default=DEFAULT, help=f"of {', '.join(PROTOCOLS)}; default: {DEFAULT}")
    add("--name", action="append", help="of a model; once a file (default: the file's name)")
    add("--json", type=home, help="write all scores there")
    add("--markdown", type=home, help="write a table with intervals there")
    add("--bootstrap", type=int, default=1000, help="resamples for the intervals; 0 = none")
    add("--partial", action="store_true", help="accept files that leave expressions out")
    return parser


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)

"""Figures of trained models and runs, as PNG.

    python -m dit_jax.figures compare --model A --model NAME=B --dataset "folder(DIR)" --out X.png
    python -m dit_jax.figures curves WORKDIR [WORKDIR …] --out X.png
    python -m dit_jax.figures words --model DIR --image PICTURE --text WORDS --out X.png
    python -m dit_jax.figures overlay --model DIR --image PICTURE --text A --text B --out X.png

`compare` is the paper's Figure 4: a row an expression, a column a model, failures in a red frame.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dit_jax import storage
from dit_jax.data.pixels import pictures


def compare(options: argparse.Namespace) -> None:
    from dit_jax.figures import answers, comparison

    models = [answers.Named.parse(text) for text in options.model]
    source = answers.open_source(
        options.dataset,
        options.split,
        source=options.source,
        cache_dir=options.cache_dir,
        size=options.size,
        length=options.length,
    )
    asked = answers.examples(source, count=options.count, indices=options.index or ())
    columns = answers.columns(models, asked)
    comparison.save(asked, columns, options.out, side=_panel(options.panel))


def curves(options: argparse.Namespace) -> None:
    from dit_jax.figures import curves

    runs = {}
    for folder in options.workdir:
        name = storage.parse(folder)
        here = folder if name is None else storage.local(str(name / curves.FILE)).parent
        runs[str(name or folder)] = curves.read(here)
    curves.save(runs, options.out, keys=options.key or ())


def words(options: argparse.Namespace) -> None:
    from dit_jax.figures import words
    from dit_jax.predict import Segmenter
    from dit_jax.predict.explain import explain

    image = pictures.rgb(storage.local(options.image))
    explanation = explain(Segmenter.from_pretrained(options.model), image, options.text)
    how = dict(side=_panel(options.panel), rows=max(1, options.layers))
    words.save(image, explanation, options.out, **how)
    for word in explanation.words:
        changed = "no word left" if word.iou is None else f"{100 * word.iou:5.1f}"
        print(f"IoU without {word.text!r}: {changed}")
    if explanation.remark:
        print(explanation.remark)


def overlay(options: argparse.Namespace) -> None:
    from dit_jax.figures import overlay
    from dit_jax.predict import Segmenter

    image = pictures.rgb(storage.local(options.image))
    answers = Segmenter.from_pretrained(options.model)(image, options.text)
    overlay.save(image, answers, options.out)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status; a user's mistake is one sentence on standard error."""
    options = _parser().parse_args(argv)
    try:
        with storage.written(options.out) as options.out:
            options.run(options)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {storage.shown(' '.join(str(error).split()))}", file=sys.stderr)
        return 1
    print(f"{storage.named(options.out)} is written.")
    return 0


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _panel(side: int) -> int:
    if not 64 <= side <= 1024:
        raise ValueError(f"--panel is {side}; expected 64 to 1024 pixels.")
    return side


def _parser() -> argparse.ArgumentParser:
    how = dict(formatter_class=argparse.RawDescriptionHelpFormatter)
    parser = argparse.ArgumentParser(prog="python -m dit_jax.figures", description=__doc__, **how)
    commands = parser.add_subparsers(required=True, metavar="compare|curves|words|overlay")
    _compare(commands.add_parser("compare", help="models side by side, as the paper's Figure 4"))
    _curves(commands.add_parser("curves", help="learning curves of runs"))
    for name in HELP:
        add = commands.add_parser(name, help=HELP[name]).add_argument
        add("--model", required=True, help="model directory")
        add("--image", type=_path, required=True, help="a picture")
        add("--out", type=_path, required=True, help="the PNG to write")
        more = {"action": "append"} if name == "overlay" else {}
        add("--text", required=True, help="an expression", **more)
        if name == "words":
            add("--panel", type=int, default=128, help="pixels of a cell (default: 128)")
            add("--layers", type=int, default=6, help="rows, at most (default: 6)")
    for name, command in commands.choices.items():
        command.set_defaults(run=RUN[name])
    return parser


HELP = {
    "words": "where each word is attended to, and the mask without it",
    "overlay": "several expressions in colours, with a legend",
}
RUN = {"compare": compare, "curves": curves, "words": words, "overlay": overlay}


def _compare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", action="append", required=True, help="DIR or NAME=DIR; once a column")
    add("--dataset", required=True, help='shapes, "folder(photos)", "refcoco(unc)", …')
    add("--split", default="val", help="default: val")
    add("--source", type=_path, default="data/refer", help="the REFER folder (default: data/refer)")
    add(
        "--cache-dir",
        type=_path,
        default="data/records",
        help="its records (default: data/records)",
    )
    add("--count", type=int, default=6, help="expressions, evenly spread (default: 6)")
    add("--index", type=int, action="append", help="an expression by its number; once each")
    add("--size", type=int, default=128, help="pixels of shapes (default: 128)")
    add("--length", type=int, default=256, help="referents of shapes (default: 256)")
    add("--panel", type=int, default=192, help="pixels of a panel (default: 192)")
    add("--out", type=_path, required=True, help="the PNG to write")


def _curves(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("workdir", nargs="+", type=_path, metavar="WORKDIR", help="a run's folder")
    add("--key", action="append", help="a metric, like train/loss; once each")
    add("--out", type=_path, required=True, help="the PNG to write")


if __name__ == "__main__":
    sys.exit(main())

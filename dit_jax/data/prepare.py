"""Check a data set and build its array records:

    python -m dit_jax.data.prepare --dataset=refcoco --split-by=unc --source=data/refer \\
        --vocab=bert-base-uncased/vocab.txt

Everything that is wrong is listed before anything is written. docs/data.md says which files are
expected where, and what is checked. Training does the same by itself, with `prepare`.
"""

import argparse
import os
import resource
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from absl import logging

from dit_jax import storage
from dit_jax.data.annotations import Location, datasets
from dit_jax.data.check import Report, check
from dit_jax.data.entries import CHOICES, USUAL, Annotations, Reading
from dit_jax.data.tokenizer import Tokenizer

ON_ERROR = ("stop", "skip")
REFCOCO_SPLITS = ("val", "testA", "testB")
CONFIGS = {  # which config trains on a data set, and what splits it scores
    "folder": ("configs/own_data.py", ("val",)),
    "grefcoco": ("configs/grefcoco.py:ldit_vit_b,official", REFCOCO_SPLITS),
}
REFCOCO = ("configs/ldit_vit_b.py:official", REFCOCO_SPLITS)  # of all others
HELP = {
    "crowds": "drop leaves objects out that COCO marks as iscrowd",
    "units": "of polygons and boxes in your own folder",
    "captions": "optional, if only points and boxes are trained on",
    "orientation": "stored, if your own masks are drawn on pixels that EXIF does not turn",
}


def prepare(
    dataset: str,
    split_by: str,
    *,
    source: Location,
    out_dir: Location,
    images: Location | None = None,
    tokenizer: Tokenizer | None = None,
    on_error: str = "stop",
    reading: Reading = USUAL,
    cache: str = "",
) -> Path:
    """The folder of a data set's array records, for `records.Records`; built where it is missing.

    Any of the places may be a bucket; `cache` is where copies of records then lie, "" in the
    user's cache.

    Says what is worth knowing in one line of the log. Raises ValueError for all that stops the
    build, and where the existing records were built from other annotation files.
    """
    where = dict(out_dir=out_dir, cache=cache)
    path = _existing(dataset, split_by, source=source, reading=reading, **where)
    if path is not None:
        return path
    how = dict(skip=on_error == "skip", reading=reading)
    annotations = _annotations(dataset, split_by, source=source, images=images, **how)
    report = check(annotations, tokenizer=tokenizer)
    if report.problems:
        logging.warning("%s: %s", report.dataset, " | ".join(report.remarks()))
    if obstacle := _obstacle(report, on_error):
        raise ValueError(f"{obstacle} `python -m dit_jax.data.prepare` lists everything.")
    return _build(annotations, report, on_error=on_error, **where)


def _annotations(
    dataset: str, split_by: str, *, source: Location, images: Location | None, **how
) -> Annotations:
    here = dict(source=storage.local(source), images=images and storage.local(images))
    return datasets.open_annotations(dataset, split_by, **here, **how)


def _existing(
    dataset: str,
    split_by: str,
    *,
    source: Location,
    out_dir: Location,
    reading: Reading,
    cache: str = "",
) -> Path | None:
    """The finished records; ValueError where the annotations are other ones by now.

    Annotations that are gone, or in a bucket, are not compared: the records stand for themselves.
    """
    from dit_jax.data import records  # TFDS takes seconds to import

    kind = datasets.kind(dataset, split_by)
    label, name = datasets.label(dataset, split_by, source=source), storage.parse(out_dir)
    if name is None:
        path = records.existing(out_dir, label)
    else:
        path = records.bucket.existing(name, label, cache=cache)
    if path is None:
        return None
    records.check_reading(path, datasets.effective(dataset, reading))
    if storage.parse(source):
        return path
    if kind.files is not None:
        _check_files(path, kind.files(split_by, source))
    elif Path(source).is_dir():
        # Records that were built of malformed annotations, too, were built without these.
        how = dict(skip=True, reading=reading)
        annotations = datasets.open_annotations(dataset, split_by, source=source, **how)
        if name is None:
            records.build(annotations, out_dir=out_dir)  # builds nothing, compares everything
        else:
            records.check_same(path, annotations)
    return path


def _check_files(path: Path, files: dict[str, Path]) -> None:
    """Compare annotation files with those that records were built from, by their digests."""
    from dit_jax.data.records import manifest, sha256

    built = manifest(path)["sources"]
    for key, file in files.items():
        if file.is_file() and (key not in built or built[key]["sha256"] != sha256(file)):
            raise ValueError(
                f"{path} was built from another {key} file than {file}; delete it or choose"
                " another folder for records."
            )


def _obstacle(report: Report, on_error: str) -> str:
    """Why these annotations are not built, in one sentence, or nothing."""
    stopping = report.hopeless if on_error == "skip" else report.fatal
    if not stopping:
        return ""
    kinds = dict.fromkeys(problem.kind for problem in stopping)
    said = ", ".join(f"{kind} ({sum(p.kind == kind for p in stopping):,})" for kind in kinds)
    first = stopping[0]
    return (
        f"{report.dataset} cannot be built because of {said}; the first: {first.name}: {first.text}"
    )


def _build(
    annotations: Annotations, report: Report, *, out_dir: Location, on_error: str, cache: str = ""
) -> Path:
    from dit_jax.data import records

    broken = report.broken(annotations)
    how = dict(on_error=on_error, broken=broken, remarks=report.remarks())
    if name := storage.parse(out_dir):
        return records.build_in(name, annotations, cache=cache, **how)
    return records.build(annotations, out_dir=out_dir, **how)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 1 where the data set cannot be built."""
    options = _parser().parse_args(arguments)
    try:
        for place in (options.source, options.out, options.images or "", options.vocab or ""):
            storage.check(place)
        return _run(options)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {storage.shown(_sentence(error))}", file=sys.stderr)
        return 1


def _sentence(error: Exception) -> str:
    """The message; of the system's own errors the file, and what is wrong with it."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}."
    return str(error)


def _run(options: argparse.Namespace) -> int:
    start = time.monotonic()
    named = options.dataset, options.split_by
    reading = Reading(**{key: getattr(options, key) for key in CHOICES})
    how = dict(source=options.source, reading=reading)
    existing = None
    if not options.check_only:
        existing = _existing(*named, out_dir=options.out, **how)
    if existing is not None:
        print("The records exist already; nothing was checked (--check-only checks again).")
        _say_records(existing, options)
        return 0
    skip = options.on_error == "skip"
    annotations = _annotations(*named, images=options.images, skip=skip, **how)
    tokenizer = (
        Tokenizer(storage.local(options.vocab), options.text_tokens) if options.vocab else None
    )
    report = check(annotations, tokenizer=tokenizer)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # KiB on Linux
    print(f"{report}\n\nChecked in {time.monotonic() - start:.1f} s, {memory:,.0f} MB at most.")
    if options.check_only:
        return int(bool(report.fatal))
    if obstacle := _obstacle(report, options.on_error):
        hint = "" if report.hopeless else " --on-error=skip leaves such records out."
        raise ValueError(f"{obstacle}{hint}")
    _say_records(
        _build(annotations, report, out_dir=options.out, on_error=options.on_error), options
    )
    return 0


def _say_records(path: Path, options: argparse.Namespace) -> None:
    """What lies in the records' folder, and the command that trains on it."""
    from dit_jax.data import records

    built = records.manifest(path)
    print(f"\n{storage.named(path)}:")
    for split, row in built["splits"].items():
        print(f"  {split}: " + ", ".join(f"{count:,} {what}" for what, count in row.items()))
    left_out = built["left_out"]
    if left_out:
        print(f"  left out: {len(left_out):,} (listed in {storage.named(path / 'manifest.json')})")
    print(f"\nTrain on it:\n  {_next_command(options, built['splits'])}")


def _next_command(options: argparse.Namespace, splits: Iterable[str]) -> str:
    config, scored = CONFIGS.get(options.dataset, REFCOCO)
    there = sorted({*splits} - {"train"}, key=lambda split: (split != "val", split))
    own = options.dataset == "folder"
    weights = ["model=mini"]
    if not own:
        weights = ["sam=sam_vit_b_01ec64.pth", "bert=bert-base-uncased"]
    settings = {
        "dataset": options.dataset,
        "split_by": options.split_by,
        "source": options.source,
        "images": options.images or "",
        "cache_dir": options.out,
        "eval_splits": "" if {*scored} <= {*there} else ",".join(there),
    }
    chosen = {key: getattr(options, key) for key in CHOICES}
    settings |= {key: value for key, value in chosen.items() if value != getattr(USUAL, key)}
    words = ["python", "launch.py", f"--config={config}", f"--workdir=runs/{options.dataset}"]
    words += [f"--config.data.{key}={value}" for key, value in settings.items() if value]
    words += [f"--config.model.init.{weight}" for weight in weights]
    return " ".join(shlex.quote(word) for word in words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dit_jax.data.prepare",
        description="Check a data set and build its array records, once.",
        epilog="docs/data.md says which files are expected where, and what is checked.",
    )
    add, home = parser.add_argument, os.path.expanduser  # a shell leaves ~ in --out=~/… alone
    add("--dataset", required=True, help=", ".join(datasets.KINDS))
    add("--split-by", default="", metavar="NAME", help="partition: unc, google, umd")
    add("--source", required=True, type=home, metavar="DIR", help="REFER, or your own folder")
    add("--out", default="data/records", type=home, metavar="DIR", help="of records (data/records)")
    add("--images", type=home, metavar="PATH", help="folder or zip of COCO's train2014 pictures")
    add("--vocab", type=home, metavar="FILE", help="vocab.txt, to say which sentences are cut")
    add("--text-tokens", type=int, default=20, metavar="N", help="tokens that are read (20)")
    add("--check-only", action="store_true", help="build nothing; exit status 1 if it cannot be")
    for key, help_ in HELP.items():
        add(f"--{key}", choices=CHOICES[key], default=getattr(USUAL, key), help=help_)
    add("--on-error", choices=ON_ERROR, default="stop", help="skip leaves broken records out")
    return parser


if __name__ == "__main__":
    sys.exit(main())

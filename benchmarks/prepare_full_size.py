"""How long a REFER folder of RefCOCO's real size takes to check and to build, and how much memory.

    python -m benchmarks.prepare_full_size --vocab=bert-base-uncased/vocab.txt

Draws 50,000 referents with 142,210 expressions on 19,994 pictures, as many in each split as
RefCOCO(unc) has, into a temporary folder; every step runs in a process of its own. Pictures are
small by default (--height, --width), because reading and decoding is all that larger ones would
add. What came out is in docs/data.md.
"""

import argparse
import json
import multiprocessing
import pickle
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dit_jax.data import records
from dit_jax.data.annotations import PUBLISHED, datasets
from dit_jax.data.check import check
from dit_jax.data.tokenizer import Tokenizer

PICTURES = 19_994  # of RefCOCO
WORDS = "left right man woman in the red blue shirt giraffe front of back chair white second from"


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _measure("draw", _draw, root, options.height, options.width, options.share)
        _measure("check", _check, root, options.vocab)
        _measure("build and verify", _build, root)
        size = sum(file.stat().st_size for file in (root / "records").rglob("*") if file.is_file())
        print(f"records: {size / 2**20:,.0f} MiB")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vocab", required=True, help="BERT's vocab.txt")
    parser.add_argument("--height", type=int, default=160)
    parser.add_argument("--width", type=int, default=240)
    parser.add_argument("--share", type=float, default=1.0, help="of the full size")
    return parser.parse_args()


def _measure(what: str, step: Callable[..., None], *arguments: Any) -> None:
    """Run one step in a fresh process and print its time and its peak memory."""
    process = multiprocessing.get_context("spawn").Process(
        target=_run, args=(what, step, *arguments)
    )
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{what} failed")


def _run(what: str, step: Callable[..., None], *arguments: Any) -> None:
    start = time.monotonic()
    step(*arguments)
    seconds, busy = time.monotonic() - start, time.process_time()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # KiB on Linux
    print(f"{what}: {seconds:.1f} s ({busy:.1f} s of one core), {memory:,.0f} MB at most")


def _check(root: Path, vocab: str) -> None:
    annotations = datasets.open_annotations("refcoco", "unc", source=root)
    report = check(annotations, tokenizer=Tokenizer(vocab, 20))
    print(report)
    assert not report.fatal


def _build(root: Path) -> None:
    annotations = datasets.open_annotations("refcoco", "unc", source=root)
    records.build(annotations, out_dir=root / "records", progress=False)


def _draw(root: Path, height: int, width: int, share: float) -> None:
    """Splits of disjoint pictures, a referent on each and the others at random, in random order."""
    rng = random.Random(0)
    folder, photos = root / "refcoco", root / "images/train2014"
    folder.mkdir()
    photos.mkdir(parents=True)
    refs: list[dict[str, Any]] = []
    numbers = iter(range(1, PICTURES + 1))
    for split, count in PUBLISHED["refcoco(unc)"].items():
        referents, sentences = round(share * count.referents), round(share * count.expressions)
        mine = [next(numbers) for _ in range(int(referents * PICTURES / 50_001))]
        each = [sentences // referents + (i < sentences % referents) for i in range(referents)]
        for i, said in enumerate(each):
            number = mine[i] if i < len(mine) else rng.choice(mine)
            refs.append(_ref(rng, len(refs), split=split, number=number, said=said))
    images = {ref["image_id"]: ref["file_name"] for ref in refs}
    for number, name in images.items():
        (photos / name).write_bytes(_jpeg(number, height, width))
    objects = [_object(rng, ref, height, width) for ref in refs]
    sizes = [dict(id=i, file_name=n, height=height, width=width) for i, n in images.items()]
    (folder / "instances.json").write_text(json.dumps(dict(images=sizes, annotations=objects)))
    rng.shuffle(refs)
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))


def _ref(rng: random.Random, i: int, *, split: str, number: int, said: int) -> dict[str, Any]:
    texts = [rng.choices(WORDS.split(), k=1 + rng.randrange(6)) for _ in range(said)]
    sentences = [
        dict(tokens=words, raw=" ".join(words), sent_id=10 * i + j, sent=" ".join(words))
        for j, words in enumerate(texts)
    ]
    return dict(
        sent_ids=[sentence["sent_id"] for sentence in sentences],
        file_name=f"COCO_train2014_{number:012d}.jpg",
        ann_id=i + 1,
        ref_id=i,
        image_id=number,
        split=split,
        sentences=sentences,
        category_id=1,
    )


def _object(rng: random.Random, ref: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """A blob of 40 corners, about as many as COCO's polygons have."""
    x, y = rng.uniform(0.3, 0.7) * width, rng.uniform(0.3, 0.7) * height
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radii = np.array([rng.uniform(0.1, 0.25) for _ in angles]) * min(height, width)
    points = np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1).round(2)
    left, top = points.min(axis=0)
    right, bottom = points.max(axis=0)
    return dict(
        id=ref["ann_id"],
        image_id=ref["image_id"],
        segmentation=[points.ravel().tolist()],
        bbox=[left, top, right - left, bottom - top],
        category_id=1,
        iscrowd=0,
        area=1.0,
    )


def _jpeg(number: int, height: int, width: int) -> bytes:
    """A few coloured patches: no two pictures are the same, none takes long to draw."""
    patches = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
    picture = cv2.resize(patches, (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.imencode(".jpg", picture)[1].tobytes()


if __name__ == "__main__":
    main()

"""Drawn referents, and records that are built of them."""

import dataclasses
import zipfile

import cv2
import numpy as np

from dit_jax.data.entries import Annotations, Entry
from dit_jax.data.records.folder import build

HEIGHT, WIDTH = 24, 40
SQUARE = [4, 4, 12, 4, 12, 12, 4, 12]
OVERLAPPING = [8, 8, 20, 8, 20, 16, 8, 16]
CROWD = {"size": [HEIGHT, WIDTH], "counts": [100, 50, HEIGHT * WIDTH - 150]}
FORMS = (([SQUARE, OVERLAPPING],), (CROWD,), (), ([SQUARE], [OVERLAPPING]))


def entry(number, split, **changes):
    """Referent `number`; two in a row share a picture."""
    count = 1 + number % 3
    segmentations = FORMS[number % len(FORMS)]
    values = {
        "name": f"drawn {split} ref_id {number}",
        "split": split,
        "file_name": f"{number // 2}.png",
        "image_id": 500 + number // 2,
        "size": (HEIGHT, WIDTH),
        "segmentations": segmentations,
        "boxes": (),
        "expressions": tuple(f"the çhair {number} {i}" for i in range(count)),
        "ref_id": number,
        "ann_ids": tuple(10 * number + i for i in range(len(segmentations))),
        "sent_ids": tuple(100 * number + i for i in range(count)),
    }
    return Entry(**{**values, **changes})


def drawn(root, counts=(("train", 7), ("val", 4)), **changes):
    """Pictures and a file of annotations in `root`; `changes` are made to referent 1."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    splits, number = {}, 0
    for split, count in counts:
        numbers = range(number, number + count)
        splits[split] = tuple(entry(n, split, **(changes if n == 1 else {})) for n in numbers)
        number += count
    for picture in range(number // 2 + 1):
        pixels = np.random.default_rng(picture).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        cv2.imwrite(str(root / f"images/{picture}.png"), pixels)
    (root / "refs.p").write_text("what the annotations were read from")
    return Annotations(
        dataset="drawn(unc)",
        splits=splits,
        sources={"refs": root / "refs.p"},
        images=root / "images",
    )


def make(annotations, out_dir, **options):
    return build(annotations, out_dir=out_dir, **{"progress": False, "shard_entries": 3, **options})


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def zipped(annotations, root):
    with zipfile.ZipFile(root / "pictures.zip", "w") as archive:
        for path in annotations.images.iterdir():
            archive.write(path, f"train2014/{path.name}")
    return dataclasses.replace(annotations, images=root / "pictures.zip")

"""Small REFER folders, drawn: pictures, `instances.json` and `refs(….).p` of several data sets."""

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

HEIGHT, WIDTH = 48, 64
Referents = Mapping[str, Sequence[int]]  # split → the picture of each of its referents


def write(root: Path, dataset: str, split_by: str, referents: Referents) -> Path:
    """Add one data set; a picture's pixels follow from its number, so data sets share pictures."""
    folder, photos = root / dataset, root / "images" / "train2014"
    folder.mkdir(parents=True, exist_ok=True)
    photos.mkdir(parents=True, exist_ok=True)
    numbered = [(split, number) for split, numbers in referents.items() for number in numbers]
    images, objects, refs = {}, [], []
    for i, (split, number) in enumerate(numbered):
        name = f"COCO_train2014_{number:012d}.jpg"
        images[number] = dict(id=number, file_name=name, height=HEIGHT, width=WIDTH)
        pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        cv2.imwrite(str(photos / name), pixels)
        left = 4 + i % 3 * 8
        square = [left, 6, left + 20, 6, left + 20, 30, left, 30]
        objects.append(
            dict(
                id=100 + i,
                image_id=number,
                segmentation=[square],
                bbox=[left, 6, 20, 24],
                category_id=1,
                iscrowd=0,
                area=480,
            )
        )
        sentences = [
            dict(sent_id=2 * i + j, sent=text, raw=text, tokens=text.split())
            for j, text in enumerate((f"the square number {i}", "left thing"))
        ]
        refs.append(
            dict(
                ref_id=1000 + i,
                ann_id=100 + i,
                image_id=number,
                category_id=1,
                split=split,
                file_name=f"COCO_train2014_{number:012d}_{i}.jpg",
                sent_ids=[sentence["sent_id"] for sentence in sentences],
                sentences=sentences,
            )
        )
    instances = dict(images=list(images.values()), annotations=objects, categories=[])
    (folder / "instances.json").write_text(json.dumps(instances))
    (folder / f"refs({split_by}).p").write_bytes(pickle.dumps(refs, protocol=2))
    return root

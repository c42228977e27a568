"""Draw a folder as docs/own-data.md describes it: 60 pictures, and every way to give a mask.

Drawn shapes at dusk: `mini`, the model in the package, finds them badly until it is fine-tuned.

    python -m examples.own_data OUT

Look at `OUT/train.jsonl` and `OUT/val.jsonl` beside the pictures, then fine-tune on them:

    python launch.py --config=configs/own_data.py --workdir=runs/own --config.data.source=OUT \
        --config.model.init.model=mini
"""

import argparse
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as rle

from dit_jax.data.shapes import COLOURS, SHAPES, Scene, scene

COUNTS = {"train": 48, "val": 12}  # pictures
SIZE, SEED = 256, 1  # another seed than `mini`'s: pictures that it has not seen
FULL = 0.94  # share of its box that an object fills where the box is given as the mask
NOTHING_EVERY = 4  # pictures
DUSK = np.array([0.3, 0.35, 0.55])  # of red, green, blue: what `mini` never saw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder that does not exist yet")
    out = parser.parse_args().out
    if out.exists():
        parser.error(f"{out} exists already; expected a folder that does not exist yet")
    try:
        draw(out)
    except OSError as error:
        parser.error(f"{error.filename}: {error.strerror}")
    print(f"{out}: {COUNTS['train']} pictures for training, {COUNTS['val']} for validation.")


def draw(out: Path, *, counts: dict[str, int] = COUNTS) -> None:
    """Write pictures, mask pictures and one file of JSON lines a split."""
    for name in ("images", "masks"):
        (out / name).mkdir(parents=True)
    for split, count in counts.items():
        lines = [line for number in range(count) for line in picture(out, split, number)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (out / f"{split}.jsonl").write_text(text, encoding="utf-8")


def picture(out: Path, split: str, number: int) -> Iterator[dict[str, Any]]:
    """Write one picture and tell its lines: two objects, and sometimes one that is not there."""
    drawn, name = scene(split, number, size=SIZE, seed=SEED), f"{split}_{number:03d}"
    image = f"images/{name}.png"
    pixels = (drawn.image() * DUSK).astype(np.uint8)
    cv2.imwrite(str(out / image), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    for place, target in enumerate(drawn.targets):
        texts = [expression.text for expression in target.expressions]
        inside = drawn.mask(target.number).astype(np.uint8)
        how = meant(inside, number + place, file=out / f"masks/{name}_{place}.png")
        yield {"id": f"{name}_{place}", "image": image, "text": texts, **how}
    if number % NOTHING_EVERY == 0:
        yield {"id": f"{name}_nothing", "image": image, "text": absent(drawn, number), "mask": None}


def meant(inside: np.ndarray, number: int, *, file: Path) -> dict[str, Any]:
    """The same object as a box, where it fills one, or by turns as PNG, run lengths or polygon."""
    box = cv2.boundingRect(inside)
    if inside.sum() >= FULL * box[2] * box[3]:
        return {"box": list(box)}
    if number % 3 == 0:
        cv2.imwrite(str(file), inside * 255)
        return {"mask": f"masks/{file.name}"}
    if number % 3 == 1:
        lengths = rle.encode(np.asfortranarray(inside))
        return {"mask": {"size": lengths["size"], "counts": lengths["counts"].decode()}}
    contours, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return {"polygon": [contour.ravel().tolist() for contour in contours if len(contour) > 2]}


def absent(drawn: Scene, number: int) -> str:
    """A description that fits nothing in the picture, another one each time."""
    present = {(thing.colour, thing.shape) for thing in drawn.layout.things}
    pairs = [pair for pair in product(COLOURS, SHAPES) if pair not in present]
    return "the {} {}".format(*pairs[number * 5 % len(pairs)])


if __name__ == "__main__":
    main()

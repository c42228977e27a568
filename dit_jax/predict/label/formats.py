"""Annotation files as their tools read them, with the same pixels.

| format | files in the folder | a mask is |
|---|---|---|
| coco | `annotations.json` | run lengths |
| yolo | `data.yaml`, `labels/NAME.txt` | an outline for each piece, in fractions of the picture |
| labelme | `NAME.json` | an outline for each piece; those of one object share a `group_id` |
| voc | `Annotations/NAME.xml`, `SegmentationClass/` and `SegmentationObject/NAME.png`, … | pixels |
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import yaml
from jaxtyping import UInt8
from PIL import Image
from pycocotools import mask as rle

from dit_jax.eval.prediction_files import encoded
from dit_jax.predict.label.outlines import outlines
from dit_jax.predict.label.record import Labeled, Records

COCO_FILE, YOLO_FILE = "annotations.json", "data.yaml"
# An outline runs through the centers of pixels. Some readers of fractions round to whole pixels,
# others cut: this much more than a whole number gives the same to both.
WITHIN = 0.25
LABELME_VERSION = "5.5.0"  # whose form of file this is
MOST = 254  # objects of a picture and classes in VOC, which has 255 for "ignore"


@dataclass(frozen=True)
class Files:
    """Writes into a folder; FileExistsError where a file is there that says something else than an
    earlier call wrote, by its `records`: somebody may have worked on it. Not with `overwrite`."""

    out: Path
    overwrite: bool
    records: Records | None = None

    def save(self, name: str, content: str | bytes) -> None:
        path, data = self.out / name, content.encode() if isinstance(content, str) else content
        if not self.overwrite and path.exists() and not self._ours(name, data):
            raise FileExistsError(
                f"{path} is there and says something else; choose another folder for --out, or"
                " replace such files with --overwrite."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if self.records is not None:
            self.records.wrote(name, _sha256(data))

    def _ours(self, name: str, data: bytes) -> bool:
        """Whether the file says what we want to write, or what we wrote last."""
        there = (self.out / name).read_bytes()
        known = None if self.records is None else self.records.files.get(name)
        return there == data or _sha256(there) == known


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def check(form: str, classes: Sequence[str]) -> None:
    """Raises ValueError where a format cannot tell so many classes apart."""
    if form == "voc" and len(set(classes)) > MOST:
        raise ValueError(
            f"there are {len(set(classes))} classes; VOC's pictures of classes hold at most {MOST}:"
            " choose --format=coco."
        )


def coco(found: Iterable[Labeled], files: Files, classes: Sequence[str]) -> None:
    """Expressions are the captions, so the file is own data as it stands (docs/own-data.md)."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for picture in found:
        size = {"height": picture.height, "width": picture.width}
        images.append({"id": len(images) + 1, "file_name": picture.path.name, **size})
        for thing in picture.things:
            runs = encoded(thing.mask)
            about = {"image_id": len(images), "category_id": classes.index(thing.label) + 1}
            annotations.append(
                {
                    **{"id": len(annotations) + 1, **about, "iscrowd": 0},
                    **({} if thing.text is None else {"caption": thing.text}),
                    **{"segmentation": runs, "area": int(thing.mask.sum())},
                    **{"bbox": rle.toBbox(runs).tolist(), "score": thing.score},
                    **thing.more,
                }
            )
    named = [{"id": i, "name": name} for i, name in enumerate(classes, start=1)]
    document = {"images": images, "categories": named, "annotations": annotations}
    files.save(COCO_FILE, json.dumps(document, ensure_ascii=False))


def yolo(found: Iterable[Labeled], files: Files, classes: Sequence[str]) -> None:
    """`data.yaml` names the pictures' folder; their labels are where Ultralytics looks for them
    where the pictures lie in `images` beside `labels`."""
    folders = set()
    for picture in found:
        folders.add(os.path.abspath(picture.path.parent))
        size = np.array([picture.width, picture.height])
        lines = [
            " ".join([str(classes.index(thing.label)), *(f"{n:.7g}" for n in part.ravel())])
            for thing in picture.things
            for part in ((_drawn(outline) + WITHIN) / size for outline in outlines(thing.mask))
        ]
        files.save(f"labels/{picture.path.stem}.txt", "".join(f"{line}\n" for line in lines))
    top = os.path.abspath(files.out)
    places = [
        os.path.relpath(p, top) if Path(p).is_relative_to(top) else p for p in sorted(folders)
    ]
    about = {"path": top, "train": places, "val": [*places], "names": dict(enumerate(classes))}
    files.save(YOLO_FILE, yaml.safe_dump(about, allow_unicode=True, sort_keys=False))


def labelme(found: Iterable[Labeled], files: Files, classes: Sequence[str]) -> None:
    """A file a picture, which labelme opens where it is the folder of the pictures or of files."""
    for picture in found:
        shapes = [
            {
                "label": thing.label,
                "points": (_drawn(outline) + WITHIN).tolist(),
                "group_id": number,
                "description": thing.text or "",
                "shape_type": "polygon",
                "flags": {},
                "mask": None,
            }
            for number, thing in enumerate(picture.things, start=1)
            for outline in outlines(thing.mask)
        ]
        document = {
            "version": LABELME_VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": Path(os.path.relpath(picture.path, files.out)).as_posix(),
            "imageData": None,
            "imageHeight": picture.height,
            "imageWidth": picture.width,
        }
        text = json.dumps(document, ensure_ascii=False, indent=2)
        files.save(f"{picture.path.stem}.json", text)


def voc(found: Iterable[Labeled], files: Files, classes: Sequence[str]) -> None:
    """Class and object of each pixel as a palette's numbers, 0 outside, and XML with boxes."""
    check("voc", classes)
    names = []
    for picture in found:
        if len(picture.things) > MOST:
            raise ValueError(
                f"{picture.path.name} has {len(picture.things)} objects; VOC's pictures of objects"
                f" hold at most {MOST}: choose --format=coco."
            )
        layers = np.zeros((2, picture.height, picture.width), np.uint8)
        for number, thing in enumerate(picture.things, start=1):
            layers[:, thing.mask] = [[classes.index(thing.label) + 1], [number]]
        name = picture.path.stem
        for folder, layer in zip(("SegmentationClass", "SegmentationObject"), layers, strict=True):
            files.save(f"{folder}/{name}.png", _png(layer))
        files.save(f"Annotations/{name}.xml", _xml(picture))
        names.append(f"{name}\n")
    files.save("ImageSets/Segmentation/trainval.txt", "".join(names))
    files.save("class_names.txt", "".join(f"{name}\n" for name in ("_background_", *classes)))


FORMATS: dict[str, Callable[[Iterable[Labeled], Files, Sequence[str]], None]] = {
    "coco": coco,
    "yolo": yolo,
    "labelme": labelme,
    "voc": voc,
}


def _drawn(outline: np.ndarray) -> np.ndarray:
    """With three points at least, which every reader wants: of one pixel, three times it."""
    return outline[np.arange(max(3, len(outline))) % len(outline)]


def _xml(picture: Labeled) -> str:
    root = ElementTree.Element("annotation")
    size = {"width": picture.width, "height": picture.height, "depth": 3}
    plain = {"folder": picture.path.parent.name, "filename": picture.path.name, "segmented": 1}
    _tree(root, plain | {"size": size})
    for thing in picture.things:
        # VOC counts pixels from 1, and its corners are the outermost ones.
        x, y, width, height = map(int, rle.toBbox(encoded(thing.mask)))
        box = {"xmin": x + 1, "ymin": y + 1, "xmax": x + width, "ymax": y + height}
        about = {"name": thing.label, "pose": "Unspecified", "truncated": 0, "difficult": 0}
        _tree(root, {"object": about | {"bndbox": box}})
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _tree(parent: ElementTree.Element, values: dict[str, Any]) -> None:
    for name, value in values.items():
        child = ElementTree.SubElement(parent, name)
        if isinstance(value, dict):
            _tree(child, value)
        else:
            child.text = str(value)


def _palette() -> list[int]:
    """VOC's colors: bits of the number, three at a time, become high bits of red, green, blue."""
    numbers = np.arange(256)[:, None] >> np.arange(0, 24, 3)
    bits = [((numbers >> channel) & 1) << np.arange(7, -1, -1) for channel in range(3)]
    return np.stack([part.sum(axis=1) for part in bits], axis=1).ravel().tolist()


def _png(numbers: UInt8[np.ndarray, "H W"]) -> bytes:
    image, data = Image.fromarray(numbers), io.BytesIO()
    image.putpalette(_palette())
    image.save(data, format="PNG")
    return data.getvalue()

"""What `--mode=predict` leaves behind, all of it inside one folder.

    masks/00001-dog-the-left-dog.png      0 and 255, at the picture's own size
    overlays/00001-dog-the-left-dog.jpg   the mask on the picture, to look at
    predictions.jsonl                     run lengths, as `dit_jax.eval.score` reads them

Names are made here, of a number and the letters and digits of what the user calls a picture: no
path that a user's file holds leads anywhere.
"""

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from dit_jax import viz
from dit_jax.data.pixels import pictures
from dit_jax.eval.prediction_files import Writer, encoded
from dit_jax.predict.segmentation import Segmentation

PREDICTIONS, MASKS, OVERLAYS = "predictions.jsonl", "masks", "overlays"
SIDE = 1280  # pixels of an overlay's longer side, at most
WORD = 40  # characters of a picture's name, and of the text, in a file's name

Thumbnail = UInt8[np.ndarray, "h w 3"]


class Outputs:
    """Writes answers one by one; a context manager, after which `predictions.jsonl` is there.

    Raises FileExistsError where the folder holds anything, unless `overwrite`.
    """

    def __init__(self, out: Path, *, overwrite: bool):
        if out.exists() and not out.is_dir():
            raise FileExistsError(f"{out} is a file; expected a folder to write masks into.")
        if out.is_dir() and any(out.iterdir()) and not overwrite:
            raise FileExistsError(
                f"{out} is not empty; choose another folder, or write into it with --overwrite."
            )
        for name in (MASKS, OVERLAYS):
            (out / name).mkdir(parents=True, exist_ok=True)
        self._out, self.count = out, 0
        self._lines = Writer(out / PREDICTIONS, about={})

    def __enter__(self) -> "Outputs":
        return self

    def __exit__(self, kind: type | None, *error) -> None:
        self._lines.__exit__(kind, *error)

    def write(self, answer: Segmentation, picture: Thumbnail, *, about: dict[str, Any]) -> None:
        """`about` is what the line says first: `image`, and what else identifies it."""
        self.count += 1
        name = file_name(self.count, about["image"], answer.text)
        mask = f"{MASKS}/{name}.png"
        save(self._out / mask, answer.mask.view(np.uint8) * np.uint8(255))
        save(self._out / OVERLAYS / f"{name}.jpg", overlay(picture, answer.mask))
        spoken = {"text": answer.text, "cut": answer.cut, "unknown": answer.unknown}
        self._lines.write(
            {
                **about,
                **({} if answer.text is None else spoken),
                "size": [answer.height, answer.width],
                "nothing": answer.nothing,
                "presence": answer.presence,
                "score": answer.score,
                "mask": encoded(answer.mask),
                "mask_file": mask,
            }
        )


def file_name(number: int, image: str, text: str | None) -> str:
    """`00001-dog-the-left-dog`: plain letters, whatever the picture and the text are called."""
    words = (re.split(r"[/\\]", image)[-1].rsplit(".", 1)[0], text or "")
    plain = [re.sub(r"[^a-z0-9]+", "-", word.lower())[:WORD].strip("-") for word in words]
    return "-".join([f"{number:05d}", *filter(None, plain)])


def thumbnail(picture: pictures.Rgb) -> Thumbnail:
    """The picture, smaller where it is large: what an overlay needs of it."""
    ratio = SIDE / max(picture.shape[:2])
    if ratio >= 1:
        return picture
    height, width = (max(1, round(side * ratio)) for side in picture.shape[:2])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def overlay(picture: Thumbnail, mask: Bool[np.ndarray, "H W"]) -> Thumbnail:
    size = picture.shape[1::-1]
    small = cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT)
    return viz.overlay(picture, small.astype(bool), viz.PREDICTED)


def save(path: Path, pixels: UInt8[np.ndarray, "h w *c"]) -> None:
    """Grey or RGB, in the format of the path's ending; OSError where it cannot be written."""
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(path.suffix, pixels)
    path.write_bytes(data)

"""What `--mode=predict` is asked: pictures by name, folder or pattern, or a file of JSON lines.

One line a picture, with one text or several, and what is pointed at in pixels of the picture:

    {"image": "1.jpg", "text": "the red cup"}
    {"image": "1.jpg", "text": ["the cup", "the plate"], "prompt": {"points": [[30, 40, 1]]}}
    {"image": "2.jpg", "prompt": {"box": [10, 20, 200, 180]}}
    {"image": "2.jpg", "prompt": {"box_xywh": [10, 20, 190, 160]}}
    {"image": "2.jpg", "prompt": {"mask": "2-drawn.png", "multimask": true}}

A list of boxes asks for a mask of each. `mask` is what an answer starts from: the path of a mask
picture, or run lengths. `multimask` asks for three masks of a prompt without text.
`box` names corners, like `box_xyxy`; with `"units": "fraction"`, all numbers of a prompt are
fractions of the picture.
Pictures are found from the file's folder. `id`, `image_id`, `sent_id`, `index`, `dataset`, `split`
and `truth` (run lengths) go into the answers as they are, so that `dit_jax.eval.score` knows which
expression an answer is about.
"""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from absl import logging

from dit_jax import storage
from dit_jax.data.annotations import Mistake, Mistakes, fields, geometry, strict_json
from dit_jax.data.entries import CHOICES, ENDINGS
from dit_jax.data.pixels import header, near, pictures
from dit_jax.predict import requests

SHOWN = 5  # names that a message spells out
ONE_EXPRESSION = ("sent_id", "index")  # keys that number a single expression
ABOUT = ("id", "image_id", *ONE_EXPRESSION, "dataset", "split", "truth")
BOXES = ("box", *geometry.BOXES)
PROMPT = ("points", *BOXES, "units", "mask", "multimask")
KEYS = ("image", "text", "prompt", *ABOUT)


@dataclass(frozen=True)
class Task:
    """One picture, what is asked about it, and what its answers are to say."""

    image: Path
    given: str  # the picture's name as it was given
    texts: tuple[str | None, ...]
    points: Any = None
    boxes: tuple[Any, ...] = (None,)  # corners; a mask is wanted of each
    units: str = "pixel"
    mask: Any = None  # run lengths, or a mask picture
    multimask: bool = False
    about: dict[str, Any] = field(default_factory=dict)


def named(images: Sequence[str], texts: Sequence[str], **prompt: Any) -> list[Task]:
    """Every text, and the same prompt, for every picture.

    Raises FileNotFoundError for a name that leads to no picture.

    Args:
      prompt: fields of a `Task`.
    """
    asked = tuple(texts) or (None,)
    found = [path for name in images for path in _found(name)]
    return [Task(Path(path), storage.named(path), asked, **prompt) for path in found]


def numbers(text: str, flag: str, *, counts: tuple[int, ...]) -> tuple[float, ...]:
    """What a flag says: "30,40,1"; raises ValueError."""
    try:
        found = tuple(map(float, text.split(",")))
    except ValueError:
        found = ()
    if len(found) not in counts:
        expected = " or ".join(map(str, counts))
        raise ValueError(f"{flag} is {text!r}; expected {expected} numbers with commas.")
    return found


def read(file: Path) -> list[Task]:
    """The tasks of a file of JSON lines; raises ValueError with its first mistakes."""
    if not file.is_file():
        raise FileNotFoundError(f"no such file of pairs: {pictures.shown(file)}.")
    mistakes, tasks = Mistakes(file), []
    for number, line in enumerate(strict_json.content(file).splitlines(), start=1):
        if line.strip():
            with mistakes.at(f"line {number}"):
                tasks.append(_task(fields.an_object(strict_json.parse(line)), folder=file.parent))
    mistakes.stop()
    if not tasks:
        raise ValueError(
            f'{pictures.shown(file)} is empty; expected lines {{"image": …, "text": …}}.'
        )
    return tasks


def _found(name: str) -> list[str]:
    if os.path.isdir(name):
        paths = _pictures(name)
    elif os.path.lexists(name):
        paths = [name]
    else:
        paths = sorted(path for path in glob.glob(name, recursive=True) if os.path.isfile(path))
    if not paths:
        folder = os.path.isdir(name)
        kind = "the folder holds no picture" if folder else "no such picture"
        raise FileNotFoundError(f"{kind}: {pictures.shown(name)}{'' if folder else near(name)}.")
    for path in paths:
        if path.encode(errors="replace") != os.fsencode(path):
            raise ValueError(
                f"the name of {pictures.shown(path)} is not UTF-8, which answers are written in;"
                " rename the file."
            )
    return paths


def _pictures(folder: str) -> list[str]:
    """By their endings or what they hold; what else is there is counted and named."""
    found, others = [], []
    for path in sorted(os.path.join(folder, name) for name in os.listdir(folder)):
        if Path(path).suffix.lower() in ENDINGS:
            found.append(path)
        elif os.path.isfile(path) and not Path(path).name.startswith("."):
            with open(path, "rb") as file:
                (found if header(file) else others).append(path)
    if others:
        names = ", ".join(pictures.shown(Path(path).name) for path in others[:SHOWN])
        rest = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        said = "%s: %d files are left out, being no pictures that are read: %s%s."
        logging.warning(said, pictures.shown(folder), len(others), names, rest)
    return found


def _task(values: dict[str, Any], *, folder: Path) -> Task:
    fields.check_keys(values, known=KEYS)
    if "image" not in values:
        raise Mistake("'image' is missing; expected the path of a picture.")
    given = fields.string(values["image"], "image")
    if not given.strip() or "\0" in given:
        raise Mistake(f"'image' is {strict_json.shown(given)}; expected the path of a picture.")
    texts = fields.texts(values["text"], "text") if "text" in values else (None,)
    if not texts:
        raise Mistake("'text' is an empty list; expected one expression or more.")
    prompt = fields.an_object(values.get("prompt", {}))
    fields.check_keys(prompt, known=PROMPT)
    about = {key: _about(key, values[key]) for key in ABOUT if key in values}
    numbered = [key for key in ONE_EXPRESSION if key in about]
    if numbered and len(texts) > 1:
        raise Mistake(f"{numbered[0]!r} numbers one expression, but 'text' has {len(texts)}.")
    bucket = storage.parse(given) or storage.origin(folder / given)
    image = storage.local(str(bucket)) if bucket else folder / given
    return Task(image, given, texts, **_pointed(prompt, folder=folder), about=about)


def _pointed(prompt: dict[str, Any], *, folder: Path) -> dict[str, Any]:
    """What is pointed at; whether it lies in the picture is for whoever opens that."""
    units = prompt.get("units", "pixel")
    if units not in CHOICES["units"]:
        found = strict_json.shown(units)
        raise Mistake(f"'units' is {found}; expected {' or '.join(CHOICES['units'])}.")
    key = fields.sole(prompt, BOXES) if any(key in prompt for key in BOXES) else None
    boxes = requests.boxes(prompt.get(key))
    if key in geometry.BOXES:
        sides = [geometry.box(box, key, units=units) for box in boxes]
        boxes = [(x, y, x + width, y + height) for x, y, width, height in sides]
    mask = prompt.get("mask")
    if mask is not None:
        mask = fields.mask(mask, "mask", folder=folder)
    multimask = prompt.get("multimask", False)
    if not isinstance(multimask, bool):
        raise Mistake(f"'multimask' is {strict_json.shown(multimask)}; expected true or false.")
    shown = dict(points=prompt.get("points"), boxes=tuple(boxes), units=units)
    return shown | dict(mask=mask, multimask=multimask)


def _about(key: str, value: Any) -> Any:
    """Values as `dit_jax.eval.score` will accept them."""
    if key == "truth":
        return fields.run_lengths(fields.an_object(value), key)
    if key in ("id", "dataset", "split"):
        return fields.string(value, key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Mistake(f"{key!r} is {strict_json.shown(value)}; expected a whole number.")
    return value

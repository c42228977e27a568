"""Label Studio's protocol for models that label along: what a server under its "Model" page says.

GET  /health, /    that it is there
POST /setup        {"schema": the project's XML, …} → whether such a project can be answered
POST /predict      {"tasks": …, "label_config": …, "params": {"context": …}} → {"results": …}
POST /webhook      what happened to a project; nothing is learned from it

A project has an Image and BrushLabels or PolygonLabels. What somebody points at (KeyPointLabels,
RectangleLabels) or writes (TextArea) in an open task comes as `context` and is answered; without
it, every label is asked by its words: its `hint`, or its name.
"""

import base64
import binascii
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np

from dit_jax.data.pixels import pictures
from dit_jax.predict.label import brush
from dit_jax.predict.label.outlines import outlines
from dit_jax.predict.requests import Question
from dit_jax.predict.segmentation import Segmentation
from dit_jax.version import VERSION

KINDS = ("BrushLabels", "PolygonLabels")  # what is answered with, the first of a project's
LARGEST_SCHEMA = 1_000_000  # characters
SECONDS = 30.0  # that a picture may take to come
Ask = Callable[[Sequence[Question]], Iterable[Segmentation]]
Fetch = Callable[[str], bytes | pictures.Rgb]


@dataclass(frozen=True)
class Project:
    """What a labeling interface says, as far as answers depend on it."""

    image: str  # the tag that shows the picture
    key: str  # of a task's data, where the picture is
    control: str  # the tag that answers belong to
    kind: str  # "brushlabels" or "polygonlabels"
    labels: dict[str, str]  # and the words that ask for each

    @staticmethod
    def of(schema: Any) -> "Project":
        """From the project's XML; ValueError, in a sentence, where it cannot be answered."""
        if not isinstance(schema, str) or len(schema) > LARGEST_SCHEMA:
            raise ValueError("the project's labeling interface is no text; expected its XML.")
        try:
            root = ElementTree.fromstring(schema)
        except ElementTree.ParseError as error:
            raise ValueError(f"the project's labeling interface is no XML ({error}).") from error
        images = {tag.get("name"): tag.get("value", "") for tag in root.iter("Image")}
        for kind in KINDS:
            for tag in root.iter(kind):
                value = images.get(tag.get("toName"), "")
                labels = {
                    one.get("value"): (one.get("hint") or one.get("value")).strip()
                    for one in tag.iter("Label")
                    if one.get("value")
                }
                if value.startswith("$") and labels:
                    about = tag.get("toName"), value[1:], tag.get("name"), kind.lower()
                    return Project(*about, labels)
        raise ValueError(
            f"the project's labeling interface has no {' or '.join(KINDS)} with labels for an Image"
            ' whose value is like "$image".'
        )


def health() -> dict[str, str]:
    return {"status": "UP", "model_class": "dit_jax"}


def setup(body: dict[str, Any]) -> dict[str, str]:
    """ValueError where the project cannot be answered."""
    Project.of(body.get("schema"))
    return {"model_version": version()}


def webhook(body: dict[str, Any]) -> dict[str, str]:
    return {"status": "ok", "result": f"nothing is learned from {body.get('action', 'this')}"}


def version() -> str:
    return f"dit_jax {VERSION}"


def predict(body: dict[str, Any], *, ask: Ask, fetch: Fetch) -> dict[str, Any]:
    """Answers to tasks; ValueError or OSError, in a sentence, for what cannot be answered.

    Args:
      ask: answers questions about pictures, one mask each.
      fetch: the bytes, or the pixels, of a picture that a task names.
    """
    project = Project.of(body.get("label_config"))
    tasks, params = body.get("tasks"), body.get("params") or {}
    if not isinstance(tasks, list) or not isinstance(params, dict):
        raise ValueError("'tasks' is no list, or 'params' no object; expected Label Studio's form.")
    context = params.get("context") or {}
    if not isinstance(context, dict) or not all(isinstance(task, dict) for task in tasks):
        raise ValueError("a task, or 'context', is no object; expected Label Studio's form.")
    context = context.get("result") or []
    return {"results": [_answered(project, task, context, ask=ask, fetch=fetch) for task in tasks]}


def _answered(
    project: Project, task: dict[str, Any], context: list, *, ask: Ask, fetch: Fetch
) -> dict[str, Any]:
    source = (task.get("data") or {}).get(project.key)
    if not isinstance(source, str):
        raise ValueError(f"a task has no picture under {project.key!r}.")
    pixels = pictures.rgb(fetch(source), name="the task's picture")
    asked = _asked(project, context, pixels) if context else _by_words(project, pixels)
    answers = ask([question for _, question in asked])
    found = [
        (label, one)
        for (label, _), one in zip(asked, answers, strict=True)
        if not one.nothing and one.mask.any()
    ]
    results = [result for label, one in found for result in _results(project, label, one)]
    score = float(np.mean([one.score for _, one in found])) if found else 0.0
    return {"result": results, "score": score, "model_version": version()}


def _by_words(project: Project, pixels: pictures.Rgb) -> list[tuple[str, Question]]:
    return [
        (label, Question(pixels, "the task's picture", words))
        for label, words in project.labels.items()
    ]


def _asked(project: Project, context: list, pixels: pictures.Rgb) -> list[tuple[str, Question]]:
    """One question of all that is pointed at and written."""
    scale = np.array([pixels.shape[1], pixels.shape[0]]) / 100  # places are percents
    points, box, text, label = [], None, None, None
    for one in (given for given in context if isinstance(given, dict)):
        kind, value = one.get("type", ""), one.get("value") or {}
        if kind == "textarea":
            text = " ".join(map(str, value.get("text") or [])).strip() or text
            continue
        place = np.array([value.get("x", 0.0), value.get("y", 0.0)], float) * scale
        # 100 % is the picture's far border, and the last pixel what is meant.
        place = np.minimum(place, scale * 100 - 1)
        if kind == "keypointlabels":
            points.append((*place.tolist(), int(bool(one.get("is_positive", True)))))
        elif kind == "rectanglelabels":
            size = np.array([value.get("width", 0.0), value.get("height", 0.0)], float) * scale
            box = (*place.tolist(), *(place + size).tolist())
        else:
            continue
        label = next(iter(value.get(kind) or []), label)
    if label not in project.labels:  # of words, the one that they name
        named = (name for name in project.labels if text and name.lower() in text.lower())
        label = next(named, next(iter(project.labels)))
    about = (pixels, "the task's picture", text, points or None, box)
    return [(label, Question(*about))]


def _results(project: Project, label: str, found: Segmentation) -> list[dict[str, Any]]:
    """A brush's run lengths, or a polygon for each piece."""
    if project.kind == "brushlabels":
        shapes = [{"format": "rle", "rle": brush.encode(found.mask)}]
    else:
        size = np.array([found.width, found.height]) / 100
        shapes = [
            {"points": ((outline + 0.5) / size).tolist(), "closed": True}
            for outline in outlines(found.mask)
            if len(outline) > 2
        ]
    about = {
        "from_name": project.control,
        "to_name": project.image,
        "type": project.kind,
        "original_width": found.width,
        "original_height": found.height,
        "image_rotation": 0,
        "score": found.score,
    }
    return [
        {"id": uuid.uuid4().hex[:10], **about, "value": shape | {project.kind: [label]}}
        for shape in shapes
    ]


@dataclass(frozen=True)
class Pictures:
    """Fetches the pictures of tasks, from one Label Studio and from nowhere else.

    `url` is where that is, `token` an access token of its "Account & Settings".
    """

    url: str
    token: str

    def __call__(self, source: str) -> bytes:
        if source.startswith("data:"):
            return _embedded(source)
        place = urllib.parse.urljoin(self.url, source)
        if not self.url or urllib.parse.urlsplit(place)[:2] != urllib.parse.urlsplit(self.url)[:2]:
            where = self.url or "(no address)"
            raise ValueError(
                f"the picture {source[:80]!r} is not in Label Studio at {where}; expected one that"
                " was imported there."
            )
        asked = urllib.request.Request(place)
        if self.token:  # which is for Label Studio, not for where it may send us to
            asked.add_unredirected_header("Authorization", f"Token {self.token}")
        with urllib.request.urlopen(asked, timeout=SECONDS) as answer:
            return answer.read(pictures.LARGEST_FILE + 1)


def _embedded(source: str) -> bytes:
    try:
        return base64.b64decode(source.partition(",")[2], validate=True)
    except binascii.Error as error:
        raise ValueError("the task's picture is no base64 behind its comma.") from error

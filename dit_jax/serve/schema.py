"""What is asked and answered, as OpenAPI describes it: GET /openapi.json, /docs.

Coordinates are pixels of the upright picture, (0, 0) the middle of the top left one.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dit_jax.serve.warm import MOST_POINTS

LONGEST_TEXT = 300  # characters
MOST_PROMPTS = 16
FEW = 1000  # word pieces: BERT has 30,522, a model of drawn scenes 153
LARGEST_BODY, LARGEST_PICTURE = 28 * 2**20, 20 * 2**20  # bytes; the first as base64, and more

Text = Annotated[str, Field(max_length=LONGEST_TEXT, examples=["the red star"])]
Point = Annotated[list[float], Field(min_length=2, max_length=3, examples=[[20, 30, 1]])]
Points = Annotated[
    list[Point],
    Field(max_length=MOST_POINTS, description="[x, y, label]: 1 belongs (also left out), 0 not"),
]
Box = Annotated[
    list[float], Field(min_length=4, max_length=4, description="[x0, y0, x1, y1], corners")
]
Output = Annotated[
    Literal["rle", "polygon", "png", "box"],
    Field(
        description="of the masks: COCO's run lengths; rings [x, y, x, y, …]; base64 of a PNG of 0"
        " and 255; or the box alone"
    ),
]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class RunLengths(Strict):
    """COCO's compressed run lengths of a mask of the picture's own size."""

    size: Annotated[list[int], Field(min_length=2, max_length=2, description="[height, width]")]
    counts: str


class GivenRunLengths(RunLengths):
    """The same in a question, which has a bound; the answer that a speckled mask is has none."""

    counts: Annotated[str, Field(max_length=2**20)]


class Prompt(Strict):
    """What one mask is asked for: a text, or what is pointed at or drawn, or both; what a model
    takes says GET /v1/model."""

    text: Text | None = None
    points: Points = []
    box: Box | None = None
    mask: GivenRunLengths | None = Field(
        None, description="where to start from: an earlier answer's"
    )


class Sent(Strict):
    """A picture in the question itself, where it is not sent as a file beside it."""

    image: str | None = Field(None, description="base64 of a picture's bytes: JPEG, PNG, WebP, …")


class About(Sent):
    """A picture, also one that is open at the server."""

    picture: str | None = Field(None, description="`id` of POST /v1/pictures, instead of `image`")


class Question(About):
    prompts: Annotated[list[Prompt], Field(min_length=1, max_length=MOST_PROMPTS)]
    output: Output = "rle"
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="on the probability of a pixel, instead of the model's own"
    )


class EverythingQuestion(Sent):
    """All masks of a picture; settings are those of Meta's automatic mask generator."""

    output: Output = "rle"
    points_per_side: Annotated[int, Field(ge=1, le=32)] = 32
    pred_iou_thresh: Annotated[float, Field(ge=0, le=1)] = 0.88
    stability_score_thresh: Annotated[float, Field(ge=0, le=1)] = 0.95
    box_nms_thresh: Annotated[float, Field(ge=0, le=1)] = 0.7
    min_mask_region_area: Annotated[int, Field(ge=0, le=10**6)] = 0


class WordsQuestion(About):
    text: Text
    points: Points = []
    box: Box | None = None


class ReadQuestion(Strict):
    text: Text


class ModelQuestion(Strict):
    model: str = Field(description="a model directory of the server's machine, or a model's name")


class Error(BaseModel):
    error: str = Field(description="one sentence")


class Answer(BaseModel):
    """One mask; `score` and `presence` are from 0 to 1, or about that."""

    text: str | None
    score: float
    score_kind: Literal["predicted_iou", "confidence"]
    presence: float | None = Field(description="that anything is meant; null: the model can't say")
    nothing: bool | None = Field(description="whether that is too little")
    cut: str = Field(description="the end of the text that the model did not read")
    unknown: list[str] = Field(description="words that it does not know")
    share: float = Field(description="of the picture's pixels")
    box: list[int] | None = Field(description="[x0, y0, x1, y1] around the mask, if it has a pixel")
    mask: RunLengths | list[list[float]] | str | None = Field(description="as `output` asked")


class Answers(BaseModel):
    size: list[int] = Field(description="[height, width] of the picture and its masks")
    answers: list[Answer] = Field(description="one a prompt, in their order")


class Found(BaseModel):
    score: float = Field(description="predicted IoU")
    stability: float
    point: list[float]
    share: float
    box: list[int] | None
    mask: RunLengths | list[list[float]] | str | None


class AllFound(BaseModel):
    size: list[int]
    masks: list[Found] = Field(description="the best-rated first")


class Opened(BaseModel):
    id: str
    width: int
    height: int
    view: list[int] = Field(description="[width, height] as GET /v1/pictures/ID.jpg shows it")
    texts: list[str] = Field(description="expressions to try, of a drawn picture")
    drawn: bool


class Word(BaseModel):
    text: str
    iou: float | None = Field(description="of the mask without this word with the mask")
    read: bool


class Words(BaseModel):
    """Where the mask's pixels look: `maps` is base64 of bytes [layers, words, h, w], of which 255
    is the layer's `tops`."""

    words: list[Word]
    layers: list[str]
    shares: list[list[float]]
    tops: list[float]
    grid: list[int]
    content: list[int]
    canvas: int
    maps: str
    remark: str | None


class Read(BaseModel):
    """How the model reads a text, without a picture."""

    cut: str = Field(description="the end of the text that it does not read")
    unknown: list[str] = Field(description="words that it does not know")
    letters: list[str] = Field(description="words that it knows as letters alone")


class Model(BaseModel):
    name: str
    size: int = Field(description="pixels of its canvas' side")
    reads: bool = Field(description="takes texts")
    needs_text: bool
    vocabulary: int = Field(description="word pieces; 0 where it takes no text")
    words: list[str] = Field(description=f"that it has whole, of a vocabulary below {FEW}")
    presence: bool = Field(description="can say that nothing is meant")
    threshold: float
    batch: int = Field(description="masks that are computed together at most")
    ready: bool = Field(description="everything is compiled")
    trained: str = Field(description="on what, in a sentence; empty where nobody noted it")
    colours: list[list[int]]
    largest: int = Field(description="bytes of a picture")
    longest: int = Field(description="characters of a text")
    points: int = Field(description="that a prompt may have")


# What pydantic finds wrong, of which its context names the rest.
MISTAKES = {
    "missing": "{where} is missing.",
    "extra_forbidden": "{where} is no key that is known here.",
    "json_invalid": "the question is no JSON: {error}.",
    "too_long": "{where} has {actual_length} values; expected at most {max_length}.",
    "too_short": "{where} has {actual_length} values; expected at least {min_length}.",
    "string_too_long": "{where} has {length} characters; expected at most {max_length}.",
    "greater_than": "{where} is {shown}; expected more than {gt:,}.",
    "greater_than_equal": "{where} is {shown}; expected at least {ge:,}.",
    "less_than": "{where} is {shown}; expected less than {lt:,}.",
    "less_than_equal": "{where} is {shown}; expected at most {le:,}.",
    "literal_error": "{where} is {shown}; expected {expected}.",
}
KINDS = {  # the rest of its names are of these
    "string": "a text",
    "list": "a list",
    "model": "an object",
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
}


def sentence(error: ValidationError) -> str:
    """The first mistake in a question, as one of ours."""
    first = error.errors()[0]
    where, given, kind = first["loc"], first["input"], first["type"]
    told = dict(where=".".join(map(str, where)) or "the question", shown=_shown(given))
    told |= dict(length=len(given)) if isinstance(given, str) else {}
    expected = KINDS.get(kind.partition("_")[0], "another value")
    form = MISTAKES.get(kind, f"{{where}} is {{shown}}; expected {expected}.")
    return form.format_map(told | first.get("ctx", {}))


def _shown(value: Any) -> str:
    known = {list: "a list", dict: "an object", bytes: "no JSON"}.get(type(value))
    if known is not None:
        return known
    text = json.dumps(value[:40] if isinstance(value, str) else value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:39] + "…"


def body(kind: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says of a question's two forms."""
    question = {"$ref": f"#/components/schemas/{kind.__name__}"}
    content = {"application/json": {"schema": question}}
    if issubclass(kind, Sent):
        file = {"type": "string", "format": "binary"}
        form = {"type": "object", "properties": {"image": file, "question": question}}
        form |= {"required": ["image", "question"], "additionalProperties": False}
        encoding = {"question": {"contentType": "application/json"}}
        content["multipart/form-data"] = {"schema": form, "encoding": encoding}
    return {"requestBody": {"required": True, "content": content}}

"""The server's routes. Each answers JSON, or a picture; a mistake is `{"error": one sentence}`.

GET  /                       the page
GET  /docs, /openapi.json    what can be asked, for people and for programs
POST /v1/segment             a picture and prompts → a mask each
POST /v1/everything          a picture → all its masks
POST /v1/words               a picture and a text → word maps
POST /v1/read                a text → what of it the model does not know
POST /v1/pictures            a picture's bytes → its id, to ask more about it
POST /v1/examples            a drawn picture, with expressions that fit it
GET  /v1/pictures/ID.jpg     as it is shown
GET  /v1/pictures/ID.png     a drawn one, at its own size
GET  /v1/model               what the model is and takes
POST /v1/model               another model, where that is allowed
GET  /healthz, /readyz       whether it lives; whether everything is compiled
GET  /metrics                Prometheus' text

Label Studio's own are in `label_studio`.
"""

import importlib.resources
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

from dit_jax.data.annotations import Mistake
from dit_jax.serve import label_studio, schema
from dit_jax.serve.desk import Desk, Served
from dit_jax.serve.door import Door, Metrics, Refused
from dit_jax.serve.guard import Guard
from dit_jax.serve.sessions import Gone
from dit_jax.version import VERSION

PAGE = Path(__file__).with_name("page")
ASKED = (schema.Question, schema.EverythingQuestion, schema.WordsQuestion, schema.ReadQuestion)
ASKED += (schema.ModelQuestion,)
REFUSALS = {
    400: "what is asked cannot be answered",
    401: "no token",
    403: "not from here, or not allowed",
    404: "no longer open",
    408: "the request did not arrive in time",
    413: "too many bytes",
    415: "another content type",
    422: "a question of another form",
    429: "too many questions are inside; Retry-After says when to come again",
    504: "not answered in time",
}
ERRORS = {status: {"model": schema.Error, "description": why} for status, why in REFUSALS.items()}
Kind = TypeVar("Kind", bound=schema.Strict)


def make_app(
    served: Served,
    *,
    host: str = "127.0.0.1",
    token: str | None = None,
    deadline: float = 60.0,
    most: int = 64,
    allow_swap: bool = False,
) -> FastAPI:
    """An ASGI application.

    Args:
      host: that the server listens on; without a token, requests under another name are refused.
      token: that every request has to bring; None where nobody is asked.
      deadline: seconds from a request's headers to its answer.
      most: questions that are inside at once.
      allow_swap: whether POST /v1/model may load another model.
    """
    app = FastAPI(title="dit_jax", version=VERSION, docs_url=None, redoc_url=None)
    metrics = Metrics()
    guard = Guard(host, any_name=token is not None)
    app.add_middleware(Door, guard=guard, token=token, deadline=deadline, metrics=metrics)
    desk = app.state.desk = Desk(served, most=most, metrics=metrics)
    _answer_mistakes(app)
    _add_questions(app, desk)
    _add_pictures(app, desk)
    _add_model(app, desk, allow_swap=allow_swap)
    _add_pages(app, metrics)
    label_studio.add(app, desk)
    app.openapi = lambda: _described(app)
    return app


def _add_questions(app: FastAPI, desk: Desk) -> None:
    def add(path: str, kind: type[schema.Strict], answer: type, work: Any) -> None:
        async def route(request: Request) -> Response:
            async with desk.admitted():
                asked, data = await _read(request, kind)
                said = await desk.answered(request, work(asked, data))
                return Response(said, media_type="application/json")

        about = dict(response_model=answer, responses=ERRORS, openapi_extra=schema.body(kind))
        app.post(path, **about, name=path.removeprefix("/v1/"))(route)

    add("/v1/segment", schema.Question, schema.Answers, desk.segment)
    add("/v1/everything", schema.EverythingQuestion, schema.AllFound, desk.everything)
    add("/v1/words", schema.WordsQuestion, schema.Words, desk.words)
    add("/v1/read", schema.ReadQuestion, schema.Read, desk.read)


def _add_pictures(app: FastAPI, desk: Desk) -> None:
    bytes_ = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    sent = {"requestBody": {"required": True, "content": bytes_}}

    @app.post("/v1/pictures", responses=ERRORS, openapi_extra=sent)
    async def upload(request: Request) -> schema.Opened:
        async with desk.admitted():
            data = await request.body()
            return await desk.answered(request, desk.open(data))

    @app.post("/v1/examples", responses=ERRORS)
    async def example(request: Request) -> schema.Opened:
        async with desk.admitted():
            await request.body()
            return await desk.answered(request, desk.example())

    how = dict(response_class=Response, responses=ERRORS | {200: {"content": {"image/*": {}}}})

    @app.get("/v1/pictures/{key}.jpg", **how)
    async def shown(key: str) -> Response:
        return Response(desk.pictures[key].jpeg, media_type="image/jpeg")

    @app.get("/v1/pictures/{key}.png", **how)
    async def drawing(key: str) -> Response:
        data = desk.pictures[key].drawn
        if data is None:
            raise Gone("this picture was not drawn here; its file is where it was chosen.")
        named = {"Content-Disposition": 'attachment; filename="drawing.png"'}
        return Response(data, media_type="image/png", headers=named)


def _add_model(app: FastAPI, desk: Desk, *, allow_swap: bool) -> None:
    @app.get("/v1/model", responses=ERRORS)
    async def model() -> schema.Model:
        return desk.model()

    @app.post("/v1/model", responses=ERRORS, openapi_extra=schema.body(schema.ModelQuestion))
    async def swap(request: Request) -> schema.Model:
        if not allow_swap:
            raise Refused(403, "the model stays; the server was started without --allow_swap.")
        asked, _ = await _read(request, schema.ModelQuestion)
        try:
            return await desk.swap(asked)
        except (OSError, ModuleNotFoundError) as error:
            raise ValueError(str(error)) from error

    @app.get("/healthz")
    async def lives() -> dict[str, bool]:
        return {"lives": True}

    @app.get("/readyz", responses={503: {"model": schema.Error, "description": "compiling"}})
    async def ready() -> dict[str, bool]:
        if not desk.served.ready.is_set():
            raise Refused(503, "the model is still being compiled; it answers, but slowly.")
        return {"ready": True}


def _add_pages(app: FastAPI, metrics: Metrics) -> None:
    @app.get("/metrics", response_class=Response)
    async def told() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    for path, file in {"/": "index.html", "/docs": "docs.html"}.items():
        app.get(path, include_in_schema=False)(lambda file=PAGE / file: FileResponse(file))
    app.mount("/page", StaticFiles(directory=PAGE))
    swagger = str(importlib.resources.files("fastapi_offline") / "static")
    app.mount("/swagger", StaticFiles(directory=swagger))


def _described(app: FastAPI) -> dict[str, Any]:
    """OpenAPI's description, with the questions, which routes read by themselves."""
    if app.openapi_schema is None:
        about = dict(title=app.title, version=app.version, routes=app.routes)
        found = get_openapi(**about, description=(__doc__ or "").partition("\n")[0])
        reference = "#/components/schemas/{model}"
        asked = [(kind, "validation") for kind in ASKED]
        _, definitions = models_json_schema(asked, ref_template=reference)
        found["components"]["schemas"] |= definitions["$defs"]
        app.openapi_schema = found
    return app.openapi_schema


def _answer_mistakes(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return error.response()

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        sentence = f"{error.detail.lower()}: {request.method} {request.url.path[:80]}."
        return Refused(error.status_code, sentence, error.headers).response()

    @app.exception_handler(Gone)
    async def gone(request: Request, error: Gone) -> Response:
        return Refused(404, str(error)).response()

    @app.exception_handler(ValidationError)
    async def form(request: Request, error: ValidationError) -> Response:
        return Refused(422, schema.sentence(error)).response()

    async def mistake(request: Request, error: Exception) -> Response:
        return Refused(400, " ".join(str(error).split())).response()

    for kind in (Mistake, ValueError):
        app.add_exception_handler(kind, mistake)


async def _read(request: Request, kind: type[Kind]) -> tuple[Kind, bytes | None]:
    """The question, and the picture that lies beside it in a form."""
    sort = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if sort == "application/json":
        return kind.model_validate_json(await request.body()), None
    if sort != "multipart/form-data" or not issubclass(kind, schema.Sent):
        raise Refused(415, "expected a JSON object, as application/json.")
    expected = "expected a form of `image`, a file, and `question`, its JSON"
    try:
        form = await request.form(max_files=1, max_fields=1)
    except HTTPException as error:
        why = error.detail.lower().rstrip(".")
        raise Refused(400, f"{expected}; this one cannot be read: {why}.") from error
    try:
        said, file = form.get("question"), form.get("image")
        if not isinstance(said, str) or not hasattr(file, "read"):
            raise Refused(422, f"{expected}.")
        return kind.model_validate_json(said), await file.read()
    finally:
        await form.close()

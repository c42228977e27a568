"""The demo's requests. Each answers JSON, or a picture; a mistake is `{"error": one sentence}`.

GET  /                          the page
GET  /api/model                 what the model is and takes
POST /api/pictures              a picture's bytes → its id
POST /api/examples              a drawn picture, with expressions that fit it
GET  /api/pictures/ID.jpg       as it is shown
GET  /api/pictures/ID.png       a drawn one, at its own size
POST /api/segment               {"picture", "text", "points"} → a mask and its id
POST /api/words                 {"answer"} → word maps
GET  /api/answers/ID/mask.png   at the picture's own size
"""

import logging
import secrets
import threading
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from dit_jax import viz
from dit_jax.data import shapes
from dit_jax.data.annotations import Mistake, fields, strict_json
from dit_jax.demo import replies
from dit_jax.demo.guard import HEADERS, Guard
from dit_jax.demo.sessions import Gone, LruCache, OpenAnswer, OpenPicture, open_upload, show
from dit_jax.demo.warm import MOST_POINTS
from dit_jax.models.architecture import Injection
from dit_jax.predict import Segmenter
from dit_jax.predict.explain import explain

LARGEST_UPLOAD, LARGEST_QUESTION = 20 * 2**20, 64 * 2**10  # bytes
PICTURES, ANSWERS = 8, 32  # kept open: 1 MB each at 512 pixels, 4 MB at 1024
LONGEST_TEXT = 300  # characters of one question
SCENES = 1_000_000  # that an example is drawn from

Reply = Response | tuple[Response, int]


def make_app(
    segmenter: Segmenter,
    *,
    name: str,
    host: str = "127.0.0.1",
    ready: threading.Event | None = None,
) -> Flask:
    """A WSGI application.

    Args:
      name: of the model, as the page shows it.
      host: that the server listens on; requests under another name are refused.
      ready: set once the model is compiled; None where nobody compiles it ahead.
    """
    app = Flask(__name__, static_folder="page", static_url_path="/page")
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_UPLOAD
    app.json.sort_keys = False
    guard = Guard(host)

    @app.before_request
    def refuse() -> Reply | None:
        reason = guard.refusal(request.headers)
        return None if reason is None else _error(reason, 403)

    @app.after_request
    def protect(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response

    _answer_mistakes(app)
    _add_routes(app, Demo(segmenter, name=name, ready=ready))
    return app


class Demo:
    """One method a request; used by several threads."""

    def __init__(self, segmenter: Segmenter, *, name: str, ready: threading.Event | None = None):
        self._segmenter, self._name, self._ready = segmenter, name, ready
        closed = "this picture is no longer open; choose it again."
        self.pictures = LruCache(PICTURES, sentence=closed)
        self.answers = LruCache(ANSWERS, sentence="this mask is no longer kept; ask for it again.")
        self._one_at_a_time = threading.Lock()  # of what needs memory for a whole picture

    def model(self) -> replies.Json:
        arch = self._segmenter.arch
        return {
            "name": self._name,
            "size": arch.image_size,
            "reads": arch.bert is not None,
            "needs_text": arch.injection != Injection.NONE,
            "presence": arch.presence,
            "colours": [list(colour) for colour in viz.COLOURS],
            "largest": LARGEST_UPLOAD,
            "longest": LONGEST_TEXT,
            "compiling": self._ready is not None and not self._ready.is_set(),
        }

    def upload(self, data: bytes) -> replies.Json:
        if not data:
            raise ValueError("nothing arrived; expected the bytes of a picture.")
        with self._one_at_a_time:
            return self._keep(open_upload(data, self._segmenter))

    def example(self) -> replies.Json:
        size = max(self._segmenter.arch.image_size, shapes.SMALLEST_SIZE)
        drawn = shapes.scene("val", secrets.randbelow(SCENES), size=size)
        texts = tuple(target.expressions[0].text for target in drawn.targets)
        return self._keep(show(drawn.image(), self._segmenter, drawn=True), texts=texts)

    def segment(self, question: dict[str, Any]) -> replies.Json:
        fields.check_keys(question, known=("picture", "text", "points"))
        shown = self.pictures[_text(question, "picture")]
        text = None if question.get("text") is None else _text(question, "text")
        if text is not None and len(text) > LONGEST_TEXT:
            raise ValueError(
                f"the text has {len(text)} characters; expected at most {LONGEST_TEXT}."
            )
        points = question.get("points") or []
        if not isinstance(points, list) or len(points) > MOST_POINTS:
            raise ValueError(f"points is no list of at most {MOST_POINTS} points [x, y, label].")
        (found,) = self._segmenter(shown.picture, text, points=points)
        answered = OpenAnswer(shown, points, found)
        return replies.of_answer(self.answers.add(answered), answered)

    def words(self, question: dict[str, Any]) -> replies.Json:
        fields.check_keys(question, known=("answer",))
        answered: OpenAnswer = self.answers[_text(question, "answer")]
        found = answered.segmentation
        if found.text is None:
            raise ValueError("this mask was asked for by points alone; there are no words.")
        picture = answered.shown.picture
        return replies.of_words(
            explain(self._segmenter, picture, found.text, points=answered.points)
        )

    def mask(self, key: str) -> tuple[bytes, str]:
        """The PNG and what it is called."""
        answered = self.answers[key]
        with self._one_at_a_time:
            return replies.own_size(answered), replies.file_name(answered)

    def _keep(self, shown: OpenPicture, *, texts: tuple[str, ...] = ()) -> replies.Json:
        return replies.of_picture(self.pictures.add(shown), shown, texts=texts)


def _add_routes(app: Flask, demo: Demo) -> None:
    app.get("/")(lambda: app.send_static_file("index.html"))
    app.get("/api/model", endpoint="model")(demo.model)
    app.post("/api/pictures", endpoint="upload")(lambda: demo.upload(request.get_data()))
    app.post("/api/examples", endpoint="example")(demo.example)
    app.post("/api/segment", endpoint="segment")(lambda: demo.segment(_question()))
    app.post("/api/words", endpoint="words")(lambda: demo.words(_question()))

    @app.get("/api/pictures/<key>.jpg")
    def jpeg(key: str) -> Response:
        return Response(demo.pictures[key].jpeg, mimetype="image/jpeg")

    @app.get("/api/pictures/<key>.png")
    def drawing(key: str) -> Response:
        data = demo.pictures[key].drawn
        if data is None:
            raise Gone("this picture was not drawn here; its file is where it was chosen.")
        return _png(data, "drawing.png")

    @app.get("/api/answers/<key>/mask.png")
    def mask(key: str) -> Response:
        return _png(*demo.mask(key))


def _png(data: bytes, name: str) -> Response:
    how = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(data, mimetype="image/png", headers=how)


def _answer_mistakes(app: Flask) -> None:
    @app.errorhandler(RequestEntityTooLarge)
    def too_large(error: RequestEntityTooLarge) -> Reply:
        most = (request.max_content_length or LARGEST_UPLOAD) / 2**20
        return _error(f"more than {most:.3g} MB were sent; expected a smaller file.", 413)

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Reply:
        return _error(f"{error.name.lower()}: {request.method} {request.path[:80]}.", error.code)

    @app.errorhandler(Gone)
    def gone(error: Gone) -> Reply:
        return _error(str(error), 404)

    @app.errorhandler(Mistake)
    @app.errorhandler(ValueError)
    def mistake(error: Exception) -> Reply:
        return _error(" ".join(str(error).split()), 400)

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Reply:
        logging.getLogger("dit_jax.demo").exception("%s %s", request.method, request.path)
        return _error("the demo failed at this; its terminal says why.", 500)


def _question() -> dict[str, Any]:
    """The JSON object of a request; raises ValueError or Mistake."""
    request.max_content_length = LARGEST_QUESTION
    if request.mimetype != "application/json":
        raise ValueError("expected a JSON object, as application/json.")
    return fields.an_object(strict_json.parse(request.get_data()))


def _text(question: dict[str, Any], key: str) -> str:
    if not isinstance(question.get(key), str):
        raise ValueError(f"{key!r} is missing, or no text.")
    return question[key]


def _error(sentence: str, status: int) -> Reply:
    return jsonify(error=sentence), status

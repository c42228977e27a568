"""Label Studio's protocol: what is asked of a model, and what its own SDK makes of the answers."""

import base64
import http.server
import threading
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
from photos import encoded, photo

from dit_jax.predict.label import brush, studio
from dit_jax.predict.segmentation import Segmentation

SCHEMA = """<View>
  <Image name="image" value="$picture" zoom="true"/>
  <{kind} name="tag" toName="image">
    <Label value="star" hint="the red star"/>
    <Label value="square" background="#00ff00"/>
  </{kind}>
  <KeyPointLabels name="points" toName="image" smart="true"><Label value="star"/></KeyPointLabels>
  <TextArea name="words" toName="image"/>
</View>"""
PICTURE = photo()
HEIGHT, WIDTH = PICTURE.shape[:2]
TASK = {"id": 7, "data": {"picture": "/data/upload/1/a.png"}}


def blob():
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:20, 8:40], mask[30:33, 60:62], mask[9:12, 15:20] = True, True, False
    return mask


class StandIn:
    """In place of a model: the same mask, but none of what is no star."""

    def __init__(self):
        self.asked = []

    def __call__(self, questions):
        for one in questions:
            self.asked.append(one)
            logits = np.where(blob(), 3, -3).astype(np.float32)
            said = (one.name, one.text, HEIGHT, WIDTH, logits, 0.75, 0.9, one.text == "square", 0.5)
            yield Segmentation(*said)


def predicted(*context, kind="BrushLabels", task=TASK):
    model = StandIn()
    body = {"tasks": [task], "label_config": SCHEMA.format(kind=kind), "project": "1.17"}
    body["params"] = {"login": "a", "password": "b", "context": {"result": list(context)}}
    answer = studio.predict(body, ask=model, fetch=lambda source: encoded(PICTURE))
    (result,) = answer["results"]
    return model.asked, result


def said(kind, value, **more):
    about = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, "id": "x"}
    return about | {"type": kind, "to_name": "image", "from_name": kind, "value": value} | more


def test_labels_are_asked_by_their_words():
    asked, answer = predicted()
    assert [one.text for one in asked] == ["the red star", "square"]
    np.testing.assert_array_equal(asked[0].image, PICTURE)
    (result,) = answer["result"]  # nothing is a square
    assert result["value"]["brushlabels"] == ["star"]
    assert (result["from_name"], result["to_name"], result["type"]) == (
        "tag",
        "image",
        "brushlabels",
    )
    assert (result["original_width"], result["original_height"]) == (WIDTH, HEIGHT)
    assert answer["score"] == result["score"] == 0.75
    assert (
        answer["model_version"]
        == studio.setup({"schema": SCHEMA.format(kind=studio.KINDS[0])})["model_version"]
    )


def test_points_boxes_and_words_of_an_open_task():
    asked, answer = predicted(
        said("keypointlabels", {"x": 50, "y": 25, "keypointlabels": ["square"]}, is_positive=True),
        said("keypointlabels", {"x": 10, "y": 10, "keypointlabels": ["square"]}, is_positive=False),
        said(
            "rectanglelabels", {"x": 0, "y": 50, "width": 50, "height": 25, "rectanglelabels": []}
        ),
        said("textarea", {"text": ["the large", "one"]}),
    )
    (one,) = asked
    assert one.points == [(WIDTH / 2, HEIGHT / 4, 1), (WIDTH / 10, HEIGHT / 10, 0)]
    assert one.box == (0, HEIGHT / 2, WIDTH / 2, 0.75 * HEIGHT)
    assert one.text == "the large one"
    assert answer["result"][0]["value"]["brushlabels"] == ["square"]


def test_a_click_on_the_far_border_is_one_on_the_last_pixel():
    edge = {"x": 100, "y": 100, "keypointlabels": ["square"]}
    (one,), _ = predicted(said("keypointlabels", edge, is_positive=True))
    assert one.points == [(WIDTH - 1, HEIGHT - 1, 1)]


@pytest.mark.parametrize(("text", "label"), [("Square, blue", "square"), ("something", "star")])
def test_words_alone_choose_a_label(text, label):
    asked, answer = predicted(said("textarea", {"text": [text]}))
    assert [one.text for one in asked] == [text] and asked[0].points is None
    assert answer["result"][0]["value"]["brushlabels"] == [label]


def test_polygons():
    _, answer = predicted(kind="PolygonLabels")
    filled = np.zeros((HEIGHT, WIDTH), np.uint8)
    for result in answer["result"]:
        value = result["value"]
        assert (result["type"], value["polygonlabels"], value["closed"]) == (
            "polygonlabels",
            ["star"],
            True,
        )
        points = np.array(value["points"]) * [WIDTH / 100, HEIGHT / 100]
        cv2.fillPoly(filled, [np.floor(points).astype(np.int32)], 1)
    np.testing.assert_array_equal(filled.astype(bool), blob())


def masks():
    rng = np.random.default_rng(1)
    yield from (rng.random((13, 17)) < share for share in (0.0, 0.1, 0.5, 1.0))
    yield np.kron(rng.random((5, 4)) < 0.5, np.ones((9, 31), bool))
    yield np.arange(300 * 400).reshape(300, 400) >= 65_536 // 4  # a run of exactly the longest
    yield blob()


def test_run_lengths_as_the_sdk_decodes_them():
    sdk = pytest.importorskip(
        "label_studio_sdk.converter.brush",
        reason="label-studio-sdk is not here; it asks for an OpenCV below 5, so it is installed"
        " with --no-deps",
    )
    for mask in masks():
        image = sdk.decode_rle(brush.encode(mask)).reshape(*mask.shape, 4)
        np.testing.assert_array_equal(image, np.repeat(mask[..., None] * np.uint8(255), 4, axis=2))


def decoded(rle):
    """As thi.ng's `rle-pack`, bit by bit."""
    bits, place = "".join(f"{byte:08b}" for byte in rle), 0

    def take(count):
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    count, word, sizes = take(32), take(5) + 1, [take(4) + 1 for _ in range(4)]
    out = []
    while len(out) < count:
        assert take(1) == 1  # no run is spelled out
        length = take(sizes[take(2)]) + 1
        out += [take(word)] * length
    assert len(bits) - place < 8 and len(out) == count
    return np.array(out, np.uint8)


def test_run_lengths():
    for mask in masks():
        image = decoded(brush.encode(mask)).reshape(*mask.shape, 4)
        np.testing.assert_array_equal(image, np.repeat(mask[..., None] * np.uint8(255), 4, axis=2))


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        (None, "interface is no text; expected its XML"),
        ("<View>", "interface is no XML"),
        (
            '<View><Image name="i" value="$i"/></View>',
            "has no BrushLabels or PolygonLabels with lab",
        ),
        (
            SCHEMA.format(kind="BrushLabels").replace("$picture", "a"),
            'whose value is like "\\$image',
        ),
    ],
)
def test_projects_that_cannot_be_answered(schema, sentence):
    with pytest.raises(ValueError, match=sentence):
        studio.setup({"schema": schema})


def test_mistakes_in_tasks():
    for task, sentence in (({"data": {}}, "no picture under 'picture'"), ({}, "no picture under")):
        with pytest.raises(ValueError, match=sentence):
            predicted(task=task)
    for task, context in (("1.png", {}), (TASK, ["square"])):
        body = {"label_config": SCHEMA.format(kind="BrushLabels"), "tasks": [task]}
        with pytest.raises(ValueError, match="a task, or 'context', is no object; expected"):
            body["params"] = {"context": context}
            studio.predict(body, ask=StandIn(), fetch=lambda source: encoded(PICTURE))
    with pytest.raises(ValueError, match="'tasks' is no list"):
        body = {"label_config": SCHEMA.format(kind="BrushLabels")}
        studio.predict(body, ask=StandIn(), fetch=lambda source: b"")


def test_what_else_it_says():
    assert studio.health()["status"] == "UP"
    assert studio.webhook({"action": "ANNOTATION_CREATED"})["status"] == "ok"


@contextmanager
def label_studio():
    """A server that has one picture for who brings the token."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.headers["Authorization"] == "Token secret"
            self.send_response(200 if known and self.path == TASK["data"]["picture"] else 401)
            self.end_headers()
            self.wfile.write(b"pixels")

        def log_message(self, *said):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_pictures_come_from_label_studio_alone():
    with label_studio() as url:
        fetch = studio.Pictures(url, "secret")
        assert fetch(TASK["data"]["picture"]) == fetch(url + TASK["data"]["picture"]) == b"pixels"
        with pytest.raises(OSError, match="401"):
            studio.Pictures(url, "guessed")(TASK["data"]["picture"])
    embedded = "data:image/png;base64," + base64.b64encode(b"pixels").decode()
    assert studio.Pictures("", "")(embedded) == b"pixels"
    for source in ("http://169.254.169.254/a", "file:///etc/passwd", "s3://b/a.png", "//other/a"):
        with pytest.raises(
            ValueError, match="is not in Label Studio at http://127.0.0.1:8080; exp"
        ):
            studio.Pictures("http://127.0.0.1:8080", "")(source)
    with pytest.raises(ValueError, match=r"is not in Label Studio at \(no address\)"):
        studio.Pictures("", "")("/data/a.png")
    with pytest.raises(ValueError, match="no base64 behind its comma"):
        studio.Pictures("", "")("data:image/png;base64,?")

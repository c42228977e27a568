"""The demo's requests, as its page sends them and as nobody should."""

import base64
import io
import json
import re
import struct
import sys
import tomllib
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from places import ROOT
from small_models import PLAIN, write_model

from dit_jax import Segmenter, viz
from dit_jax.demo import app as demo_app
from dit_jax.demo import server, sessions
from dit_jax.demo.app import ANSWERS, PICTURES, make_app
from dit_jax.demo.guard import Guard, is_loopback
from dit_jax.demo.sessions import Gone, LruCache
from dit_jax.models.architecture import Injection

PAGE = ROOT / "dit_jax/demo/page"
TEXT = "the red star"


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    folder = write_model(tmp_path_factory.mktemp("model") / "ldit")
    return Segmenter.from_pretrained(folder, batch_size=1)


@pytest.fixture(scope="module")
def client(segmenter):
    return make_app(segmenter, name="runs/my model").test_client()


def photo(*, height=48, width=70):
    noise = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def opened(client, pixels=None):
    said = client.post("/api/pictures", data=png(photo() if pixels is None else pixels))
    assert said.status_code == 200, said.json
    return said.json


def read(data):
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture)


def test_what_the_page_is_told_of_the_model(client):
    said = client.get("/api/model").json
    assert said["name"] == "runs/my model" and said["size"] == 64
    assert (said["reads"], said["needs_text"], said["presence"]) == (True, True, False)
    assert said["colours"][0] == list(viz.COLOURS[0])


def test_a_picture_and_a_mask(client, segmenter):
    picture = opened(client)
    assert (picture["width"], picture["height"], picture["view"]) == (70, 48, [512, 351])
    jpeg = client.get(f"/api/pictures/{picture['id']}.jpg")
    assert jpeg.mimetype == "image/jpeg" and read(jpeg.data).shape == (351, 512, 3)
    said = client.post("/api/segment", json={"picture": picture["id"], "text": TEXT}).json
    assert set(said) == {"id", "mask", "share", "score", "presence", "nothing"}
    (expected,) = segmenter(photo(), TEXT)
    assert 0.05 < expected.mask.mean() < 0.95  # or nothing here could fail
    download = client.get(f"/api/answers/{said['id']}/mask.png")
    assert download.headers["Content-Disposition"] == 'attachment; filename="mask-the-red-star.png"'
    np.testing.assert_array_equal(read(download.data) > 0, expected.mask)
    kind, data = said["mask"].split(",")
    assert kind == "data:image/png;base64"
    shown = read(base64.b64decode(data))
    assert shown.shape == (351, 512)
    assert said["share"] == pytest.approx((shown > 0).mean())
    assert abs(said["share"] - expected.mask.mean()) < 0.02


def test_points_refine(client, segmenter):
    picture = opened(client)["id"]
    ask = {"picture": picture, "text": TEXT}
    before = client.post("/api/segment", json=ask).json
    points = [[20.5, 30, 1], [60, 5, 0]]
    after = client.post("/api/segment", json=ask | {"points": points}).json
    assert before["mask"] != after["mask"]
    (expected,) = segmenter(photo(), TEXT, points=points)
    found = read(client.get(f"/api/answers/{after['id']}/mask.png").data) > 0
    np.testing.assert_array_equal(found, expected.mask)


def test_word_maps(client):
    picture = opened(client)["id"]
    answer = client.post("/api/segment", json={"picture": picture, "text": TEXT}).json["id"]
    said = client.post("/api/words", json={"answer": answer}).json
    assert [word["text"] for word in said["words"]] == TEXT.split()
    assert said["layers"] == ["block 1", "block 2", "decoder 1"] and said["remark"] is None
    assert np.array(said["shares"]).shape == (3, 3)
    assert (np.sum(said["shares"], axis=1) <= 1).all()
    maps = np.frombuffer(base64.b64decode(said["maps"]), np.uint8).reshape(3, 3, *said["grid"])
    assert (maps.max(axis=(1, 2, 3)) == 255).all() and len(said["tops"]) == 3
    assert said["content"] == [10, 0, 44, 64] and said["canvas"] == 64


def test_an_example_comes_with_words_that_fit(client):
    said = client.post("/api/examples").json
    assert len(said["texts"]) == 2 and max(said["view"]) == 512
    asked = {"picture": said["id"], "text": said["texts"][0]}
    assert client.post("/api/segment", json=asked).status_code == 200


def test_plain_sam_takes_points_alone(tmp_path):
    segmenter = Segmenter.from_pretrained(write_model(tmp_path / "sam", **PLAIN), batch_size=1)
    client = make_app(segmenter, name="sam").test_client()
    assert client.get("/api/model").json["reads"] is False
    picture = opened(client)["id"]
    said = client.post("/api/segment", json={"picture": picture, "points": [[9, 9, 1]]}).json
    download = client.get(f"/api/answers/{said['id']}/mask.png")
    assert 'filename="mask-points.png"' in download.headers["Content-Disposition"]
    failed = client.post("/api/words", json={"answer": said["id"]})
    assert failed.status_code == 400 and "there are no words" in failed.json["error"]
    failed = client.post("/api/segment", json={"picture": picture, "text": "x"})
    assert failed.status_code == 400 and "plain SAM, which reads no text" in failed.json["error"]


def test_a_model_that_may_say_nothing(tmp_path):
    folder = write_model(tmp_path / "m", injection=Injection.NONE, presence=True)
    client = make_app(Segmenter.from_pretrained(folder, batch_size=1), name="m").test_client()
    assert client.get("/api/model").json["needs_text"] is False
    asked = {"picture": opened(client)["id"], "text": TEXT}
    said = client.post("/api/segment", json=asked).json
    assert said["nothing"] == (said["presence"] < 0.5)
    remark = client.post("/api/words", json={"answer": said["id"]}).json["remark"]
    assert remark.startswith("no text enters this model's image encoder")


def bomb(height, width):
    """A PNG of a few bytes that claims to be large."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + head + data + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "status", "sentence"),
    [
        (b"", 400, "nothing arrived; expected the bytes of a picture."),
        (b"hello", 400, "this file is not a picture; expected JPEG, PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 400, "this file is not a picture"),
        (png(photo())[:-900], 400, "cannot be decoded; expected a complete JPEG"),
        (bomb(60_000, 60_000), 400, "60000 × 60000 pixels; expected at most 50 megapixels here"),
        (bomb(7000, 8000), 400, "8000 × 7000 pixels; expected at most 50 megapixels here"),
        (bytes(20 * 2**20 + 1), 413, "more than 20 MB were sent; expected a smaller file."),
    ],
)
def test_what_is_no_picture(client, data, status, sentence):
    said = client.post("/api/pictures", data=data)
    assert said.status_code == status and sentence in said.json["error"]


@pytest.mark.parametrize(
    ("question", "status", "sentence"),
    [
        ({}, 400, "'picture' is missing, or no text."),
        ({"picture": 3}, 400, "'picture' is missing, or no text."),
        ({"picture": "unknown", "text": "a"}, 404, "this picture is no longer open; choose it"),
        ({"picture": "/etc/passwd", "text": "a"}, 404, "this picture is no longer open"),
        ({"picture": "ID", "txt": "a"}, 400, "unknown key 'txt'; the nearest valid key is 'text'"),
        ({"picture": "ID"}, 400, "no text is given for the picture; this model reads words"),
        ({"picture": "ID", "text": ["a"]}, 400, "'text' is missing, or no text."),
        ({"picture": "ID", "text": " "}, 400, "the expression ' ' is empty"),
        ({"picture": "ID", "text": "x" * 301}, 400, "has 301 characters; expected at most 300."),
        ({"picture": "ID", "text": "a", "points": 3}, 400, "points is no list of at most 64"),
        ({"picture": "ID", "text": "a", "points": [[1, 1, 1]] * 65}, 400, "points is no list"),
        ({"picture": "ID", "text": "a", "points": [[70, 1, 1]]}, 400, "lies outside the picture"),
        ({"picture": "ID", "text": "a", "points": [[1, 1, 2]]}, 400, "the label of a point is 2"),
        ({"picture": "ID", "text": "a", "points": ["x"]}, 400, "a point is 'x'; expected"),
        ([], 400, "found []; expected an object"),
    ],
)
def test_mistakes_in_a_question(client, question, status, sentence):
    if isinstance(question, dict) and question.get("picture") == "ID":
        question = question | {"picture": opened(client)["id"]}
    said = client.post("/api/segment", json=question)
    assert said.status_code == status and sentence in said.json["error"]


@pytest.mark.parametrize(
    ("data", "kind", "status", "sentence"),
    [
        (b"{}", "text/plain", 400, "expected a JSON object, as application/json."),
        (b"{", "application/json", 400, "not JSON: "),
        (b"[" * 60_000, "application/json", 400, "nested too deeply"),
        (b'{"answer": NaN}', "application/json", 400, "NaN is no number in JSON"),
        (b'{"answer": "\xff"}', "application/json", 400, "is not UTF-8"),
        (b" " * 70_000, "application/json", 413, "more than 0.0625 MB were sent"),
        (b'{"answer": "x"}', "application/json", 404, "this mask is no longer kept; ask for it"),
        (b'{"answr": "x"}', "application/json", 400, "the nearest valid key is 'answer'"),
    ],
)
def test_mistakes_in_json(client, data, kind, status, sentence):
    said = client.post("/api/words", data=data, content_type=kind)
    assert said.status_code == status and sentence in said.json["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/page/../app.py",
        "/page/..%2fapp.py",
        "/page/%2e%2e/app.py",
        "/page//etc/passwd",
        "/page/..\\app.py",
        "/api/pictures/..%2f..%2fapp.py.jpg",
        "/api/pictures/../../../etc/passwd.jpg",
        "/api/answers/..%2f..%2f/mask.png",
        "/etc/passwd",
        "/app.py",
    ],
)
def test_no_path_leads_to_a_file(client, path):
    said = client.get(path, buffered=True)
    assert said.status_code in (404, 308) and b"import" not in said.data


def test_every_reply_is_guarded(client):
    for path in ("/", "/nowhere", "/page/app.js"):
        reply = client.get(path, buffered=True)
        assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in reply.headers
    assert client.get("/nowhere").json == {"error": "not found: GET /nowhere."}
    assert client.put("/api/segment").status_code == 405


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Host": "127.0.0.1:8000", "Origin": "http://127.0.0.1:8000"}, True),
        ({"Host": "localhost:9999"}, True),  # through a tunnel
        ({"Host": "[::1]:8000"}, True),
        ({"Host": "attacker.example"}, False),
        ({"Host": "attacker.example:8000", "Origin": "http://attacker.example:8000"}, False),
        ({"Host": "127.0.0.1.attacker.example"}, False),
        ({"Host": "localhost@attacker.example"}, False),
        ({"Host": "192.168.0.7:8000"}, False),
        ({"Host": ""}, False),
        ({"Host": "[::1"}, False),
        ({"Host": "localhost:x"}, False),
        ({"Host": "localhost/x"}, False),
        ({"Origin": "http://attacker.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://localhost:1"}, False),  # another server of this machine
        ({"Origin": "http://[::1"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
    ],
)
def test_only_its_own_page_may_ask(client, headers, allowed):
    reply = client.post("/api/segment", json={}, headers=headers)
    assert reply.status_code == (400 if allowed else 403)
    assert client.get("/api/model", headers=headers).status_code == (200 if allowed else 403)


def test_other_addresses():
    """Where it listens on all, numbers lead here and only known names do."""
    everywhere = Guard("0.0.0.0")
    assert everywhere.refusal({"Host": "192.168.0.7:8000"}) is None
    assert everywhere.refusal({"Host": "[fe80::1]:8000"}) is None
    assert everywhere.refusal({"Host": "attacker.example"}) is not None
    named = Guard("Studio.local")
    assert named.refusal({"Host": "studio.local:8000"}) is None
    assert named.refusal({"Host": "10.0.0.1"}) is not None
    found = [is_loopback(host) for host in ("localhost", "127.0.0.9", "::1", "0.0.0.0", "studio")]
    assert found == [True, True, True, False, False]


def test_only_the_latest_are_kept(client):
    kept = LruCache(2, sentence="gone.")
    keys = [kept.add(value) for value in "ab"]
    assert kept[keys[0]] == "a"
    third = kept.add("c")
    with pytest.raises(Gone, match="gone."):
        kept[keys[1]]
    assert (kept[keys[0]], kept[third], len(kept)) == ("a", "c", 2)
    first = opened(client)["id"]
    for _ in range(PICTURES):
        last = opened(client)["id"]
    assert client.get(f"/api/pictures/{first}.jpg").status_code == 404
    assert client.get(f"/api/pictures/{last}.jpg").status_code == 200


def test_masks_of_large_pictures_are_not_kept(segmenter):
    """Neither what is shown nor what is downloaded stays in memory with the answer."""
    demo = demo_app.Demo(segmenter, name="m")
    picture = demo.upload(png(photo(height=900, width=1700)))
    assert picture["view"] == [1280, 678]
    for _ in range(ANSWERS + 3):
        key = demo.segment({"picture": picture["id"], "text": TEXT})["id"]
        demo.mask(key)
    assert len(demo.answers) == ANSWERS
    assert "mask" not in vars(demo.answers[key].segmentation)


def test_a_failure_is_told_without_its_insides(client, monkeypatch, caplog):
    def fail(*arguments, **how):
        raise RuntimeError("secret")

    monkeypatch.setattr(demo_app, "open_upload", fail)
    said = client.post("/api/pictures", data=png(photo()))
    assert said.status_code == 500
    assert said.json == {"error": "the demo failed at this; its terminal says why."}
    assert "secret" in caplog.text


@pytest.fixture(scope="module")
def picture(client):
    return opened(client)["id"]


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_is_sent_is_answered_in_a_sentence(client, picture, data):
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
    keys = st.sampled_from(["picture", "text", "points", "answer"])
    body = data.draw(st.dictionaries(keys, values) | values)
    if isinstance(body, dict) and data.draw(st.booleans()):
        body["picture"] = picture
    path = data.draw(st.sampled_from(["/api/segment", "/api/words", "/api/pictures"]))
    said = client.post(path, data=json.dumps(body), content_type="application/json")
    assert said.status_code in (200, 400, 404)
    if said.status_code != 200:
        assert re.search(r"\w.*\.$", said.json["error"]), said.json


def test_the_page_needs_nothing_from_elsewhere(client):
    """Every file is packaged and served, and none names another server."""
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "page/*" in packaged["package-data"]["dit_jax.demo"]
    index = client.get("/", buffered=True).get_data(as_text=True)
    for name in re.findall(r'"/page/([\w.]+)"', index):
        assert client.get(f"/page/{name}", buffered=True).status_code == 200
    for file in PAGE.iterdir():
        text = file.read_text(encoding="utf-8")
        assert "//cdn" not in text and not re.search(r"https?://", text), file
        for name in re.findall(r'from "\./([\w.]+)"', text):
            assert (PAGE / name).is_file()


def test_which_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert server.chosen(Path("a")) == Path("a")
    with pytest.raises(FileNotFoundError, match="no --model is given and .*`make quickstart`"):
        server.chosen(None)
    server.QUICKSTART.mkdir(parents=True)
    assert server.chosen(None) == server.QUICKSTART


def test_ports(segmenter):
    make = dict(name="m", host="127.0.0.1")
    first = server.make_server(segmenter, **make, port=0)
    try:
        taken = int(first.effective_port)
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {taken}: .*in use"):
            server.make_server(segmenter, **make, port=taken)
    finally:
        first.close()
    with pytest.raises(ValueError, match="--port is 70000; expected 1 to 65535"):
        server.make_server(segmenter, **make, port=70000)


def test_without_its_packages(segmenter, monkeypatch):
    monkeypatch.setitem(sys.modules, "waitress", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"the demo needs waitress: pip install 'dit_jax\[demo\]'"
    ):
        server.make_server(segmenter, name="m", host="127.0.0.1", port=0)


def test_small_pictures_are_shown_larger():
    assert sessions._viewed(np.zeros((10, 4, 3), np.uint8)).shape == (512, 205, 3)
    assert sessions._viewed(np.zeros((600, 900, 3), np.uint8)).shape == (600, 900, 3)
    assert sessions._viewed(np.zeros((1, 3000, 3), np.uint8)).shape == (1, 1280, 3)

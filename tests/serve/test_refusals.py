"""What is refused, and in which sentence."""

import json
import re
import struct
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from photos import encoded, opened, photo

from dit_jax.serve.guard import Guard, is_loopback


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
        (encoded(photo())[:-900], 400, "cannot be decoded; expected a complete JPEG"),
        (bomb(60_000, 60_000), 400, "60000 × 60000 pixels; expected at most 50 megapixels here"),
        (bomb(7000, 8000), 400, "8000 × 7000 pixels; expected at most 50 megapixels here"),
        (bytes(20 * 2**20 + 1), 400, "the picture has more than 20 MB; expected a smaller file."),
        (bytes(28 * 2**20 + 1), 413, "more than 28 MB were sent; expected a smaller file."),
    ],
)
def test_what_is_no_picture(client, data, status, sentence):
    said = client.post("/v1/pictures", content=data)
    assert said.status_code == status and sentence in said.json()["error"]


def ask(**prompt):
    return {"picture": "ID", "prompts": [prompt]}


@pytest.mark.parametrize(
    ("question", "status", "sentence"),
    [
        ({}, 422, "prompts is missing."),
        (ask(text="a") | {"picture": 3}, 422, "picture is 3; expected a text."),
        (ask(text="a") | {"picture": "unknown"}, 404, "this picture is no longer open; choose it"),
        (ask(text="a") | {"picture": "/etc/passwd"}, 404, "this picture is no longer open"),
        (ask(text="a") | {"image": ""}, 400, "expected one picture: a file, `image`, or `picture`"),
        (ask(text="a") | {"picture": None}, 400, "expected one picture"),
        (ask(text="a") | {"picture": None, "image": "no"}, 400, "`image` is no base64"),
        (
            ask(text="a") | {"output": "mask"},
            422,
            "output is \"mask\"; expected 'rle', 'polygon', 'png' or 'box'.",
        ),
        (ask(text="a") | {"threshold": 1}, 422, "threshold is 1; expected less than 1."),
        (ask(text="a") | {"threshold": 0}, 422, "threshold is 0; expected more than 0."),
        (ask(txt="a"), 422, "prompts.0.txt is no key that is known here."),
        (ask(), 400, "no text is given for the picture; this model reads words"),
        (ask(text=["a"]), 422, "prompts.0.text is a list; expected a text."),
        (ask(text=" "), 400, "the expression ' ' is empty"),
        (ask(text="x" * 301), 422, "prompts.0.text has 301 characters; expected at most 300."),
        (ask(text="a", points=3), 422, "prompts.0.points is 3; expected a list."),
        (ask(text="a", points=[[1, 1, 1]] * 65), 422, "points has 65 values; expected at most 64."),
        (ask(text="a", points=[[70, 1, 1]]), 400, "lies outside the picture"),
        (ask(text="a", points=[[1, 1, 2]]), 400, "the label of a point is 2"),
        (ask(text="a", points=[[1]]), 422, "prompts.0.points.0 has 1 values; expected at least 2."),
        (ask(text="a", box=[9, 9, 8, 8]), 400, "is no box (x0, y0, x1, y1) inside the picture"),
        (ask(text="a", mask={"size": [9, 9], "counts": "Q2"}), 400, "9x9"),
        (ask(text="a", mask={"size": [48, 70], "counts": "Q2"}), 400, "run lengths"),
        (ask(text="a", mask={"size": [48, 70], "counts": "\u2603"}), 400, "run lengths"),
        ({"picture": "ID", "prompts": []}, 422, "prompts has 0 values; expected at least 1."),
        (
            {"picture": "ID", "prompts": [{"text": "a"}] * 17},
            422,
            "prompts has 17 values; expected",
        ),
        ([], 422, "the question is a list; expected an object."),
    ],
)
def test_mistakes_in_a_question(client, question, status, sentence):
    if isinstance(question, dict) and question.get("picture") == "ID":
        question = question | {"picture": opened(client)["id"]}
    said = client.post("/v1/segment", json=question)
    assert said.status_code == status and sentence in said.json()["error"]


@pytest.mark.parametrize(
    ("data", "kind", "status", "sentence"),
    [
        (b"{}", "text/plain", 415, "expected a JSON object, as application/json."),
        (b"{}", "multipart/form-data", 400, "one cannot be read: missing boundary in multipart."),
        (b"{", "application/json", 422, "the question is no JSON: "),
        (b"[" * 60_000, "application/json", 422, "recursion limit exceeded"),
        (b'{"text": NaN}', "application/json", 422, "text is NaN; expected a text."),
        (b'{"text": "\xff"}', "application/json", 422, "invalid unicode code point"),
        (b'{"text": "x"}', "application/json", 400, "expected one picture"),
    ],
)
def test_mistakes_in_json(client, data, kind, status, sentence):
    said = client.post("/v1/words", content=data, headers={"Content-Type": kind})
    assert said.status_code == status and sentence in said.json()["error"]


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ({"points_per_side": 0}, "points_per_side is 0; expected at least 1."),
        ({"points_per_side": 33}, "points_per_side is 33; expected at most 32."),
        ({"points_per_side": 1.5}, "points_per_side is 1.5; expected a whole number."),
        ({"points_per_side": "a"}, 'points_per_side is "a"; expected a whole number.'),
        ({"pred_iou_thresh": None}, "pred_iou_thresh is null; expected a number."),
        ({"min_mask_region_area": 10**7}, "is 10000000; expected at most 1,000,000."),
    ],
)
def test_mistakes_in_settings(client, question, sentence):
    said = client.post("/v1/everything", json={"image": ""} | question)
    assert said.status_code == 422 and sentence in said.json()["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/page/../app.py",
        "/page/..%2fapp.py",
        "/page/%2e%2e/app.py",
        "/page//etc/passwd",
        "/page/..\\app.py",
        "/v1/pictures/..%2f..%2fapp.py.jpg",
        "/v1/pictures/../../../etc/passwd.jpg",
        "/swagger/..%2f..%2fcore.py",
        "/etc/passwd",
        "/app.py",
    ],
)
def test_no_path_leads_to_a_file(client, path):
    said = client.get(path)
    assert said.status_code == 404 and b"import" not in said.content


def test_every_reply_is_guarded(client):
    for path in ("/", "/nowhere", "/page/app.js"):
        reply = client.get(path)
        assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in reply.headers
    assert client.get("/nowhere").json() == {"error": "not found: GET /nowhere."}
    assert client.put("/v1/segment").status_code == 405


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
    reply = client.post("/v1/segment", json={}, headers=headers)
    assert reply.status_code == (422 if allowed else 403)
    assert client.get("/v1/model", headers=headers).status_code == (200 if allowed else 403)


def test_other_addresses():
    """Where it listens on all, numbers lead here and only known names do."""
    assert Guard("127.0.0.2").refusal({"Host": "127.0.0.2:8000"}) is None
    everywhere = Guard("0.0.0.0")
    assert everywhere.refusal({"Host": "192.168.0.7:8000"}) is None
    assert everywhere.refusal({"Host": "[fe80::1]:8000"}) is None
    assert everywhere.refusal({"Host": "attacker.example"}) is not None
    named = Guard("Studio.local")
    assert named.refusal({"Host": "studio.local:8000"}) is None
    assert named.refusal({"Host": "10.0.0.1"}) is not None
    found = [is_loopback(host) for host in ("localhost", "127.0.0.9", "::1", "0.0.0.0", "studio")]
    assert found == [True, True, True, False, False]


@pytest.fixture(scope="module")
def picture(client):
    return opened(client)["id"]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_is_sent_is_answered_in_a_sentence(client, picture, data):
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
    keys = st.sampled_from(["picture", "text", "points", "prompts", "output"])
    body = data.draw(st.dictionaries(keys, values) | values)
    if isinstance(body, dict) and data.draw(st.booleans()):
        body["picture"] = picture
    path = data.draw(st.sampled_from(["/v1/segment", "/v1/words", "/v1/pictures"]))
    how = {"Content-Type": "application/json"}
    said = client.post(path, content=json.dumps(body), headers=how)
    assert said.status_code in (200, 400, 404, 422)
    if said.status_code != 200:
        assert re.search(r"\w.*\.$", said.json()["error"]), said.json()
        assert "input should" not in said.json()["error"].lower()

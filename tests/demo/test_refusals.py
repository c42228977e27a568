"""What is refused, and in which sentence."""

import json
import re
import struct
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from photos import encoded, opened, photo

from dit_jax.demo.guard import Guard, is_loopback


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

"""Questions of many clients: what runs together, what is refused, and what is dropped."""

import asyncio
import base64
import concurrent.futures
import json
import re
import threading
import time

import numpy as np
import pytest
from photos import asking, encoded, opened, photo
from pycocotools import mask as rle
from small_models import write_model

from dit_jax import Segmenter
from dit_jax.models.architecture import Injection
from dit_jax.predict import Question
from dit_jax.serve import desk
from dit_jax.serve.batcher import Batcher
from dit_jax.serve.guard import Guard

TEXT = "the red star"
IMAGE = base64.b64encode(encoded(photo())).decode()
ASKED = {"image": IMAGE, "prompts": [{"text": TEXT}]}


class Held:
    """A segmenter that answers when it may, and remembers how many at once."""

    def __init__(self, segmenter, monkeypatch, *, batch_size=4):
        self.may, self.met, self.batches = threading.Event(), threading.Event(), []
        real = segmenter.answer

        def answer(rows):
            self.met.set()
            assert self.may.wait(60)
            self.batches.append(len(rows))
            return real(rows)

        monkeypatch.setattr(segmenter, "answer", answer)
        monkeypatch.setattr(segmenter, "batch_size", batch_size)


@pytest.fixture
def held(segmenter, monkeypatch):
    held = Held(segmenter, monkeypatch)
    yield held
    held.may.set()


def rows_of(segmenter, count):
    pictures = [segmenter.open(photo(seed)) for seed in range(count)]
    return [segmenter.prepare(Question(one, one.name, TEXT)) for one in pictures]


def test_what_waits_is_answered_together(segmenter, held):
    batcher, rows = Batcher(), rows_of(segmenter, 7)
    first = batcher.ask(segmenter, rows[:1])
    assert held.met.wait(60)
    others = [batcher.ask(segmenter, [row])[0] for row in rows[1:]]
    assert others[2].cancel()
    held.may.set()
    found = [future.result(60) for future in (*first, *others) if not future.cancelled()]
    assert held.batches == [1, 3, 2]  # one of the four that were taken had been given up
    del rows[3]
    for row, one in zip(rows, found, strict=True):
        (expected,) = segmenter(row.picture, TEXT)
        np.testing.assert_array_equal(one.mask, expected.mask)


def test_only_those_rows_fail_that_fail_alone(segmenter, monkeypatch):
    rows, real = rows_of(segmenter, 3), segmenter.answer

    def answer(asked):
        if any(row is rows[1] for row in asked):
            raise MemoryError("too much")
        return real(asked)

    monkeypatch.setattr(segmenter, "answer", answer)
    monkeypatch.setattr(segmenter, "batch_size", 3)
    futures = Batcher().ask(segmenter, rows)
    assert futures[0].result(60).mask.any() and futures[2].result(60).mask.any()
    with pytest.raises(MemoryError, match="too much"):
        futures[1].result(60)


def test_other_models_rows_are_not_mixed(segmenter, held, tmp_path):
    folder = write_model(tmp_path / "m", injection=Injection.NONE)
    other = Segmenter.from_pretrained(folder, batch_size=4)
    batcher = Batcher()
    (first,) = batcher.ask(segmenter, rows_of(segmenter, 1))
    assert held.met.wait(60)
    mixed = [batcher.ask(one, rows_of(one, 1))[0] for one in (segmenter, other, segmenter)]
    held.may.set()
    assert first.result(60).mask.shape == (48, 70)
    (expected,) = other(photo(), TEXT)
    np.testing.assert_array_equal(mixed[1].result(60).mask, expected.mask)
    assert all(one.result(60).mask.any() for one in mixed) and held.batches == [1, 1, 1]


def test_more_than_fit_are_refused_and_told_when_to_come(segmenter, held):
    with asking(segmenter, most=2) as client, concurrent.futures.ThreadPoolExecutor(2) as pool:
        inside = [pool.submit(client.post, "/v1/segment", json=ASKED) for _ in range(2)]
        wait_for(lambda: client.app.state.desk._inside == 2)
        refused = client.post("/v1/segment", json=ASKED)
        assert refused.status_code == 429 and int(refused.headers["Retry-After"]) >= 1
        assert refused.json() == {"error": "2 questions are being answered; ask again later."}
        assert client.get("/healthz").status_code == 200
        held.may.set()
        assert [one.result().status_code for one in inside] == [200, 200]
        assert client.post("/v1/segment", json=ASKED).status_code == 200
        told = client.get("/metrics").text
    assert "dit_jax_requests_refused_total 1.0" in told and "dit_jax_requests_inside 0.0" in told
    count = r'dit_jax_request_seconds_count{route="/v1/segment",status="200"} (\S+)'
    assert float(re.search(count, told)[1]) == 3


def test_nobody_waits_beyond_the_deadline(segmenter, held):
    with asking(segmenter, deadline=0.3) as client:
        late = client.post("/v1/segment", json=ASKED)
        assert late.status_code == 504
        assert late.json() == {"error": "the question was not answered in time."}
        second = client.post("/v1/segment", json=ASKED)  # waits behind it, and is dropped there
        assert second.status_code == 504
        held.may.set()
        wait_for(lambda: held.batches == [1])
        assert client.post("/v1/segment", json=ASKED).status_code == 200
    assert held.batches == [1, 1]


def scope(path="/v1/segment", method="POST"):
    kind = (b"content-type", b"application/json")
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1"), kind],
    }


def run(app, *messages):
    """What the application sends where a client's messages come, and then no more."""
    sent = []

    async def receive():
        if waiting:
            return waiting.pop(0)
        await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    waiting = list(messages)
    asyncio.run(app(scope(), receive, send))
    return sent


def test_half_an_upload_is_not_waited_for(segmenter):
    app = asking(segmenter, deadline=0.2).app
    half = {"type": "http.request", "body": b'{"image": "', "more_body": True}
    start, body = run(app, half)
    assert start["status"] == 408 and b"did not arrive in time" in body["body"]
    assert app.state.desk._inside == 0


@pytest.mark.parametrize("when", ["while it uploads", "while it waits"])
def test_a_client_that_has_gone_costs_nothing(when, segmenter, held):
    app = asking(segmenter).app
    body = {"type": "http.request", "body": json.dumps(ASKED).encode(), "more_body": False}
    if when == "while it uploads":
        body |= {"body": body["body"][:20], "more_body": True}
    start, *_ = run(app, body, {"type": "http.disconnect"})
    assert start["status"] == 499 and app.state.desk._inside == 0
    held.may.set()


def test_a_token(segmenter):
    client = asking(segmenter, token="öpen", host="0.0.0.0")
    for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": "Basic no"}):
        refused = client.get("/v1/model", headers=headers)
        assert refused.status_code == 401 and refused.json()["error"].startswith("no token")
        assert refused.headers["WWW-Authenticate"].startswith("Basic ")
    browsers = base64.b64encode("anybody:öpen".encode()).decode()
    for said in ("Bearer öpen", f"Basic {browsers}"):
        allowed = {"Authorization": said.encode(), "Host": "another.example"}
        assert client.get("/v1/model", headers=allowed).status_code == 200
    assert client.get("/healthz").status_code == 200
    assert Guard("0.0.0.0").refusal({"Host": "another.example"}) is not None


def test_the_model_is_swapped_where_that_is_allowed(segmenter, tmp_path, monkeypatch):
    warmed = []
    monkeypatch.setattr(desk, "warm", lambda *one: warmed.append(one) or one[1].set())
    folder = write_model(tmp_path / "m", injection=Injection.NONE)
    asked = {"model": str(folder)}
    refused = asking(segmenter).post("/v1/model", json=asked)
    assert refused.status_code == 403 and "without --allow_swap" in refused.json()["error"]
    client = asking(segmenter, allow_swap=True)
    before = opened(client)["id"]
    missing = client.post("/v1/model", json={"model": str(tmp_path / "none")})
    assert missing.status_code == 400 and "none" in missing.json()["error"]
    assert client.get("/v1/model").json()["needs_text"] is True
    said = client.post("/v1/model", json=asked).json()
    assert (said["name"], said["needs_text"], said["ready"]) == (str(folder), False, True)
    assert len(warmed) == 1
    assert client.get(f"/v1/pictures/{before}.jpg").status_code == 404
    answer = client.post("/v1/segment", json=ASKED).json()["answers"][0]
    (expected,) = Segmenter.from_pretrained(folder, batch_size=1)(photo(), TEXT)
    np.testing.assert_array_equal(rle.decode(answer["mask"]), expected.mask)


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)

"""Label Studio's routes: the protocol of `dit_jax.predict.label.studio`, asked over HTTP."""

import asyncio
import base64
import threading

import numpy as np
import pytest
from photos import encoded, photo

from dit_jax.predict.label import brush
from dit_jax.predict.requests import Question

SCHEMA = """<View><Image name="image" value="$image"/>
<BrushLabels name="tag" toName="image"><Label value="star" hint="the red star"/></BrushLabels>
</View>"""
PICTURE = "data:image/png;base64," + base64.b64encode(encoded(photo())).decode()


def test_tasks_are_answered(client, segmenter):
    assert client.get("/health").json()["status"] == "UP"
    version = client.post("/setup", json={"project": "1.1", "schema": SCHEMA}).json()
    tasks = [{"id": 1, "data": {"image": PICTURE}}]
    asked = {"tasks": tasks, "label_config": SCHEMA, "params": {"context": {}}}
    (answer,) = client.post("/predict", json=asked).json()["results"]
    (expected,) = segmenter(photo(), "the red star")
    (result,) = answer["result"]
    assert result["value"]["rle"] == brush.encode(expected.mask)
    np.testing.assert_allclose(answer["score"], expected.score, rtol=1e-6)
    assert answer["model_version"] == version["model_version"]
    assert client.post("/webhook", json={"action": "ANNOTATION_CREATED"}).status_code == 201


def test_what_nobody_waits_for_any_more_is_not_answered(client):
    """A request of many tasks ends with its deadline, and opening pictures never waits for it."""
    desk, begun, ended = client.app.state.desk, threading.Event(), threading.Event()

    def work(ask):
        try:
            while True:
                ask([Question(photo(), "a.png", "the red star")])
                begun.set()
        finally:
            ended.set()

    async def left():
        task = asyncio.ensure_future(desk.with_model(work))
        await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(left())
    assert begun.is_set() and ended.wait(60)
    assert not any("tasks" in thread.name for thread in desk._hands._threads)


def test_pictures_of_tasks_have_the_servers_bound(client):
    large = np.zeros((7200, 7200), np.uint8)
    source = "data:image/png;base64," + base64.b64encode(encoded(large)).decode()
    asked = {"tasks": [{"data": {"image": source}}], "label_config": SCHEMA}
    answer = client.post("/predict", json=asked)
    assert answer.status_code in (400, 413) and "megapixels" in answer.text


def test_mistakes_are_sentences(client, monkeypatch):
    monkeypatch.delenv("LABEL_STUDIO_URL", raising=False)
    for path, body, sentence in (
        ("/setup", {"schema": "<View/>"}, "has no BrushLabels or PolygonLabels"),
        ("/predict", {"label_config": SCHEMA}, "'tasks' is no list"),
        (
            "/predict",
            {"label_config": SCHEMA, "tasks": [{"data": {"image": "/data/a.png"}}]},
            "is not in Label Studio at (no address)",
        ),
        ("/predict", [], "the body is no JSON object"),
    ):
        said = client.post(path, json=body)
        assert said.status_code == 400 and sentence in said.json()["error"]
    assert "/predict" not in client.get("/openapi.json").json()["paths"]

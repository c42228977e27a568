"""What the page asks for is compiled before anybody asks."""

import functools
import logging
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from photos import opened
from small_models import PLAIN, write_model

from dit_jax import Segmenter
from dit_jax.demo import server
from dit_jax.demo.app import MOST_POINTS, make_app
from dit_jax.demo.warm import warm
from dit_jax.models.architecture import Injection
from dit_jax.models.dit_sam import Prediction
from dit_jax.models.word_attention import WordAttention

KINDS = {"default": {"injection": Injection.NONE}, "sam": PLAIN}
ONE = np.zeros((1, 1), np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_compiled_by_who_asks(kind, tmp_path, monkeypatch):
    folder, ready = write_model(tmp_path / "model", **KINDS[kind]), threading.Event()
    segmenter = Segmenter.from_pretrained(folder, batch_size=1)
    compiled = shapes_asked(monkeypatch, segmenter._engine.programs)
    client = make_app(segmenter, name="m", ready=ready).test_client()
    assert client.get("/api/model").json["compiling"] is True
    warm(segmenter, ready)
    model = client.get("/api/model").json
    assert model["compiling"] is False
    before = len(compiled)
    picture = opened(client)["id"]
    texts = ["the red star"] * model["reads"] + [None] * (not model["needs_text"])
    for text in texts:
        for count in range(0 if text else 1, MOST_POINTS + 1, 7):
            asked = {"picture": picture, "text": text, "points": [[9, 9, 1]] * count}
            answer = client.post("/api/segment", json=asked).json["id"]
        if text:
            assert client.post("/api/words", json={"answer": answer}).status_code == 200
    assert 0 < before == len(compiled)


def shapes_asked(monkeypatch, programs):
    """Programs and the shapes they are asked for: each other one would be compiled. None is run."""
    seen = set()
    answers = {
        "features": np.zeros((1, 12, 32), np.float32),
        "embed": jnp.zeros((1, 4, 4, 32)),
        "decode": Prediction(*(np.zeros((1, 1, n, n), np.float32) for n in (64, 16)), ONE, None),
        "attention": WordAttention(None, np.zeros((1, 1, 12, 4, 4), np.float32)),
    }

    def run(name, *arguments, multimask=False, **more):
        seen.add((name, multimask, str(jax.tree.map(np.shape, (arguments, more)))))
        return answers[name]

    for name in answers:
        monkeypatch.setattr(programs, name, functools.partial(run, name))
    return seen


def test_a_model_that_cannot_answer_is_ready_too(segmenter, monkeypatch, caplog):
    def fail(*arguments, **how):
        raise ValueError("its weights are damaged.")

    ready = threading.Event()
    monkeypatch.setattr(Segmenter, "__call__", fail)
    with caplog.at_level(logging.WARNING, "dit_jax.demo"):
        warm(segmenter, ready)
    assert ready.is_set() and "nothing was compiled ahead: its weights" in caplog.text


@pytest.mark.parametrize("done", [True, False])
def test_ctrl_c_ends_it_while_it_compiles(done, segmenter, monkeypatch, tmp_path):
    """Python would wait for the compiler's threads to end, and abort the process."""
    codes = []
    monkeypatch.setattr(Segmenter, "from_pretrained", lambda folder, **how: segmenter)
    monkeypatch.setattr(server, "warm", lambda segmenter, ready: ready.set() if done else None)
    interrupted = types.SimpleNamespace(effective_port=1, run=lambda: None)
    monkeypatch.setattr(server, "make_server", lambda segmenter, **how: interrupted)
    monkeypatch.setattr(server.os, "_exit", codes.append)
    server.serve(tmp_path)
    assert codes == ([] if done else [0])

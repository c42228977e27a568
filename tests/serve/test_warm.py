"""What the page asks for is compiled before anybody asks."""

import functools
import itertools
import logging
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from photos import asking, encoded, opened, photo
from small_models import PLAIN, write_model

from dit_jax import Segmenter
from dit_jax.eval.prediction_files import encoded as encoded_mask
from dit_jax.models.architecture import Injection
from dit_jax.models.dit_sam import Prediction
from dit_jax.models.word_attention import WordAttention
from dit_jax.serve.warm import MOST_POINTS, warm

KINDS = {"default": {"injection": Injection.NONE}, "sam": PLAIN}
HALF = np.arange(70) < np.full((48, 1), 35)
ONE = np.zeros((1, 1), np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_compiled_by_who_asks(kind, tmp_path, monkeypatch):
    folder = write_model(tmp_path / "model", **KINDS[kind])
    segmenter = Segmenter.from_pretrained(folder, batch_size=4)
    compiled = shapes_asked(monkeypatch, segmenter._engine.programs)
    client = asking(segmenter, ready=False)
    assert client.get("/readyz").status_code == 503
    model = client.get("/v1/model").json()
    assert model["ready"] is False
    warm(segmenter, client.app.state.desk.served.ready)
    assert client.get("/v1/model").json()["ready"] is True
    assert client.get("/readyz").json() == {"ready": True}
    before = len(compiled)
    pictures = [opened(client, photo(seed))["id"] for seed in range(2)]
    texts = ["the red star"] * model["reads"] + [None] * (not model["needs_text"])
    for text in texts:
        about = (0, 1, 16, 17, MOST_POINTS), (None, [1, 2, 9, 9]), (None, encoded_mask(HALF))
        for count, box, mask in itertools.product(*about):
            if text or count or box or mask:
                points = [[9, 9, 1]] * count
                prompt = {"text": text, "points": points, "box": box, "mask": mask}
                for picture in pictures:
                    asked = {"picture": picture, "prompts": [prompt] * (1 + count % 5)}
                    assert client.post("/v1/segment", json=asked).status_code == 200
        if text:
            asked = {"picture": pictures[0], "text": text}
            assert client.post("/v1/words", json=asked).status_code == 200
            asked["points"] = [[9, 9, 1]] * 17
            assert client.post("/v1/words", json=asked).status_code == 200
    if not model["reads"]:
        files, form = {"image": ("a.png", encoded(photo()))}, {"question": "{}"}
        assert client.post("/v1/everything", files=files, data=form).status_code == 200
    assert 0 < before == len(compiled)


def shapes_asked(monkeypatch, programs):
    """Programs and the shapes they are asked for: each other one would be compiled. None is run."""
    seen = set()
    answers = {
        "features": np.zeros((1, 12, 32), np.float32),
        "embed": np.zeros((1, 4, 4, 32), np.float32),
        "decode": Prediction(*(np.zeros((1, 1, n, n), np.float32) for n in (64, 16)), ONE, None),
        "at_points": (np.zeros((1, 3, 16, 16), np.float32), np.zeros((1, 3), np.float32)),
        "attention": WordAttention(None, np.zeros((1, 1, 12, 4, 4), np.float32)),
    }

    repeated = dict.fromkeys(answers, np.repeat) | {"embed": jnp.repeat}

    def run(name, *arguments, multimask=False, **more):
        seen.add((name, multimask, str(jax.tree.map(np.shape, (arguments, more)))))
        rows = max(map(len, jax.tree.leaves((arguments[1:], more))))
        return jax.tree.map(lambda x: repeated[name](x, rows, axis=0), answers[name])

    for name in answers:
        monkeypatch.setattr(programs, name, functools.partial(run, name))
    return seen


def test_a_model_that_cannot_answer_is_ready_too(segmenter, monkeypatch, caplog):
    def fail(*arguments, **how):
        raise ValueError("its weights are damaged.")

    ready = threading.Event()
    monkeypatch.setattr(Segmenter, "answer", fail)
    with caplog.at_level(logging.WARNING, "dit_jax.serve"):
        warm(segmenter, ready)
    assert ready.is_set() and "nothing was compiled ahead: its weights" in caplog.text

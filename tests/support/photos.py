"""Pictures as people give them: arrays, encoded, sent to the server."""

import io

import cv2
import numpy as np
from PIL import Image


def photo(seed=0, *, height=48, width=70):
    """Smooth enough for JPEG, without any symmetry."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(pixels, kind="PNG", **how):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **how)
    return file.getvalue()


def asking(segmenter, *, name="m", ready=True, **how):
    """A client of a server of its own, in this process."""
    from starlette.testclient import TestClient

    from dit_jax.serve.app import make_app
    from dit_jax.serve.desk import Served

    served = Served(name, segmenter)
    if ready:
        served.ready.set()
    return TestClient(make_app(served, **how), base_url="http://127.0.0.1")


def opened(client, pixels=None):
    """What the server says of a picture that is sent to it."""
    data = encoded(photo() if pixels is None else pixels)
    said = client.post("/v1/pictures", content=data)
    assert said.status_code == 200, said.text
    return said.json()


def read(data):
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture)

"""Pictures as people give them: arrays, encoded, sent to the demo."""

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


def opened(client, pixels=None):
    """What the demo says of a picture that is sent to it."""
    data = encoded(photo() if pixels is None else pixels)
    said = client.post("/api/pictures", data=data)
    assert said.status_code == 200, said.json
    return said.json


def read(data):
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture)

"""Pictures sent to the demo, and what comes back."""

import io

import cv2
import numpy as np
from PIL import Image


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

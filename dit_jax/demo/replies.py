"""What the page is told, as plain dicts for JSON."""

import base64
import dataclasses
import re
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool

from dit_jax.demo.sessions import OpenAnswer, OpenPicture
from dit_jax.predict.explain import Explanation

Json = dict[str, Any]


def of_picture(key: str, shown: OpenPicture, *, texts: tuple[str, ...] = ()) -> Json:
    """`texts` are expressions to try."""
    return {
        "id": key,
        "width": shown.picture.width,
        "height": shown.picture.height,
        "view": list(shown.view),
        "texts": list(texts),
        "drawn": shown.drawn is not None,
    }


def of_answer(key: str, answered: OpenAnswer) -> Json:
    """The mask as a data URL, at the size that the page shows."""
    found = answered.segmentation
    width, height = answered.shown.view
    mask = dataclasses.replace(found, height=height, width=width).mask
    return {
        "id": key,
        "mask": "data:image/png;base64," + base64.b64encode(png(mask)).decode(),
        "share": float(mask.mean()),
        "score": found.score,
        "score_kind": found.score_kind,
        "presence": found.presence,
        "nothing": found.nothing,
        "cut": found.cut,
        "unknown": list(found.unknown),
    }


def of_words(explanation: Explanation) -> Json:
    """Maps as base64 of bytes `[layers, words, h, w]`, of which 255 is the layer's `top`."""
    maps = explanation.maps
    tops = np.maximum(maps.max(axis=(1, 2, 3)), 1e-9)
    levels = np.rint(255 * maps / tops[:, None, None, None]).astype(np.uint8)
    return {
        "words": [
            {"text": word.text, "iou": word.iou, "read": bool(word.tokens)}
            for word in explanation.words
        ],
        "layers": list(explanation.layers),
        "shares": explanation.shares.tolist(),
        "tops": tops.tolist(),
        "grid": list(maps.shape[2:]),
        "content": list(explanation.content),
        "canvas": explanation.canvas,
        "maps": base64.b64encode(levels.tobytes()).decode(),
        "remark": explanation.remark,
    }


def own_size(answered: OpenAnswer) -> bytes:
    """The mask as a PNG of 0 and 255, at the picture's own size.

    Made of a copy: the answer would keep such a mask, and there may be many.
    """
    return png(dataclasses.replace(answered.segmentation).mask)


def file_name(answered: OpenAnswer) -> str:
    """What the download is called: letters and digits of the words."""
    words = re.sub(r"[^a-z0-9]+", "-", (answered.segmentation.text or "").lower())[:40].strip("-")
    return f"mask-{words or 'points'}.png"


def png(mask: Bool[np.ndarray, "h w"]) -> bytes:
    _, data = cv2.imencode(".png", mask.view(np.uint8) * np.uint8(255))
    return data.tobytes()

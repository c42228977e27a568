"""What is told of masks, as the models of `schema`."""

import base64
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool

from dit_jax.eval.prediction_files import encoded
from dit_jax.predict import Found, Segmentation
from dit_jax.predict.explain import Explanation
from dit_jax.predict.label.outlines import outlines
from dit_jax.serve import schema

Mask = Bool[np.ndarray, "H W"]


def of_answer(found: Segmentation, output: str) -> schema.Answer:
    return schema.Answer(
        text=found.text,
        score=found.score,
        score_kind=found.score_kind,
        presence=found.presence,
        nothing=found.nothing,
        cut=found.cut,
        unknown=list(found.unknown),
        **of_mask(found.mask, output),
    )


def of_found(one: Found, output: str) -> schema.Found:
    return schema.Found(
        score=one["predicted_iou"],
        stability=one["stability_score"],
        point=one["point_coords"][0],
        **of_mask(one["segmentation"], output),
    )


def of_mask(mask: Mask, output: str) -> dict[str, Any]:
    share = np.count_nonzero(mask) / mask.size
    return {"share": share, "box": box(mask), "mask": WRITTEN[output](mask)}


def of_words(explanation: Explanation) -> schema.Words:
    maps = explanation.maps
    tops = np.maximum(maps.max(axis=(1, 2, 3)), 1e-9)
    levels = np.rint(255 * maps / tops[:, None, None, None]).astype(np.uint8)
    words = explanation.words
    return schema.Words(
        words=[schema.Word(text=one.text, iou=one.iou, read=bool(one.tokens)) for one in words],
        layers=list(explanation.layers),
        shares=explanation.shares.tolist(),
        tops=tops.tolist(),
        grid=list(maps.shape[2:]),
        content=list(map(int, explanation.content)),
        canvas=explanation.canvas,
        maps=base64.b64encode(levels.tobytes()).decode(),
        remark=explanation.remark,
    )


def box(mask: Mask) -> list[int] | None:
    """Corners around all pixels, the last ones included: [x0, y0, x1, y1]; None without any."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    return [int(n) for n in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]


def polygons(mask: Mask) -> list[list[float]]:
    """Rings [x, y, x, y, …] that fill to the same pixels; a hole is joined by a cut."""
    return [ring.reshape(-1).astype(float).tolist() for ring in outlines(mask)]


def png(mask: Mask) -> str:
    _, data = cv2.imencode(".png", mask.view(np.uint8) * np.uint8(255))
    return base64.b64encode(data.tobytes()).decode()


WRITTEN = {"rle": encoded, "polygon": polygons, "png": png, "box": lambda mask: None}

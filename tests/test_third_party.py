"""Masks that others predicted and published, with their IoUs: do our metrics agree?

`iou` was computed, when the masks were recovered, against the same truths as here and rounded to
six decimals. `published_iou_2dec` is what the authors printed, against the truths they had.
"""

import json
from functools import reduce
from operator import add

import cv2
import numpy as np
import pytest

from dit_jax.data.referent import decode_mask
from dit_jax.eval.metrics import Sums, iou

# pycocotools 2.0.11 hands NumPy 2 an array type without the `copy` keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def predictions(shared):
    """(record, predicted mask, truth) of every published prediction."""
    folder = shared / "data" / "mini_refcoco"
    records = json.loads((folder / "third_party_predictions.json").read_text())["predictions"]
    found = []
    for record in records:
        height, width = record["rle"]["size"]
        predicted = decode_mask(record["rle"]["counts"].encode(), height=height, width=width)
        truth = cv2.imread(str(folder / "masks" / f"{record['ann_id']}.png"), cv2.IMREAD_GRAYSCALE)
        found.append((record, predicted, truth > 0))
    return found


def test_ious_of_published_predictions(predictions):
    assert len(predictions) == 208
    for record, predicted, truth in predictions:
        ours = iou(predicted, truth)
        assert ours == pytest.approx(record["iou"], abs=1e-6), record["ref_id"]
        assert ours == pytest.approx(record["published_iou_2dec"], abs=0.012), record["ref_id"]


@pytest.mark.parametrize("model", ["base", "ours"])
def test_scores_of_published_predictions(predictions, model):
    chosen = [(r, p, t) for r, p, t in predictions if r["model"] == model]
    scores = reduce(add, (Sums.of(p, t) for _, p, t in chosen)).scores()
    stored = np.array([record["iou"] for record, _, _ in chosen])
    assert scores["n"] == 104
    assert scores["mIoU"] == pytest.approx(100 * stored.mean(), abs=1e-4)
    for x in (0.5, 0.6, 0.7, 0.8, 0.9):
        assert scores[f"P@{x}"] == pytest.approx(100 * np.mean(stored > x), abs=1e-9)

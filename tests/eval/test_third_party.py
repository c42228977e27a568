"""Masks that others predicted and published, with their IoUs: do our metrics agree?

`iou` was computed, when the masks were recovered, against the same truths as here and rounded to
six decimals. `published_iou_2dec` is what the authors printed, against the truths they had.
"""

import json

import cv2
import numpy as np
import pytest

from dit_jax.data.pixels import run_lengths
from dit_jax.eval.metrics import iou
from dit_jax.eval.prediction_files import encoded
from dit_jax.eval.protocols import PROTOCOLS
from dit_jax.eval.score import score_file
from dit_jax.eval.truths import TruthInLines

XS = (0.5, 0.6, 0.7, 0.8, 0.9)


@pytest.fixture(scope="module")
def predictions(shared):
    """(record, predicted mask, truth) of every published prediction."""
    folder = shared / "data" / "mini_refcoco"
    records = json.loads((folder / "third_party_predictions.json").read_text())["predictions"]
    found = []
    for record in records:
        height, width = record["rle"]["size"]
        counts = record["rle"]["counts"].encode()
        predicted = run_lengths.decode(counts, height=height, width=width)
        truth = cv2.imread(str(folder / "masks" / f"{record['ann_id']}.png"), cv2.IMREAD_GRAYSCALE)
        found.append((record, predicted, truth > 0))
    return found


def lines_of(predictions, path, *, model=None):
    """The same as JSON lines, with their truths."""
    with path.open("w") as file:
        for number, (record, _, truth) in enumerate(predictions):
            if model in (None, record["model"]):
                line = {
                    "index": number,
                    "image_id": record["image_id"],
                    "text": f"ref {record['ref_id']}",
                    "rle": record["rle"],
                    "truth": encoded(truth),
                }
                file.write(json.dumps(line) + "\n")
    return path


def test_ious_of_published_predictions(predictions):
    assert len(predictions) == 208
    for record, predicted, truth in predictions:
        ours = iou(predicted, truth)
        assert ours == pytest.approx(record["iou"], abs=1e-6), record["ref_id"]
        assert ours == pytest.approx(record["published_iou_2dec"], abs=0.012), record["ref_id"]


def test_each_published_iou_comes_out_of_the_scorer(predictions, tmp_path):
    """One file a prediction: what the command line would print for it."""
    for record, predicted, truth in predictions:
        path = lines_of([(record, predicted, truth)], tmp_path / "one.jsonl")
        scores = score_file(path, TruthInLines(), protocols=["original"])["original"]
        assert scores["oIoU"] == pytest.approx(100 * record["iou"], abs=1e-4)
        assert scores["oIoU"] == pytest.approx(100 * record["published_iou_2dec"], abs=1.2)


@pytest.mark.parametrize("model", ["base", "ours"])
def test_scores_of_published_predictions(predictions, tmp_path, model):
    path = lines_of(predictions, tmp_path / "p.jsonl", model=model)
    names = [name for name in PROTOCOLS if name != "lavt"]  # whose masks are square
    found = score_file(path, TruthInLines(), protocols=names, bootstrap=200)
    stored = np.array([record["iou"] for record, _, _ in predictions if record["model"] == model])
    for name, scores in found.items():
        assert scores["n"] == 104
        assert scores["mIoU"] == pytest.approx(100 * stored.mean(), abs=1e-4)
        n = 104 + 1e-5 if name == "lisa" else 104  # EVF-SAM's
        assert scores["gIoU"] == pytest.approx(scores["mIoU"] * 104 / n, abs=1e-12)
        for x in XS:
            assert scores[f"P@{x}"] == pytest.approx(100 * np.mean(stored > x), abs=1e-9)
        low, high = scores["intervals"]["mIoU"]
        assert low < scores["mIoU"] < high

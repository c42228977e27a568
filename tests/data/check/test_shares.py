"""Percents where pixels are meant: said of a data set whose shapes are all near one corner."""

import cv2
import numpy as np
import own_folders
import pytest

from dit_jax.data.annotations import datasets
from dit_jax.data.check import check

KIND = "shapes that look like shares"


def remarks(folder, *, scale, count=24, side=320):
    """Shapes all over a picture, in numbers from 0 to `scale`."""
    cv2.imwrite(str(folder / "a.png"), np.zeros((side, side + 40, 3), np.uint8))
    rng = np.random.default_rng(0)
    lines = []
    for i, (x, y, w, h) in enumerate(rng.uniform(0.1, 0.45, (count, 4)) * scale):
        shape = {"box": [x, y, w, h]} if i % 2 else {"polygon": [x, y, x + w, y, x + w, y + 2 * h]}
        lines.append({"image": "a.png", "text": "it"} | shape)
    own_folders.lines(folder, *lines)
    report = check(datasets.open_annotations("folder", "", source=folder), progress=False)
    return [problem.text for problem in report.problems if problem.kind == KIND]


def test_percents_are_said(tmp_path):
    (said,) = remarks(tmp_path, scale=75)
    expected = "all 24 polygons and boxes lie within 0 … 100, and no picture has a side below 320"
    assert said.startswith(expected) and said.endswith("Pixels are meant.")


@pytest.mark.parametrize("how", [dict(scale=200), dict(scale=75, count=19), dict(scale=30)])
def test_pixels_are_not(tmp_path, how):
    assert remarks(tmp_path, **how) == []
    assert remarks(tmp_path, scale=75, side=180) == []

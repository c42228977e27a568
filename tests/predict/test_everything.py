"""All masks of a picture, beside Meta's automatic mask generator."""

import functools
import math
import tracemalloc

import numpy as np
import pytest
from small_models import PLAIN, architecture, random_params

from dit_jax import Segmenter
from dit_jax.data import shapes
from dit_jax.predict import everything
from dit_jax.predict.picture import SAM
from dit_jax.weights import directory, hub

LOW = dict(pred_iou_thresh=0.6, stability_score_thresh=0.7, points_per_side=4, points_per_batch=16)
PICTURE = shapes.scene("val", 3, size=150).image()


def mini_sam():
    return directory.read(hub.local("mini_sam"))


def random_sam():
    arch = architecture(**PLAIN)
    return arch, random_params(arch)


def alike(ours, theirs):
    """The same masks in the same order."""
    assert len(ours) == len(theirs) > 0
    for own, other in zip(ours, theirs, strict=True):
        assert own.keys() == other.keys()
        differ = (own["segmentation"] != other["segmentation"]).sum()
        assert differ <= 1e-3 * own["segmentation"].size
        assert own["area"] == own["segmentation"].sum()
        assert own["crop_box"] == other["crop_box"]
        np.testing.assert_allclose(own["point_coords"], other["point_coords"], rtol=1e-6)
        np.testing.assert_allclose(own["bbox"], other["bbox"], atol=1)
        for key in ("predicted_iou", "stability_score"):
            np.testing.assert_allclose(own[key], other[key], atol=2e-3)


def test_masks_that_wait_take_little_memory():
    """A thousand points' answers lie there until the better ones are known: 192 masks of 2 MB."""
    side, rules = 1500, everything.Everything(8, pred_iou_thresh=0.0, stability_score_thresh=0.0)

    def answers(picture, points):
        logits = np.full((len(points), 3, 16, 16), -3, np.float32)
        logits[..., 4:12, 4:12] = 3
        return logits, np.linspace(0, 1, 3 * len(points), dtype=np.float32).reshape(-1, 3)

    tracemalloc.start()
    pixels = np.zeros((side, side, 3), np.uint8)
    opened = functools.partial(SAM.open, size=64, name="x")
    (found,) = rules(pixels, opened, answers, middle=0.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found["area"] == found["segmentation"].sum() > side**2 / 5
    assert peak < 20 * side**2  # with all masks as pixels it was 200


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (mini_sam, {}),
        (mini_sam, dict(crop_n_layers=1, crop_n_points_downscale_factor=2)),
        (mini_sam, dict(min_mask_region_area=40)),
        (random_sam, dict(pred_iou_thresh=0.0, stability_score_thresh=0.3, box_nms_thresh=0.9)),
    ],
)
def test_as_metas_generator(model, settings):
    metas_generator = pytest.importorskip("metas_generator")
    arch, params = model()
    metas_generator.torch.set_num_threads(1)
    theirs = metas_generator.generator(arch, params, **LOW | settings).generate(PICTURE)
    ours = Segmenter(arch, params, None).everything(PICTURE, **LOW | settings)
    alike(ours, theirs)


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [(97, 151), (640, 480), (33, 32)])
def test_crops_cover_the_picture(layers, size):
    width, height = size
    crops = everything.Everything(crop_n_layers=layers).crops(width=width, height=height)
    assert len(crops) == sum(4**n for n in range(layers + 1))
    for layer in range(layers + 1):
        seen = np.zeros((height, width), bool)
        for (x0, y0, x1, y1), n in crops:
            assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
            seen[y0:y1, x0:x1] |= n == layer
        assert seen.all()


def test_of_boxes_that_overlap_the_best_stays():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 10, 10], [20, 20, 30, 30], [5, 5, 5, 5], [5, 5, 5, 5]])
    scores = np.array([0.5, 0.6, 0.7, 0.1, 0.1], np.float32)
    assert everything.kept(boxes, scores, limit=0.89) == [2, 1, 3, 4]
    assert everything.kept(boxes, scores, limit=0.9) == [2, 1, 0, 3, 4]  # 0.9 is not above it
    assert everything.kept(np.zeros((0, 4), int), np.zeros(0, np.float32), limit=0.5) == []


def test_small_holes_and_pieces():
    mask = np.zeros((20, 20), bool)
    mask[2:12, 2:12] = True
    mask[5:7, 5:7] = False  # a hole of 4 pixels
    mask[15, 15] = True  # a piece of 1
    filled, changed = everything.without_small(mask, 5, holes=True)
    assert changed and filled[2:12, 2:12].all() and filled[15, 15]
    whole, changed = everything.without_small(filled, 5, holes=False)
    assert changed and whole.sum() == 100
    assert everything.without_small(whole, 5, holes=False) == (whole, False)
    least, changed = everything.without_small(filled, 1000, holes=False)
    assert changed and least.sum() == 100  # where all are small, the largest stays


def test_stability():
    logits = np.array([[-2.0, -0.5, 0.5, 2.0]], np.float32)
    assert everything.stability(logits, 0.0, offset=1.0) == 1 / 3
    assert math.isnan(everything.stability(logits, 9.0, offset=1.0))


def test_what_is_refused():
    with pytest.raises(ValueError, match="this model reads text; expected plain SAM"):
        arch = architecture()
        Segmenter(arch, random_params(arch), None).everything(PICTURE)
    plain = Segmenter(*random_sam(), None)
    with pytest.raises(ValueError, match="points_per_side is 0; expected 1 or more"):
        plain.everything(PICTURE, points_per_side=0)
    with pytest.raises(ValueError, match="box_nms_thresh is nan; expected a number"):
        plain.everything(PICTURE, box_nms_thresh=math.nan)
    with pytest.raises(ValueError, match="crop_overlap_ratio is 1.5; expected below 1"):
        plain.everything(PICTURE, crop_overlap_ratio=1.5)
    with pytest.raises(TypeError, match="points_per_sid"):
        plain.everything(PICTURE, points_per_sid=3)

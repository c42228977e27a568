"""Plain SAM prompts against live PyTorch, from a file to masks at the picture's size."""

import numpy as np
import pytest
from closeness import assert_close
from live_sam import live_sam
from peers import torch
from PIL import Image

from dit_jax import Segmenter
from dit_jax.data.pixels import stretch
from dit_jax.eval.prediction_files import encoded

SIZE = 128
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
POINT, POINTS, BOX = [(30, 20, 1)], [(30, 20, 1), (90, 60, 0), (5.5, 70.25, 1)], (10, 5, 120.5, 80)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    theirs, folder = live_sam(tmp_path_factory.mktemp("sam"))
    return theirs, Segmenter.from_pretrained(folder, batch_size=2)


@pytest.fixture(scope="module")
def photo():
    """Wider than the canvas, and of an odd ratio."""
    noise = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((157, 101), Image.Resampling.BICUBIC))


def metas_way(theirs, photo, *, points=(), box=None, mask=None, multimask):
    """As `SamPredictor` does it, spelled out: preprocess, prompts, postprocess."""
    height, width = photo.shape[:2]
    scale = SIZE / max(height, width)
    h, w = int(height * scale + 0.5), int(width * scale + 0.5)
    small = np.asarray(Image.fromarray(photo).resize((w, h), Image.Resampling.BILINEAR))
    x = (torch.tensor(small, dtype=torch.float32) - torch.tensor(MEAN)) / torch.tensor(STD)
    x = torch.nn.functional.pad(x.permute(2, 0, 1)[None], (0, SIZE - w, 0, SIZE - h))
    factor = torch.tensor([w / width, h / height])
    with torch.no_grad():
        said = theirs(
            pixel_values=x,
            input_points=torch.tensor([[[p[:2] for p in points]]]) * factor if points else None,
            input_labels=torch.tensor([[[p[2] for p in points]]]) if points else None,
            input_boxes=(torch.tensor([[box]]).reshape(2, 2) * factor).reshape(1, 1, 4)
            if box
            else None,
            input_masks=None if mask is None else torch.tensor(mask)[None, None],
            multimask_output=multimask,
        )
    how = dict(mode="bilinear", align_corners=False)
    full = torch.nn.functional.interpolate(said.pred_masks[0], (SIZE, SIZE), **how)
    logits = torch.nn.functional.interpolate(full[..., :h, :w], (height, width), **how)
    return logits[0], said.iou_scores[0, 0]


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("prompt", ["point", "points", "box", "points and box"])
def test_masks_and_scores(pair, photo, prompt, multimask):
    theirs, segmenter = pair
    points = {"point": POINT, "points": POINTS, "points and box": POINTS}.get(prompt, [])
    box = BOX if "box" in prompt else None
    logits, scores = metas_way(theirs, photo, points=points, box=box, multimask=multimask)
    found = segmenter(photo, points=points, box=box, multimask=multimask)
    assert len(found) == (3 if multimask else 1)
    for one, expected, score in zip(found, logits, scores, strict=True):
        assert one.mask.shape == photo.shape[:2]
        assert one.score == pytest.approx(float(score), rel=1e-3, abs=1e-4)
        assert_close(one.probability, torch.sigmoid(expected), "probability")
        sure = expected.abs() > 1e-3 * expected.abs().max()
        np.testing.assert_array_equal(one.mask[sure], (expected > 0).numpy()[sure])
        assert sure.float().mean() > 0.99
    assert any(one.mask.any() and not one.mask.all() for one in found)


def test_an_earlier_answer_as_a_prompt(pair, photo):
    """With the clicks that correct it, as SAM is asked again."""
    theirs, segmenter = pair
    before = segmenter(photo, points=POINT, multimask=True)[1]
    given = dict(points=POINTS, mask=before.low_res, multimask=False)
    logits, (score,) = metas_way(theirs, photo, **given)
    (found,) = segmenter(photo, points=POINTS, mask=before)
    assert_close(found.probability, torch.sigmoid(logits[0]), "probability")
    assert found.score == pytest.approx(float(score), rel=1e-3, abs=1e-4)


def stretched(logits, photo):
    return stretch(logits, height=photo.shape[0], width=photo.shape[1])


def test_a_drawn_mask_as_a_prompt(pair, photo, tmp_path):
    """Bool, as a picture, or as run lengths; where the canvas is no picture it is outside."""
    theirs, segmenter = pair
    drawn = np.zeros(photo.shape[:2], bool)
    drawn[20:70, 30:120] = True
    Image.fromarray(drawn).save(tmp_path / "drawn.png")
    said = [
        segmenter(photo, points=POINT, mask=mask)[0]
        for mask in (drawn, drawn * np.uint8(255), tmp_path / "drawn.png", encoded(drawn))
    ]
    for one in said[1:]:
        np.testing.assert_array_equal(one.logits, said[0].logits)
    scale = SIZE / 157  # of the picture on the canvas; the mask's side is a quarter of that
    low = np.full((SIZE // 4, SIZE // 4), -np.log(999), np.float32)
    top, bottom, left, right = (n * scale / 4 for n in (20, 70, 30, 120))
    low[int(np.ceil(top)) : int(bottom), int(np.ceil(left)) : int(right)] = np.log(999)
    logits, _ = metas_way(theirs, photo, points=POINT, mask=low, multimask=False)
    (without,) = segmenter(photo, points=POINT)
    ours, unmasked = (stretched(one.logits, photo) for one in (said[0], without))
    off, moved = (np.abs(ours - x).mean() for x in (logits[0].numpy(), unmasked))
    assert off < 0.1 * moved  # pixels of its border are all that differs
    for mask, sentence in (
        (
            drawn[:50],
            r"the mask has the shape \(50, 157\); expected that of the picture, \(101, 157",
        ),
        (drawn * 1.0, "a mask is of type float64; expected an earlier answer, a bool or uint8 arr"),
        ([[1]], "a mask is of type list; expected"),
    ):
        with pytest.raises(ValueError, match=sentence):
            segmenter(photo, mask=mask)


def test_many_prompts_of_many_pictures(pair, photo):
    """A picture's embedding is computed once; three masks a picture come in order."""
    _, segmenter = pair
    images = [photo, photo[:, ::-1], photo]
    prompts = [POINT, POINTS, POINTS[:2]]
    found = segmenter(images, points=prompts, multimask=True)
    alone = [
        one
        for image, points in zip(images, prompts, strict=True)
        for one in segmenter(image, points=points, multimask=True)
    ]
    assert len(found) == len(alone) == 9
    for one, other in zip(found, alone, strict=True):
        np.testing.assert_allclose(one.probability, other.probability, atol=1e-4)
    assert [one.name for one in found[::3]] == ["picture 1", "picture 2", "picture 3"]


def test_an_empty_corner_of_the_canvas_is_never_part_of_a_mask(pair):
    _, segmenter = pair
    for size in ((1, 1), (1, 300), (300, 1)):
        (found,) = segmenter(np.zeros((*size, 3), np.uint8), points=[(0, 0, 1)])
        assert found.mask.shape == size


def test_text_is_refused(pair, photo):
    _, segmenter = pair
    with pytest.raises(ValueError, match=r"plain SAM, which reads no text \('the cup'\); give p"):
        segmenter(photo, "the cup", points=POINT)
    with pytest.raises(
        ValueError, match="nothing is asked about the picture; expected points, a box or a"
    ):
        segmenter(photo)

"""Each protocol against a slow statement of its definition, pixel by pixel in float64."""

import math

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dit_jax.data.transforms import content_box
from dit_jax.eval.protocols import PROTOCOLS, THRESHOLD, rows

SIZE = 32
PICTURES = {  # height, width
    "landscape": (30, 40),
    "portrait": (40, 30),
    "square, as the canvas": (32, 32),
    "one row": (1, 45),
    "one column": (45, 1),
    "one pixel": (1, 1),
    "wide": (5, 70),
    "tall": (70, 5),
    "small": (9, 11),
    "large": (97, 60),
}
BLOBS = ("smooth", "rough", "empty", "full", "one pixel of the canvas")


def logits_of(blob: str, content, rng) -> np.ndarray:
    """Logits on a canvas; the padding is foreground, so that a protocol must leave it out."""
    top, left, h, w = content
    logits = np.full((SIZE, SIZE), 5.0, np.float32)
    noise = rng.normal(size=(SIZE, SIZE)).astype(np.float32)
    inside = {
        "smooth": 20 * cv2.GaussianBlur(noise, (0, 0), 3),
        "rough": 3 * noise,
        "empty": np.full_like(noise, -5),
        "full": np.full_like(noise, 5),
        "one pixel of the canvas": np.full_like(noise, -5),
    }[blob]
    logits[top : top + h, left : left + w] = inside[:h, :w]
    if blob.startswith("one pixel"):
        logits[top + h // 2, left + w // 2] = 5
    return logits


def taps(out: int, n: int) -> list[list[tuple[int, float]]]:
    """The input samples of each output sample, with their weights: half-pixel centres."""
    result = []
    for i in range(out):
        at = min(max((i + 0.5) * n / out - 0.5, 0), n - 1)
        low = math.floor(at)
        result.append([(low, 1 - (at - low)), (min(low + 1, n - 1), at - low)])
    return result


def slow_resize(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, columns = taps(height, picture.shape[0]), taps(width, picture.shape[1])
    picture = picture.astype(np.float64).tolist()
    return np.array(
        [[sum(a * b * picture[y][x] for y, a in r for x, b in c) for c in columns] for r in rows]
    )


def slow_dit(logits, content, height, width):
    """The value and the threshold on it."""
    top, left, h, w = content
    canvas = 1 / (1 + np.exp(-logits.astype(np.float64))) > 0.35
    return slow_resize(canvas[top : top + h, left : left + w], height, width), 0.0


def slow_original(logits, content, height, width):
    top, left, h, w = content
    resized = slow_resize(logits[top : top + h, left : left + w], height, width)
    return 1 / (1 + np.exp(-resized)), 0.35


SLOW = {"dit": slow_dit, "original": slow_original}


def test_every_protocol_has_a_slow_statement():
    assert SLOW.keys() == PROTOCOLS.keys()


@pytest.mark.parametrize("blob", BLOBS)
@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_protocol_equals_its_definition(protocol, picture, blob):
    height, width = PICTURES[picture]
    rng = np.random.default_rng([height, width, BLOBS.index(blob)])
    content = content_box(height, width, SIZE)
    logits = logits_of(blob, content, rng)
    truth = rng.random((height, width)) < 0.5
    pair = PROTOCOLS[protocol](logits, truth, content=content, threshold=THRESHOLD)
    assert pair.predicted.shape == (height, width)
    assert pair.predicted.dtype == bool
    np.testing.assert_array_equal(pair.truth, truth)
    value, threshold = SLOW[protocol](logits, content, height, width)
    # A value that only rounding puts on one side of the threshold may lie on either.
    decided = np.abs(value - threshold) > 1e-5
    decided |= value == threshold
    np.testing.assert_array_equal(pair.predicted[decided], (value > threshold)[decided])
    assert decided.mean() > 0.99
    if blob in ("empty", "full"):
        assert (pair.predicted == (blob == "full")).all()


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_threshold_is_a_probability(protocol, threshold):
    logits = np.linspace(-4, 4, SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE)
    truth = np.ones((SIZE, SIZE), bool)
    pair = PROTOCOLS[protocol](logits, truth, content=(0, 0, SIZE, SIZE), threshold=threshold)
    np.testing.assert_array_equal(pair.predicted, 1 / (1 + np.exp(-logits)) > threshold)


def test_dit_dilates_what_original_keeps():
    logits = np.full((SIZE, SIZE), -5, np.float32)
    logits[12:20, 12:20] = 5
    truth = np.zeros((4 * SIZE, 4 * SIZE), bool)
    truth[48:80, 48:80] = True
    content = (0, 0, SIZE, SIZE)
    areas = {
        name: PROTOCOLS[name](logits, truth, content=content, threshold=THRESHOLD).predicted.sum()
        for name in ("dit", "original")
    }
    # Beyond each edge, two subpixels still lie between an inner sample and an outer one.
    assert areas["dit"] == (32 + 4) ** 2
    assert areas["original"] == 32**2 - 4  # the corners are rounded


@pytest.mark.parametrize("picture", PICTURES)
def test_opencv_resizes_as_pytorch_does(picture):
    height, width = PICTURES[picture]
    h, w = content_box(height, width, 512)[2:]
    x = np.random.default_rng(0).uniform(-1, 1, size=(h, w)).astype(np.float32)
    ours = cv2.resize(x, (10 * width, 10 * height), interpolation=cv2.INTER_LINEAR)
    back = cv2.resize(x, (width, height), interpolation=cv2.INTER_LINEAR)
    for result in (ours, back):
        # In float64, because PyTorch computes the positions of samples in the tensor's own type.
        theirs = F.interpolate(
            torch.from_numpy(x).double()[None, None],
            size=result.shape,
            mode="bilinear",
            align_corners=False,
        )[0, 0].numpy()
        # OpenCV computes them in float32: near sample 512, one is off by up to 3e-5 of a sample.
        np.testing.assert_allclose(result, theirs, atol=1e-5, rtol=0)


def test_unknown_protocol_is_named_with_the_nearest():
    with pytest.raises(ValueError, match=r"'orignal' \(did you mean 'original'\?\).*dit, original"):
        rows(["dit", "orignal"])
    with pytest.raises(ValueError, match="no protocol is named"):
        rows([])


@pytest.mark.parametrize("threshold", [0.0, 1.0, 35.0, -0.35])
def test_threshold_must_be_a_probability(threshold):
    with pytest.raises(ValueError, match="between 0 and 1"):
        rows(["dit"], threshold=threshold)

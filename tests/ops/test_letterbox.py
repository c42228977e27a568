"""The letterbox on the device against the one of the input pipeline, which OpenCV computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dit_jax.data.pixels import transforms
from dit_jax.ops import letterbox

CANVAS = 64
SIZES = [
    (1, 1),
    (1, 90),
    (90, 1),
    (48, 64),
    (64, 64),
    (128, 128),
    (128, 96),
    (33, 77),
    (90, 21),
    (127, 128),
]
BOX = (128, 128)


def padded(image):
    out = np.full((*BOX, *image.shape[2:]), 77, image.dtype)  # never to be seen
    out[: image.shape[0], : image.shape[1]] = image
    return out


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


@pytest.mark.parametrize("canvas", [64, 512, 1024])
def test_content_box_at_every_size(canvas):
    """Halves included: exact whole numbers round as Python rounds floats."""
    height, width = (x.ravel() for x in np.mgrid[1:700:3, 1:900:7])
    sizes = np.stack([height, width], axis=1).astype(np.int32)
    found = np.asarray(letterbox.content_box(jnp.asarray(sizes), canvas))
    for size, box in list(zip(sizes, found, strict=True))[:: 7 if canvas > 64 else 1]:
        assert tuple(box) == transforms.content_box(*map(int, size), canvas), size


def test_halves_round_to_even():
    sizes = [(425, 640), (435, 640), (5, 640), (15, 640), (640, 445)]
    found = letterbox.content_box(jnp.asarray(sizes), 64)
    assert [tuple(box) for box in np.asarray(found)] == [
        transforms.content_box(*size, 64) for size in sizes
    ]


@pytest.mark.parametrize("canvas", [352, 416, 448, 480])
def test_the_host_rounds_as_the_device_does(canvas):
    """At these canvases a ratio of floats is a row off: 640x45, 640x110, 704x143, 384x114."""
    sizes = [(long, short) for long in (320, 384, 640, 704, 832) for short in range(1, long)]
    found = letterbox.content_box(jnp.asarray(sizes), canvas)
    hosts = [transforms.content_box(*size, canvas) for size in sizes]
    np.testing.assert_array_equal(found, hosts)
    ratios = [round(short * (canvas / long)) for long, short in sizes]
    assert (np.maximum(ratios, 1) != np.asarray(found)[:, 3]).any()  # or nothing here could fail


def test_letterbox(pictures):
    """Within one level of OpenCV, and that in one byte of two hundred at most."""
    size = jnp.asarray(SIZES)
    content = letterbox.content_box(size, CANVAS)
    batch = np.stack([padded(image) for image in pictures])
    found = np.asarray(jax.jit(letterbox.letterbox, static_argnums=3)(batch, size, content, CANVAS))
    for image, canvas in zip(pictures, found, strict=True):
        expected, _ = transforms.letterbox(image, CANVAS)
        off = np.abs(canvas.astype(int) - expected.astype(int))
        assert off.max() <= 1 and np.count_nonzero(off) <= off.size / 200, image.shape


def test_restore():
    """OpenCV's positions are float32, off by up to 64·2⁻²⁴ pixels; ours are exact."""
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((len(SIZES), CANVAS, CANVAS)).astype(np.float32)
    size = jnp.asarray(SIZES)
    content = letterbox.content_box(size, CANVAS)
    found, within = jax.jit(letterbox.restore, static_argnums=3)(logits, size, content, BOX)
    for row, (height, width) in enumerate(SIZES):
        box = tuple(int(side) for side in content[row])
        expected = transforms.restore(logits[row], box, height=height, width=width)
        np.testing.assert_allclose(found[row, :height, :width], expected, rtol=0, atol=2e-5)
        inside = np.zeros(BOX, bool)
        inside[:height, :width] = True
        np.testing.assert_array_equal(within[row], inside)

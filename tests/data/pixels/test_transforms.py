"""Letterbox, its inverse, and augmentation."""

import cv2
import numpy as np
import pytest

from dit_jax.data.pixels.transforms import (
    UNCHANGED,
    Augmentation,
    augment,
    content_box,
    jitter_colour,
    letterbox,
    place,
    resize,
    restore,
    swap_left_right,
)

ONLY_FLIP = Augmentation(scales=(1.0,), jitter_p=0.0, flip_p=1.0)


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def disc(height, width):
    y, x = np.mgrid[:height, :width]
    inside = (y - height * 0.6) ** 2 + (x - width * 0.3) ** 2 < (min(height, width) / 5) ** 2
    return inside.astype(np.uint8) * 255


def augmented(image, mask, **how):
    return augment(lambda to: (resize(image, to), resize(mask, to)), mask.shape, **how)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (64, 0, 384, 512)),
        ((640, 427), (0, 85, 512, 342)),
        ((427, 640), (85, 0, 342, 512)),
        ((426, 640), (85, 0, 341, 512)),  # an odd gap: the smaller half is on top
        ((33, 33), (0, 0, 512, 512)),
        ((1, 2000), (255, 0, 1, 512)),  # never thinner than a pixel
    ],
)
def test_content_box(size, expected):
    assert content_box(*size, 512) == expected


@pytest.mark.parametrize("size", [128, 512])
def test_long_side_follows_the_scales(size):
    longs = [max(content_box(300, 400, size, scale=s)[2:]) for s in Augmentation().scales]
    assert longs == [long * size // 512 for long in (320, 352, 384, 416, 448, 480, 512)]


def test_letterbox_pads_with_zeros_around_the_resized_picture():
    image = np.maximum(picture(120, 200), 1)
    canvas, (top, left, h, w) = letterbox(image, 96)
    assert canvas.shape == (96, 96, 3) and (top, left, h, w) == (19, 0, 58, 96)
    np.testing.assert_array_equal(canvas[top : top + h], cv2.resize(image, (w, h)))
    assert not canvas[:top].any() and not canvas[top + h :].any()


@pytest.mark.parametrize(("height", "width"), [(480, 640), (640, 427), (300, 300), (97, 333)])
def test_restore_inverts_the_letterbox(height, width):
    mask = disc(height, width)
    canvas, content = letterbox(mask, 256)
    logits = canvas.astype(np.float32) / 255 - 0.5
    back = restore(logits, content, height=height, width=width) > 0
    truth = mask > 0
    assert back.shape == truth.shape
    assert (back & truth).sum() / (back | truth).sum() > 0.97


def test_restore_is_exact_where_nothing_is_resized():
    mask = disc(40, 64)
    canvas, content = letterbox(mask, 64)
    np.testing.assert_array_equal(restore(canvas, content, height=40, width=64), mask)


def test_unchanged_is_the_letterbox():
    image, mask = picture(90, 70), disc(90, 70)
    rng = np.random.default_rng(0)
    out = augmented(image, mask, text="left", rng=rng, size=64, augmentation=UNCHANGED)
    canvas, content = letterbox(image, 64)
    np.testing.assert_array_equal(place(out.image, out.content, size=64), canvas)
    np.testing.assert_array_equal(place(out.mask, out.content, size=64), letterbox(mask, 64)[0])
    assert (out.content, out.text) == (content, "left")


def test_flip_mirrors_picture_mask_and_text():
    image, mask = picture(60, 80), disc(60, 80)
    rng = np.random.default_rng(0)
    out = augmented(image, mask, text="cup on the left", rng=rng, size=80, augmentation=ONLY_FLIP)
    np.testing.assert_array_equal(out.image, image[:, ::-1])
    np.testing.assert_array_equal(out.mask, mask[:, ::-1])
    assert out.text == "cup on the right"


def test_augment_is_a_function_of_its_generator():
    image, mask = picture(60, 80), disc(60, 80)
    augmentation = Augmentation(blur_p=0.5)

    def run(seed):
        rng = np.random.default_rng(seed)
        return augmented(image, mask, text="left", rng=rng, size=96, augmentation=augmentation)

    for seed in range(8):
        one, two = run(seed), run(seed)
        np.testing.assert_array_equal(one.image, two.image)
        np.testing.assert_array_equal(one.mask, two.mask)
        assert (one.content, one.text) == (two.content, two.text)
    assert len({run(seed).image.tobytes() for seed in range(8)}) == 8


def test_padding_stays_zero_and_all_scales_and_flips_occur():
    image, mask = np.full((50, 100, 3), 200, np.uint8), disc(50, 100)
    rng = np.random.default_rng(0)
    augmentation = Augmentation(blur_p=1.0)
    longs, texts = set(), set()
    for _ in range(60):
        out = augmented(image, mask, text="left", rng=rng, size=64, augmentation=augmentation)
        top, left, h, w = out.content
        outside = np.ones((64, 64), bool)
        outside[top : top + h, left : left + w] = False
        canvas, soft = (place(x, out.content, size=64) for x in (out.image, out.mask))
        assert not canvas[outside].any() and not soft[outside].any()
        assert canvas[~outside].all()
        longs.add(w)
        texts.add(out.text)
    assert longs == {40, 44, 48, 52, 56, 60, 64} and texts == {"left", "right"}


def test_jitter_matches_its_definition_in_floating_point():
    image = picture(32, 40)
    for seed in range(10):
        got = jitter_colour(image, rng=np.random.default_rng(seed), strength=0.4)
        expected = _jitter_in_float(image, np.random.default_rng(seed))
        assert np.abs(got.astype(float) - expected).max() < 2  # roundings, each scaled on
        assert abs((got - expected).mean()) < 0.5  # and none of them leans to one side


def test_no_jitter_leaves_the_picture():
    image = picture(32, 40)
    got = jitter_colour(image, rng=np.random.default_rng(0), strength=0.0)
    np.testing.assert_array_equal(got, image)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("left man", "right man"),
        ("the Right of the LEFT one", "the Left of the RIGHT one"),
        ("leftmost, right-most", "rightmost, left-most"),
        ("lefthand side; right-hand side", "righthand side; left-hand side"),
        ("rightest lefty topleft farright", "leftest righty topright farleft"),
        ("Leftmost chair", "Rightmost chair"),
        ("man's left, 2nd from right.", "man's right, 2nd from left."),
        (
            "bright upright leftover copyright frightened",
            "bright upright leftover copyright frightened",
        ),
        ("middle", "middle"),
        ("leftward, leftwards, rightwards", "rightward, rightwards, leftwards"),
        ("midleft middleright centerleft", "midright middleleft centerright"),
        ("leftcorner, left_man, the_right one", "rightcorner, right_man, the_left one"),
        ("left2 man, 2right, from left2right", "right2 man, 2left, from right2left"),
        ("guy on rhs, LHS one, rhsx", "guy on lhs, RHS one, rhsx"),
        ("leftmiddle rightcenter leftupper", "rightmiddle leftcenter rightupper"),
    ],
)
def test_swap_left_right(text, expected):
    assert swap_left_right(text) == expected
    assert swap_left_right(expected) == text


@pytest.mark.parametrize(
    "wrong", [{"scales": ()}, {"scales": (1.5,)}, {"jitter": 2.0}, {"flip_p": -0.1}]
)
def test_refuses_impossible_settings(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .*, expected"):
        Augmentation(**wrong)


def _jitter_in_float(image, rng):
    x = image.astype(float)
    luma = np.array([0.299, 0.587, 0.114])
    for change in rng.permutation(3):
        f = rng.uniform(0.6, 1.4)
        grey = (x @ luma)[..., None]
        x = (f * x, f * x + (1 - f) * grey.mean(), f * x + (1 - f) * grey)[change]
        x = np.clip(x, 0, 255)
    return x

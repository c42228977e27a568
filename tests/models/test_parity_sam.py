"""Live parity with `transformers`' SAM: random weights, small sizes, every prompt."""

import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close
from live_sam import live_sam
from peers import torch

import dit_jax
from dit_jax.models.architecture import Injection


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The same random SAM in PyTorch and in JAX."""
    theirs, folder = live_sam(tmp_path_factory.mktemp("sam"))
    return theirs, dit_jax.load(folder)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).standard_normal((2, 128, 128, 3), np.float32)


def test_inferred(pair):
    arch = pair[1].arch
    assert arch.vit.window == 3 and arch.vit.global_blocks == (1,) and arch.vit.heads == 3
    assert arch.windowed and arch.bert is None and arch.injection == Injection.NONE
    assert arch.image_size == 128


def test_windowed_encoder(pair, image):
    """An 8×8 grid in windows of 3 is padded to 9×9."""
    theirs, ours = pair
    with torch.no_grad():
        expected = theirs.get_image_embeddings(torch.from_numpy(image).permute(0, 3, 1, 2))
    assert_close(ours.encode_image(image), expected.permute(0, 2, 3, 1), "image embeddings")


PROMPTS = ["point", "points", "box", "points and box", "point and mask", "box and mask"]


# Every prompt once, and `make proof` the other way too.
@pytest.mark.parametrize(
    ("prompt", "multimask"),
    [
        pytest.param(prompt, multimask, marks=() if i % 2 == multimask else pytest.mark.proof)
        for i, prompt in enumerate(PROMPTS)
        for multimask in (False, True)
    ],
)
def test_prompts(pair, image, prompt, multimask):
    theirs, ours = pair
    rng = np.random.default_rng(1)
    embedding = rng.standard_normal((2, 8, 8, 256), np.float32)
    count = 3 if "points" in prompt else 1
    coords = rng.uniform(0, 128, (2, count, 2)).astype(np.float32)
    labels = rng.integers(0, 2, (2, count))
    boxes = np.sort(rng.uniform(0, 128, (2, 2, 2)), axis=1).reshape(2, 4).astype(np.float32)
    masks = rng.standard_normal((2, 32, 32, 1), np.float32)
    given = {"coords": "point" in prompt, "boxes": "box" in prompt, "masks": "mask" in prompt}
    with torch.no_grad():
        expected = theirs(
            image_embeddings=torch.from_numpy(embedding).permute(0, 3, 1, 2),
            input_points=torch.from_numpy(coords)[:, None] if given["coords"] else None,
            input_labels=torch.from_numpy(labels)[:, None] if given["coords"] else None,
            input_boxes=torch.from_numpy(boxes)[:, None] if given["boxes"] else None,
            input_masks=torch.from_numpy(masks).permute(0, 3, 1, 2) if given["masks"] else None,
            multimask_output=multimask,
        )
    actual = ours.decode(
        jnp.asarray(embedding),
        points=(coords, labels) if given["coords"] else None,
        boxes=boxes if given["boxes"] else None,
        masks=masks if given["masks"] else None,
        multimask=multimask,
    )
    assert_close(actual.low_res_logits, expected.pred_masks[:, 0], "low-resolution masks")
    assert_close(actual.iou, expected.iou_scores[:, 0], "predicted IoU")
    assert actual.logits.shape == (2, 3 if multimask else 1, 128, 128)


def test_padding_labels_are_ignored(pair):
    """A point with label −1 is the padding that SAM itself adds."""
    ours = pair[1]
    embedding = jnp.ones((1, 8, 8, 256))
    coords, labels = np.array([[[40.0, 60.0], [9.0, 9.0]]], np.float32), np.array([[1, -1]])
    sparse = ours.prompt_encoder.sparse((coords, labels), None, grid=(8, 8))
    alone = ours.prompt_encoder.sparse((coords[:, :1], labels[:, :1]), None, grid=(8, 8))
    np.testing.assert_array_equal(sparse[:, 1], alone[:, 1])
    assert ours.decode(embedding, points=(coords, labels)).iou.shape == (1, 1)

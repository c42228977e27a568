"""A model directory with int8 weights: asked like any other, a quarter as large, never trained."""

import dataclasses

import jax
import numpy as np
import pytest
from exporting import BERT, SMALL, TEXTS, VIT, drawn, random_params, runner

from dit_jax.config import Config, Init, Mesh
from dit_jax.configs import quickstart
from dit_jax.data.shapes.dataset import VOCAB
from dit_jax.eval.metrics import iou
from dit_jax.export import formats
from dit_jax.models import params as parameters
from dit_jax.models.architecture import Architecture, Injection
from dit_jax.predict import Segmenter
from dit_jax.train import model as models
from dit_jax.train import trained
from dit_jax.train.placement import sharding
from dit_jax.weights import directory, packs

WIDE = dict(vit=dataclasses.replace(VIT, width=128), bert=dataclasses.replace(BERT, width=128))
ARCH = Architecture(**WIDE, injection=Injection.LAYER_WISE, presence=True, **SMALL)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    directory.save(place / "float32", ARCH, random_params(ARCH), vocab=VOCAB)
    formats.export(place / "float32", place / "int8", form="int8")
    return place


def size(folder, name=directory.WEIGHTS):
    return (folder / name).stat().st_size


def test_it_answers_as_before_from_a_third_of_the_bytes(folders):
    """A small model has more beside its matrices than a large one, which comes to a quarter."""
    whole, rounded = (Segmenter.from_pretrained(folders / n) for n in ("float32", "int8"))
    assert rounded.arch == dataclasses.replace(ARCH, weights="int8")
    assert size(folders / "int8") < size(folders / "float32") / 2.5
    image = drawn(48, 64)
    for one, other in zip(whole(image, TEXTS), rounded(image, TEXTS), strict=True):
        middle = np.median(one.logits)
        assert iou(other.logits > middle, one.logits > middle) > 0.98
        assert 0 < np.abs(other.logits - one.logits).max() < 0.1 * np.abs(one.logits).max()
    with pytest.raises(ValueError, match="what is given does not fit the model: .*int8_scale"):
        rounded.replace_params(directory.read(folders / "float32")[1])


@pytest.mark.proof
def test_it_is_exported_again(folders, tmp_path):
    formats.export(folders / "int8", tmp_path / "again", form="safetensors")
    same = [
        (folder / directory.WEIGHTS).read_bytes()
        for folder in (folders / "int8", tmp_path / "again")
    ]
    assert same[0] == same[1]
    formats.export(folders / "int8", tmp_path / "jax", form="stablehlo")
    formats.export(folders / "float32", tmp_path / "whole", form="stablehlo")
    assert (
        size(tmp_path / "jax", "segment.stablehlo")
        < size(tmp_path / "whole", "segment.stablehlo") / 2
    )
    image = drawn(48, 64)
    said = runner(tmp_path / "jax").Segmenter(tmp_path / "jax")(image, TEXTS)
    expected = Segmenter.from_pretrained(folders / "int8")(image, TEXTS)
    for mask, other in zip(said["mask"], expected, strict=True):
        assert iou(mask, other.mask) >= 0.999


def test_it_is_not_trained_or_packed(folders):
    refused = "int8 holds int8 weights, which answer questions but are not trained, converted or"
    with pytest.raises(ValueError, match=refused):
        models.first_params(Init(model=str(folders / "int8"), sam="", bert=""), ARCH, seed=0)
    with pytest.raises(ValueError, match=refused):
        packs.make(folders / "int8", folders / "float32")


def test_a_scale_of_another_shape_is_refused(folders, tmp_path):
    arch, params = directory.read(folders / "int8")
    kernel = params["image_encoder"]["blocks"]["0"]["attn"]["qkv"]
    kernel["kernel"] = dataclasses.replace(kernel["kernel"], scale=np.ones((1, 1), np.float32))
    directory.save(tmp_path / "broken", arch, params, vocab=VOCAB)
    with pytest.raises(ValueError, match=r"of another shape: \S*qkv.kernel.int8_scale \[1, 1\] ≠"):
        directory.read(tmp_path / "broken")


def test_scores_are_of_the_rounded_model(folders):
    mesh = sharding.make_mesh(Mesh(data=1, fsdp=1, tensor=1, slices=1), jax.devices()[:1])
    asked = Config.from_dict(quickstart.get_config()).model
    found = trained._of_directory(folders / "int8", mesh, asked=asked)
    assert found.model.arch == ARCH
    asked = dataclasses.replace(asked, products="fp8")
    found = trained._of_directory(folders / "int8", mesh, asked=asked)
    assert found.model.arch == dataclasses.replace(ARCH, products="fp8")
    expected = parameters.to_float32(*directory.read(folders / "int8"))[1]
    jax.tree.map(np.testing.assert_array_equal, found.params, expected)

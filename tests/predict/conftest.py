"""What tests of predicting share: programs that compile quickly, and two small models."""

import pytest
from quickly import compiled_quickly
from small_models import write_model

from dit_jax import Segmenter
from dit_jax.models.architecture import Injection


@pytest.fixture(scope="module", autouse=True)
def quick(programs):
    with compiled_quickly(programs):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "ldit")


@pytest.fixture(scope="module")
def segmenter(folder):
    return Segmenter.from_pretrained(folder, batch_size=2)


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    """Default fusion: the picture's embedding knows no text. And it says whether there is any."""
    folder = tmp_path_factory.mktemp("model") / "default"
    return Segmenter.from_pretrained(
        write_model(folder, injection=Injection.NONE, presence=True), batch_size=2
    )

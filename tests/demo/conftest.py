"""One model and one client for the demo's tests."""

import pytest
from small_models import write_model

from dit_jax import Segmenter
from dit_jax.demo.app import make_app


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory):
    folder = write_model(tmp_path_factory.mktemp("model") / "ldit")
    return Segmenter.from_pretrained(folder, batch_size=1)


@pytest.fixture(scope="session")
def client(segmenter):
    return make_app(segmenter, name="runs/my model").test_client()

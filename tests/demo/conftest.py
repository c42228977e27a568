"""One model, one client and one browser for the demo's tests."""

import pytest
from browser import BROWSER, DRIVER, browsing, serving
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


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    if not (BROWSER and DRIVER):
        pytest.skip("no chromium and chromedriver here (Debian: chromium, chromium-driver).")
    folder = tmp_path_factory.mktemp("browser")
    with serving(write_model(folder / "model")) as address, browsing(address, folder) as page:
        yield page

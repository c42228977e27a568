"""One model, one client and one browser for the server's tests."""

import pytest
from browser import BROWSER, DRIVER, browsing, serving
from photos import asking, photo
from PIL import Image
from quickly import compiled_quickly
from small_models import write_model

from dit_jax import Segmenter


@pytest.fixture(scope="package", autouse=True)
def quickly(programs):
    with compiled_quickly(programs):
        yield


@pytest.fixture(scope="package")
def segmenter(tmp_path_factory):
    folder = write_model(tmp_path_factory.mktemp("model") / "ldit")
    return Segmenter.from_pretrained(folder, batch_size=1)


@pytest.fixture(scope="package")
def client(segmenter):
    return asking(segmenter, name="runs/my model")


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    if not (BROWSER and DRIVER):
        pytest.skip("no chromium and chromedriver here (Debian: chromium, chromium-driver).")
    folder = tmp_path_factory.mktemp("browser")
    with serving(write_model(folder / "model")) as address, browsing(address, folder) as page:
        yield page


@pytest.fixture
def own(page, tmp_path):
    """The page with a picture of one's own, 70 × 48."""
    Image.fromarray(photo()).save(tmp_path / "own.png")
    page.fresh().find("#file").send_keys(str(tmp_path / "own.png"))
    page.until(lambda: page.find("#status").text == "The picture has 70 × 48 pixels.")
    return page

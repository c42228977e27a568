"""Models that come with the package: their size, and that `mini` reads, is mended by a click, and
starts training on own pictures."""

import numpy as np
import pytest

from dit_jax import Segmenter
from dit_jax.config import Config
from dit_jax.configs import mini, own_data
from dit_jax.data import shapes
from dit_jax.train.model import first_params, weights
from dit_jax.weights import directory, hub


def test_together_they_are_small():
    assert sum(file.stat().st_size for file in hub.SHIPPED.rglob("*") if file.is_file()) <= 12e6


def test_mini_is_what_its_config_trains():
    assert directory.read_contents(hub.SHIPPED / "mini").architecture == (
        Config.from_dict(mini.get_config()).architecture()
    )


def test_own_pictures_start_from_mini():
    values = own_data.get_config()
    values.model.init.model = "mini"
    config = Config.from_dict(values)
    first_params(weights(config.model), config.architecture(), seed=0)  # refuses another model


@pytest.fixture(scope="module")
def answers():
    """IoU of 32 expressions of val: by words, and with a click on the object after them."""
    segmenter, found = Segmenter.from_pretrained("mini", batch_size=8), []
    for i in range(32):
        scene = shapes.scene("val", i, size=128)
        target = scene.targets[i % len(scene.targets)]
        true, text = scene.mask(target.number), target.expressions[0].text
        picture = segmenter.open(scene.image())
        (said,) = segmenter(picture, text)
        ys, xs = np.nonzero(true)
        place = np.argmin(np.hypot(ys - ys.mean(), xs - xs.mean()))
        (mended,) = segmenter(picture, text, points=[(xs[place], ys[place], 1)], mask=said)
        found.append([(m & true).sum() / (m | true).sum() for m in (said.mask, mended.mask)])
    return np.array(found)


def test_mini_reads_and_a_click_helps(answers):
    words, clicked = answers.mean(axis=0)
    assert words > 0.8 and clicked > words + 0.02

"""A model small enough to export in a test, and a picture to try it on."""

import importlib.util

import numpy as np
from PIL import Image

from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Bert, Vit

VIT = Vit(depth=2, width=32, heads=2, global_blocks=(1,), window=3, grid=4)
BERT = Bert(vocab=256, depth=1, width=32, heads=2, mlp_width=48, positions=32)
SEED = 5  # its masks cover about half of a drawn picture
SMALL = dict(text_layer=1, decoder_width=64, decoder_mlp_width=64, decoder_depth=1, image_size=64)
TEXTS = ["the red circle", "small striped star on the left"]


def random_params(arch, *, seed=SEED):
    """Fresh parameters, but zero nowhere."""
    rng = np.random.default_rng(seed)
    flat = params_lib.flatten(params_lib.init(arch, seed=seed))
    return params_lib.unflatten(
        {k: (v + 0.1 * rng.standard_normal(v.shape)).astype(np.float32) for k, v in flat.items()}
    )


def runner(folder):
    """The module that lies beside the program."""
    spec = importlib.util.spec_from_file_location("beside", folder / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawn(height, width, *, seed=0):
    """A smooth picture with edges, as photographs have them."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    picture = picture.copy()
    picture[height // 3 : height // 2 + 1, width // 4 : width // 2 + 1] = rng.integers(0, 256, 3)
    return picture

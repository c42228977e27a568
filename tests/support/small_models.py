"""Model directories small enough for a test: random weights whose masks have edges."""

from pathlib import Path

import jax
import numpy as np
import pytest

from dit_jax.data.shapes import dataset
from dit_jax.models import params as parameters
from dit_jax.models.architecture import Architecture, Bert, Injection, Vit
from dit_jax.weights import directory

VIT = Vit(depth=2, width=32, heads=2, global_blocks=(1,), grid=4, window=2)
BERT = Bert(vocab=256, depth=1, width=32, heads=2, mlp_width=64, positions=32)
WORDS = dict(bert=BERT, injection=Injection.LAYER_WISE, text_layer=1, text_tokens=12)
PLAIN = dict(bert=None, injection=Injection.NONE, windowed=True)


def architecture(**changes) -> Architecture:
    """L-DIT of two blocks at 64 pixels; `PLAIN` makes it SAM."""
    small = dict(vit=VIT, decoder_depth=1, decoder_width=32, decoder_mlp_width=64, image_size=64)
    return Architecture(**(small | WORDS | changes))


def random_params(arch: Architecture, *, seed: int = 3):
    """Far from the small weights that training starts with: everything has an effect."""
    rng = np.random.default_rng(seed)
    start = parameters.init(arch, seed=seed)
    return jax.tree.map(
        lambda x: (x + 0.4 * rng.standard_normal(x.shape)).astype(np.float32), start
    )


def write_model(folder: Path, *, seed: int = 3, **changes) -> Path:
    """The model directory `folder`."""
    arch = architecture(**changes)
    vocab = dataset.VOCAB if arch.bert else None
    directory.save(folder, arch, random_params(arch, seed=seed), vocab=vocab)
    return folder


def some(*quick: Injection) -> list:
    """Every method, of which `make test` has these and `make proof` the others."""
    return [
        one if one in quick else pytest.param(one, marks=pytest.mark.proof) for one in Injection
    ]

"""A training run small enough for a test: two narrow blocks on the embedded data set, at 64 px."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from dit_jax import variants
from dit_jax.config import Config
from dit_jax.configs import quickstart
from dit_jax.models.architecture import Architecture, Bert, Vit
from dit_jax.train.run import Run
from dit_jax.train.state import TrainState


def config_of(**changes) -> Config:
    """Quickstart at 64 px, batch 8, 4 steps; `changes` are keys like `optim__lr`."""
    config = quickstart.get_config()
    config.model.update(image_size=64, text_layer=1, decoder_depth=1)  # compiles faster
    config.data.shapes.update(length=64, eval_length=4)
    config.data.eval_splits = ("val",)
    config.optim.update(batch_size=8, max_steps=4, warmup_epochs=0.1, lr=1e-3)
    config.eval.update(batch_size=8, every_steps=0)
    config.checkpoint.update(every_steps=2)
    config.train.update(log_every=1, pictures=2)
    for key, value in changes.items():
        config[key.replace("__", ".").split(".")[0]][key.split("__")[1]] = value
    return Config.from_dict(config)


def train_step_of(run: Run) -> tuple[TrainState, Callable]:
    """The state's shardings, and the compiled step."""
    placement = jax.tree.map(lambda leaf: leaf.sharding, run.abstract_state())
    return placement, run.train_step(placement)


def shrink(monkeypatch: pytest.MonkeyPatch, *, depth: int = 2) -> None:
    """Make `tiny` smaller still."""
    vit = Vit(depth=depth, width=32, heads=2, global_blocks=(1,), grid=4, window=2)
    bert = Bert(vocab=256, depth=1, width=32, heads=2, mlp_width=64, positions=32)
    monkeypatch.setitem(variants.BACKBONES, "tiny", vit)
    monkeypatch.setitem(variants.TEXT_ENCODERS, "tiny", bert)


def shallow(row: str) -> Architecture:
    """A row's real widths and parameter names with few blocks: enough to test names."""
    arch = variants.architecture(variants.VARIANTS[row])
    vit = dataclasses.replace(arch.vit, depth=2, global_blocks=(1,))
    bert = arch.bert if row == "tiny" else Bert(depth=1)
    return dataclasses.replace(arch, vit=vit, bert=bert, text_layer=1)


@contextlib.contextmanager
def compiling_once(folder: Path) -> Iterator[None]:
    """Keep compiled programs in a folder, so that runs of the same program compile once."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(folder))
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()

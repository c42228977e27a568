"""A training run small enough for a test: two narrow blocks on the embedded data set, at 64 px."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from ml_collections import ConfigDict

from dit_jax import variants
from dit_jax.config import Config
from dit_jax.configs import quickstart
from dit_jax.models.architecture import Architecture, Bert, Vit
from dit_jax.strict import flatten
from dit_jax.train import step as steps
from dit_jax.train.run import Run
from dit_jax.train.state import TrainState

# The run that many tests share (`trained` in tests/train/conftest.py): scored at steps 3 and 5,
# saved at 3, 4 and 5. `checkpoint.` changes no step; a save takes as long as ten of them.
FIVE_STEPS = dict(
    optim__max_steps=5,
    eval__every_steps=3,
    checkpoint__every_steps=4,
    checkpoint__keep_latest=2,
)


def config_of(**changes) -> Config:
    """Quickstart at 64 px, batch 8, 4 steps; `changes` are keys like `optim__lr`."""
    return Config.from_dict(_settings(changes))


def flags_of(**changes) -> list[str]:
    """The same for the command line."""
    usual, ours = (
        flatten(Config.from_dict(c)) for c in (quickstart.get_config(), _settings(changes))
    )
    changed = [f"--config.{key}={value}" for key, value in ours.items() if usual[key] != value]
    return ["--config=configs/quickstart.py", *changed]


def _settings(changes: dict) -> ConfigDict:
    config = quickstart.get_config()
    config.model.update(image_size=64, text_layer=1, decoder_depth=1)  # compiles faster
    config.data.shapes.update(length=64, eval_length=4)
    config.data.eval_splits = ("val",)
    config.optim.update(name="adam", batch_size=8, max_steps=4, warmup_epochs=0.1, lr=1e-3)
    config.eval.update(batch_size=8, every_steps=0)
    config.checkpoint.update(every_steps=2)
    config.train.update(log_every=1, pictures=2)
    for key, value in changes.items():
        config[key.replace("__", ".").split(".")[0]][key.split("__")[1]] = value
    return config


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
def small_runs(folder: Path) -> Iterator[None]:
    """Runs of a smaller `tiny` that share their programs: a second run traces and compiles nothing.

    Processes share them through the folder.
    """
    with pytest.MonkeyPatch.context() as patch, compiling_once(folder):
        shrink(patch)
        for name in ("make_train_step", "make_predict_step"):
            patch.setattr(steps, name, functools.partial(_made_once, getattr(steps, name)))
        yield


_MADE: dict[tuple, Callable] = {}


def _made_once(make: Callable, graph, *rules, placement, **how) -> Callable:
    """`make`'s jitted function, one for equal arguments."""
    shardings, tree = jax.tree.flatten(placement)
    key = (make, graph, rules, tuple(shardings), tree, tuple(how.items()))
    if key not in _MADE:
        _MADE[key] = make(graph, *rules, placement=placement, **how)
    return _MADE[key]


@contextlib.contextmanager
def compiling_once(folder: Path) -> Iterator[None]:
    """Keep compiled programs in a folder, so that runs of the same program compile once."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(folder))
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()

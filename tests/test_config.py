"""Configs: every file builds, and every mistake is named."""

import importlib

import pytest
from runs import config_of

from configs import base, paper, quickstart
from dit_jax import variants
from dit_jax.config import Config
from dit_jax.models.architecture import Injection
from dit_jax.strict import flatten

ROWS = ["ldit_vit_b", "ldit_vit_l", "ldit_vit_h", "edit_vit_b", "edit_vit_h", "default_vit_b"]


def plain(section=None, **changes):
    values = quickstart.get_config().to_dict()
    (values[section] if section else values).update(changes)
    return values


@pytest.mark.parametrize("recipe", ["paper", "official"])
@pytest.mark.parametrize("row", ROWS)
def test_row_files(row, recipe):
    config = Config.from_dict(importlib.import_module(f"configs.{row}").get_config(recipe))
    assert config == Config.from_dict(paper.get_config(f"{row},{recipe}"))
    assert config.variant() == variants.VARIANTS[row]
    assert config.architecture().text_layer == {"paper": 12, "official": 1}[recipe]
    assert config.optim.schedule == {"paper": "steps", "official": "cosine"}[recipe]


def test_every_row_is_a_paper_config():
    for row, variant in variants.VARIANTS.items():
        if row == "tiny":  # no BERT of 12 layers: quickstart trains it
            continue
        config = Config.from_dict(paper.get_config(row))
        assert config.freeze() == variant.freeze
        assert config.architecture().injection == variant.injection


def test_lengths_of_the_recipes():
    assert Config.from_dict(base.recipe("ldit_vit_b", "official")).optim.epochs == 40
    assert Config.from_dict(base.recipe("ldit_vit_h", "official")).optim.epochs == 25
    assert Config.from_dict(base.recipe("ldit_vit_h", "paper")).optim.epochs == 40


def test_overrides_of_a_row():
    config = config_of(model__injection="e2e", model__freeze=("text_encoder",))
    assert config.architecture().injection == Injection.E2E
    assert config.freeze() == ("text_encoder",)
    assert config_of(model__freeze=()).freeze() == ()


def test_flatten():
    flat = flatten(config_of())
    assert flat["optim.batch_size"] == 8
    assert flat["model.init.sam"] == ""
    assert flat["data.augmentation.flip_p"] == 0.5


def misspelt():
    values = plain()
    values["data"]["augmentation"]["jiter"] = values["data"]["augmentation"].pop("jitter")
    return values


def without(section, key):
    values = plain()
    del values[section][key]
    return values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (misspelt(), "unknown key data.augmentation.jiter; .* is data.augmentation.jitter."),
        (plain("optim", lr_rate=1.0), "unknown key optim.lr_rate; .* is optim"),
        (plain(optimiser={}), "unknown key optimiser; the nearest valid key is optim."),
        (without("optim", "clip"), "missing keys: optim.clip."),
        (plain("optim", lr="1e-4"), "optim.lr is '1e-4' of type str; expected float."),
        (plain("optim", batch_size=8.0), "optim.batch_size is 8.0 of type float; expected int."),
        (plain("model", remat=1), "model.remat is 1 of type int; expected bool."),
        (plain("optim", max_steps=True), "optim.max_steps is True of type bool; expected int."),
        (plain("data", eval_splits="val"), "data.eval_splits is 'val'; expected a tuple"),
        (plain(optim=3), "optim is 3; expected a section"),
        (plain("model", variant="ldit_vit_g"), "model.variant is 'ldit_vit_g'; .*nearest: ldit"),
        (plain("model", freeze=("image",)), "model.freeze is 'image'; .*nearest: image_encoder"),
        (plain("optim", batch_size=6, accumulate=4), "expected a multiple of optim.accumulate"),
        (plain("optim", lr=0.0), "optim.lr is 0.0; expected a number above 0."),
        (plain("eval", best="lavt"), "eval.best is 'lavt'; expected one of dit, original"),
    ],
)
def test_mistakes(values, message):
    with pytest.raises(ValueError, match=message):
        Config.from_dict(values)


def test_an_integer_is_a_float():
    assert Config.from_dict(plain("optim", lr=1)).optim.lr == 1.0


def test_unknown_recipe_and_row():
    with pytest.raises(ValueError, match="no recipe 'offical'; expected one of paper, official"):
        base.recipe("ldit_vit_b", "offical")
    with pytest.raises(ValueError, match="nearest: ldit_vit_b"):
        paper.get_config("ldit_vit_bb")

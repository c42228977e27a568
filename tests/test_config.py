"""Configs: every file builds, and every mistake is named."""

import dataclasses
import importlib
import math

import pytest
from runs import config_of

from dit_jax import variants
from dit_jax.config import Config
from dit_jax.configs import base, grefcoco, mix, paper, quickstart
from dit_jax.models.architecture import Injection
from dit_jax.strict import LONGEST, few, flatten

ROWS = ["ldit_vit_b", "ldit_vit_l", "ldit_vit_h", "edit_vit_b", "edit_vit_h", "default_vit_b"]


def plain(section=None, **changes):
    values = quickstart.get_config().to_dict()
    (values[section] if section else values).update(changes)
    return values


def augmented(**changes):
    values = plain()
    values["data"]["augmentation"].update(changes)
    return values


@pytest.mark.parametrize("recipe", ["paper", "official"])
@pytest.mark.parametrize("row", ROWS)
def test_row_files(row, recipe):
    config = Config.from_dict(importlib.import_module(f"configs.{row}").get_config(recipe))
    assert config == Config.from_dict(paper.get_config(f"{row},{recipe}"))
    assert config.variant() == variants.VARIANTS[row]
    assert config.architecture().text_layer == {"paper": 12, "official": 1}[recipe]
    assert config.optim.schedule == {"paper": "steps", "official": "cosine"}[recipe]


@pytest.mark.parametrize("row", ["", "ldit_vit_b_frozen", "edit_vit_h,official"])
def test_other_data_sets(row):
    """The rows of the paper on more data: only data, presence and protocols differ."""
    arguments = [row] if row else []
    alone = Config.from_dict(paper.get_config(row or "ldit_vit_b,official"))
    mixed = Config.from_dict(mix.get_config(*arguments))
    assert (mixed.model, mixed.optim, mixed.eval) == (alone.model, alone.optim, alone.eval)
    assert mixed.data.dataset == "refcoco(unc)+refcoco+(unc)+refcocog(umd)"
    assert mixed.data.eval_splits[-2:] == ("refcocog(umd)/val", "refcocog(umd)/test")
    assert len(mixed.data.eval_splits) == 8
    several = Config.from_dict(grefcoco.get_config(*arguments))
    assert several.architecture() == dataclasses.replace(alone.architecture(), presence=True)
    assert several.eval.best == "gres" in several.eval.protocols


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
    assert flat["data.augmentation.flip_p"] == 0.0


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
        (plain("model", remat=True), "model.remat is True of type bool; expected str."),
        (
            plain("model", remat="block"),
            "model.remat is 'block'; expected one of none, dots, full, scan",
        ),
        (
            plain("model", remat="scan", task="prompts"),
            "model.remat is scan, whose blocks are alike; expected another policy",
        ),
        (plain("optim", max_steps=True), "optim.max_steps is True of type bool; expected int."),
        (plain("data", eval_splits=3), "data.eval_splits is 3; expected a tuple"),
        (plain("data", eval_splits=","), "data.eval_splits is empty; expected at least one"),
        (plain("optim", betas="0.9,0.98"), "optim.betas is '0.9,0.98'; expected a tuple"),
        (plain(optim=3), "optim is 3; expected a section"),
        (plain("model", variant="ldit_vit_g"), "model.variant is 'ldit_vit_g'; .*nearest: ldit"),
        (plain("model", freeze=("image",)), "model.freeze is 'image'; .*nearest: image_encoder"),
        (plain("optim", batch_size=6, accumulate=4), "expected a multiple of optim.accumulate"),
        (plain("optim", lr=0.0), "optim.lr is 0.0; expected a number above 0."),
        (plain("eval", best="lavt"), "eval.best is 'lavt'; expected one of dit, original"),
        (plain("eval", protocols=("dit", "orignal")), "protocols is 'orignal'; .*nearest: orig"),
        (plain("eval", protocols=()), "eval.protocols is empty; expected some of dit, original"),
        (plain("eval", threshold=1.0), "eval.threshold is 1.0; expected between 0 and 1."),
        (plain("eval", false_alarm=0.0), "eval.false_alarm is 0.0; expected between 0 and 1."),
        (plain("eval", presence_threshold=0.0), "presence_threshold is 0.0; expected between"),
        (plain("eval", every_steps=-1), "eval.every_steps is -1; expected 0 or more."),
        (plain("data", eval_limit=-1), "data.eval_limit is -1; expected 0 or more."),
        (plain("data", train_limit=-1), "data.train_limit is -1; expected 0 or more."),
        (plain("data", workers=-2), "data.workers is -2; expected -1 or more."),
        (plain("train", pictures=-1), "train.pictures is -1; expected 0 or more."),
        (plain("train", minutes=-0.5), "train.minutes is -0.5; expected 0 or more."),
        (plain("optim", clip=float("nan")), "optim.clip is nan; expected 0 or more."),
        (plain("optim", max_steps=-3), "optim.max_steps is -3; expected 0 or more."),
        (plain("optim", max_steps=0, epochs=0.0), "optim.max_steps are 0; expected a length."),
        (plain("optim", ema=1.0), "optim.ema is 1.0; expected from 0 to below 1."),
        (plain("optim", betas=(0.9, 1.0)), "expected two numbers from 0 to below 1."),
        (plain("optim", betas=(0.9,)), "expected two numbers from 0 to below 1."),
        (plain("optim", lr=math.inf), "optim.lr is inf; expected a finite number."),
        (plain("optim", milestones=(1.0, math.inf)), "is .1.0, inf.; expected a finite number."),
        (plain("optim", milestones=(-1.0,)), "expected numbers from 0 on."),
        (plain("optim", eps=0.0), "optim.eps is 0.0; expected a number above 0."),
        (plain("optim", min_lr=-1e-5), "optim.min_lr is -1e-05; expected 0 or more."),
        (plain("optim", warmup_lr=math.nan), "optim.warmup_lr is nan; expected 0 or more."),
        (plain("optim", decay=-0.1), "optim.decay is -0.1; expected 0 or more."),
        (plain(seed=2**32), "seed is 4294967296; expected from 0 to below 2³²."),
        (augmented(flip_p=1.5), "data.augmentation.flip_p is 1.5; expected from 0 to 1."),
        (augmented(jitter=math.nan), "data.augmentation.jitter is nan; expected 0 or more."),
        (plain("data", eval_splits="val, val"), "data.eval_splits names val twice; expected"),
    ],
)
def test_mistakes(values, message):
    with pytest.raises(ValueError, match=message):
        Config.from_dict(values)


@pytest.mark.parametrize("value", ["val,testA", "val, testA,", ("val,testA",), ("val", "testA")])
def test_words_may_be_given_with_commas(value):
    """A command line makes `("val,testA",)` of `--config.data.eval_splits=val,testA`."""
    assert Config.from_dict(plain("data", eval_splits=value)).data.eval_splits == ("val", "testA")
    encoders = Config.from_dict(plain("model", freeze=("image_encoder,text_encoder",))).freeze()
    assert encoders == ("image_encoder", "text_encoder")


def test_an_integer_is_a_float():
    assert Config.from_dict(plain("optim", lr=1)).optim.lr == 1.0


def test_unknown_recipe_and_row():
    with pytest.raises(ValueError, match="no recipe 'offical'; expected one of paper, official"):
        base.recipe("ldit_vit_b", "offical")
    with pytest.raises(ValueError, match="nearest: ldit_vit_b"):
        paper.get_config("ldit_vit_bb")
    with pytest.raises(ValueError, match="no row is named; .*ROW with one of default_vit_b, .*"):
        paper.get_config()


def test_a_text_has_room_for_a_word():
    config = Config.from_dict(plain("model", text_tokens=2))
    with pytest.raises(ValueError, match="text_tokens is 2; expected 3 or more: .CLS., a word"):
        config.architecture()


def test_a_list_in_a_sentence_is_short_and_can_be_printed():
    keys = ["\x7fmage", "a" * 400, "b", "c"]
    assert few(keys, 3) == "'\\x7fmage', " + "a" * LONGEST + "…, b and 1 more"
    assert few(keys[2:], between="; ") == "b; c"

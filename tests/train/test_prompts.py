"""SAM's own prompts, trained, stopped, continued, scored and used."""

import dataclasses
import json

import numpy as np
import pytest
from runs import config_of

from dit_jax import Segmenter, load
from dit_jax.config import Config
from dit_jax.configs import mini_sam, own_data
from dit_jax.data import shapes
from dit_jax.eval.protocols import CLICKS
from dit_jax.models.architecture import Architecture, Injection
from dit_jax.train import loop, scoring
from dit_jax.train.model import check_architecture
from dit_jax.variants import BACKBONES
from dit_jax.weights import directory

PROMPTS = dict(
    model__task="prompts",
    optim__rounds=1,
    optim__schedule="steps",
    optim__max_steps=3,
    checkpoint__every_steps=0,
    eval__protocols=tuple(CLICKS),
    eval__best="click3",
)


def read(folder):
    found = directory.read_contents(folder / "model_final").tensors
    return {path: np.asarray(value) for path, value in found.items()}


@pytest.fixture(scope="module")
def run(small, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("prompts") / "run"
    assert loop.train(config_of(**PROMPTS), workdir)
    return workdir


def test_scores_of_every_way_of_pointing(run):
    scores = {name: run / "eval" / f"shapes-val-{name}.json" for name in CLICKS}
    rows = {name: json.loads(path.read_text()) for name, path in scores.items()}
    assert all(row["n"] == 4 and 0 <= row["mIoU"] <= 100 for row in rows.values())
    assert rows["click1_oracle"]["mIoU"] >= rows["click1"]["mIoU"]
    summary = (run / "eval/scores.md").read_text()
    assert all(f"| {name} |" in summary for name in CLICKS)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    metrics = [json.loads(line) for line in lines]
    assert {"train/first_iou", "train/last_iou", "train/loss"} <= metrics[0].keys()


@pytest.mark.proof
def test_a_stopped_run_goes_on_bit_for_bit(run, tmp_path):
    """Points and boxes are drawn from the step's number."""
    short = PROMPTS | dict(optim__max_steps=2)
    assert loop.train(config_of(**short), tmp_path / "run")
    assert loop.train(config_of(**PROMPTS), tmp_path / "run", overwrite=True)
    whole, parts = read(run), read(tmp_path / "run")
    assert whole.keys() == parts.keys()
    assert all(np.array_equal(whole[path], parts[path]) for path in whole)


def test_it_is_a_plain_sam(run):
    model = load(run / "model")
    assert model.arch.bert is None and model.arch.windowed and model.arch.iou_trained
    segmenter = Segmenter.from_pretrained(run / "model")
    picture = shapes.Shapes("val", length=1)[0].image
    (answer,) = segmenter(picture, points=[(20, 20)])
    assert answer.mask.shape == picture.shape[:2]


def test_a_model_directory_is_scored_and_trained_on(run, tmp_path):
    config = config_of(**PROMPTS)
    scoring.score(config, tmp_path, model_dir=run / "model")
    for name in CLICKS:
        there = (run / "eval" / f"shapes-val-{name}.json").read_text()
        assert json.loads(
            (tmp_path / "eval" / f"shapes-val-{name}.json").read_text()
        ) == json.loads(there)
    with pytest.raises(ValueError, match=r"reads no text; expected .* model.task=prompts"):
        scoring.score(config_of(), tmp_path, model_dir=run / "model")


@pytest.mark.proof
def test_clicks_after_a_text(small, tmp_path):
    changes = dict(model__task="text+clicks", optim__rounds=1, optim__click_share=0.5)
    changes |= dict(eval__protocols=("dit", "click1"), optim__max_steps=6)
    assert loop.train(config_of(**changes), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [row["train/click_loss"] for row in rows if "train/click_loss" in row]
    assert 0 < len(losses) < 6 and min(losses) > 0  # in a share of the steps
    found = {path.name for path in (tmp_path / "eval").glob("*.json")}
    assert found == {"shapes-val-dit.json", "shapes-val-click1.json"}


def test_the_mini_sam_recipe():
    config = Config.from_dict(mini_sam.get_config())
    arch = config.architecture()
    assert arch.bert is None and arch.windowed and set(config.eval.protocols) == set(CLICKS)


def test_a_converted_sam_fits_whatever_a_config_says_of_texts():
    config = own_data.get_config("ldit_vit_b")  # as docs/prompts.md has it: the row's `text_layer`
    config.model.task = "prompts"
    config.eval.update(protocols=("click3",), best="click3")
    wanted = Config.from_dict(config).architecture()
    plain = dict(bert=None, injection=Injection.NONE, windowed=True, image_size=1024)
    sam = Architecture(BACKBONES["vit_b"], **plain)
    assert sam.text_layer != wanted.text_layer
    check_architecture(sam, wanted, folder="models/sam")
    with pytest.raises(ValueError, match="decoder_depth: 4 → 2"):
        other = dataclasses.replace(sam, decoder_depth=4)
        check_architecture(other, wanted, folder="models/sam")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(model__task="points"), "model.task.*text, text\\+clicks, prompts"),
        (dict(PROMPTS, eval__protocols=("dit",)), "eval.protocols.*box, click1"),
        (dict(eval__protocols=("click1",)), "eval.protocols.*dit, original"),
        (dict(optim__rounds=-1), "optim.rounds is -1; expected 0 or more"),
        (
            dict(model__task="text+clicks", optim__rounds=0),
            "optim.rounds is 0; expected a number above 0 with .*text\\+clicks",
        ),
        (
            dict(PROMPTS, eval__predictions=True),
            "eval.predictions writes answers to texts, and .* has only points and boxes; expected",
        ),
        (dict(optim__click_share=2.0), "optim.click_share is 2.0; expected from 0 to 1"),
    ],
)
def test_refusals(changes, message):
    with pytest.raises(ValueError, match=message):
        config_of(**changes)

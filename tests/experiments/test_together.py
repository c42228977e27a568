"""Seeds trained side by side are the runs that the training loop makes of each."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from runs import config_of, small_runs

from dit_jax.train import loop
from dit_jax.weights import directory
from experiments import miniature, together


@pytest.fixture(autouse=True)
def small(programs):
    with small_runs(programs):
        yield


@pytest.mark.proof
def test_seeds_side_by_side_are_their_own_runs(tmp_path):
    changes = dict(optim__max_steps=3, optim__eps=1e-4)  # see mesh_worker.py
    config = config_of(**changes, train__log_every=2, eval__predictions=True)
    seeds = {0: tmp_path / "first", 3: tmp_path / "second"}
    together.train(config, seeds, streams=tmp_path / "streams")
    alone = tmp_path / "alone"
    assert loop.train(dataclasses.replace(config, seed=3), alone)
    expected, found = lines(alone), lines(seeds[3])
    assert [line["step"] for line in found] == [2, 3]
    for key in ("train/loss", "train/lr", "train/grad_norm"):
        values = [[line[key] for line in some] for some in (found, expected)]
        np.testing.assert_allclose(*values, rtol=1e-4)
    ours, theirs = (directory.read(at)[1] for at in (seeds[3] / "model", alone / "model_final"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, theirs)
    counted = miniature.split_areas(seeds[3])["val"]
    written = miniature.areas(miniature.predictions(alone)[0])
    assert sum(written["union"]) > 0
    assert counted.keys() == written.keys()
    for key, values in counted.items():  # a pixel at the threshold may fall to either side
        np.testing.assert_allclose(values, written[key], atol=2)
    assert lines(seeds[0]) != found


def test_a_kept_stream_is_made_once(tmp_path, monkeypatch):
    run = together.Run.of(config_of(optim__max_steps=2), tmp_path)
    drawn = list(together.stream(run, 2, None))
    again = together.Run.of(config_of(optim__max_steps=2), tmp_path)
    kept = list(together.stream(again, 1, tmp_path / "streams"))
    np.testing.assert_array_equal(drawn[0]["image"], np.concatenate([k["image"] for k in kept]))
    monkeypatch.setattr(type(run.batches), "__next__", None)
    assert len(list(together.stream(again, 2, tmp_path / "streams"))) == 1


def test_a_loss_that_is_no_number_stops_it():
    metrics = {"loss": np.array([[0.5, np.nan]]), "lr": np.zeros((1, 2))}
    with pytest.raises(ValueError, match="a loss of the steps up to 7 is no number"):
        together.note([[], []], 7, metrics, since=0.0)


def lines(folder):
    found = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in found if "train/loss" in line]

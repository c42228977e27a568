"""Training on kept features of a frozen encoder: the same run without the blocks before text."""

import json
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from runs import config_of

from dit_jax.lease import Lease, Taken
from dit_jax.train import features, loop
from dit_jax.train.stop import Stop
from dit_jax.weights import directory

pytestmark = pytest.mark.usefixtures("small")

DRAWN = dict(length=64, eval_length=4, absent=0.0)
FROZEN = dict(model__freeze=("image_encoder",), model__inject_from=1, optim__ema=0.0)


def trained(folder, **changes) -> tuple[list[float], dict]:
    """Losses and the last parameters of a run of four steps."""
    assert loop.train(config_of(**FROZEN | changes), folder)
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    return losses, directory.read(folder / "model_final")[1]


@pytest.fixture(scope="module")
def kept(tmp_path_factory, programs):
    return tmp_path_factory.mktemp("features")


def test_a_run_on_features_is_the_same_run(tmp_path, kept, monkeypatch):
    plain = trained(tmp_path / "plain")
    computed = count_pictures(monkeypatch)
    losses, params = trained(tmp_path / "kept", data__cache_features=str(kept))
    np.testing.assert_allclose(losses, plain[0], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), params, plain[1])
    assert sum(computed) == 32  # pictures of 64 referents, each once
    # Another run finds them, and goes on where their computation was stopped.
    about = json.loads((kept / "features.json").read_text())
    (kept / "features.json").write_text(json.dumps(about | {"done": 24}))
    assert trained(tmp_path / "again", data__cache_features=str(kept))[0] == losses
    assert sum(computed) == 32 + 8


def count_pictures(monkeypatch) -> list[int]:
    """How many pictures each batch of features that is computed from now on has."""
    computed, made = [], features._computed

    def counted(*arguments):
        for rows in made(*arguments):
            computed.append(len(rows))
            yield rows

    monkeypatch.setattr(features, "_computed", counted)
    return computed


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"seed": 1}, "weights"),
        ({"model__inject_from": 1, "data__train_limit": 62}, "pictures"),
        ({"data__shapes": {**DRAWN, "seed": 1}}, "pixels"),  # pictures of the same numbers
        ({"model__products": "bfloat16"}, "products"),
    ],
)
def test_features_of_others_are_refused(tmp_path, kept, changes, key):
    assert (kept / "features.json").is_file()
    changes = {"data__cache_features": str(kept)} | changes
    seed = changes.pop("seed", 0)
    config = config_of(**FROZEN | changes)
    config = type(config)(**vars(config) | {"seed": seed})
    with pytest.raises(ValueError, match=f"{kept} holds features of other {key}.*; expected anoth"):
        loop.train(config, tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model__freeze": None}, "model.freeze is None; expected image_encoder in it"),
        ({"model__inject_from": 0}, "model.inject_from is 0; expected 1 or more"),
        ({"data__on_error": "skip"}, "data.on_error is skip; expected stop"),
        ({"data__augmentation": "flip_p"}, "data.augmentation.flip_p is 0.5; expected 0 or false"),
    ],
)
def test_where_features_would_not_be_the_same(changes, named):
    varied = changes.pop("data__augmentation", None)
    config = config_of(**FROZEN | changes, data__cache_features="x")
    if varied:
        object.__setattr__(config.data.augmentation, varied, 0.5)
    with pytest.raises(ValueError, match=f"unvaried pictures, and {named}"):
        features.check(config)


def test_a_bucket_is_refused():
    config = config_of(**FROZEN, data__cache_features="gs://bucket/features")
    with pytest.raises(
        ValueError, match="is gs://bucket/features; expected a folder of this machi"
    ):
        features.check(config)


def test_a_stop_while_features_are_computed(tmp_path, monkeypatch, capsys):
    """What was computed stays, for the same command to go on behind."""
    computed, folder = count_pictures(monkeypatch), tmp_path / "features"
    config = config_of(**FROZEN, data__cache_features=str(folder))
    with monkeypatch.context() as patch:
        patch.setattr(Stop, "late", True)
        assert not loop.train(config, tmp_path / "run")
    assert "Stopped while features were computed. The same" in capsys.readouterr().out
    assert computed == [8]
    assert json.loads((folder / "features.json").read_text())["done"] == 8


def test_two_runs_do_not_compute_into_one_folder(tmp_path):
    folder = tmp_path / "features"
    folder.mkdir()
    config = config_of(**FROZEN, data__cache_features=str(folder))
    with Lease(folder, purpose="computing features"), pytest.raises(Taken, match="computing feat"):
        loop.train(config, tmp_path / "run")


def test_a_disk_that_is_too_small(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    config = config_of(**FROZEN, data__cache_features=str(tmp_path / "f"))
    with pytest.raises(OSError, match=r"needs 6.55e-05 GB in .*f, and 1e-06 GB are free"):
        loop.train(config, tmp_path / "run")
    assert not list((tmp_path / "f").iterdir())

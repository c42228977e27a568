"""`kill -9` at the worst moments: the same command continues, and ends with the same bits."""

import json

import pytest
from places import PYTHONPATH, SUPPORT
from runs import FIVE_STEPS, flags_of

from benchmarks import kills

MOMENTS = ("first save", "scoring", "save")


@pytest.fixture
def command(programs, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    changes = FIVE_STEPS | dict(checkpoint__every_steps=2)  # saves before it scores, too
    return kills.Command(programs, tuple(flags_of(**changes)), SUPPORT / "small_launch.py")


@pytest.fixture(scope="module")
def expected(trained):
    """What an undisturbed run leaves."""
    return kills.outcome(trained)


@pytest.mark.parametrize(
    "moments",
    [("save",), pytest.param(MOMENTS, marks=pytest.mark.proof)],
    ids=" then ".join,
)
def test_killed_at_the_worst_moments(command, expected, tmp_path, moments):
    checkpoints, metrics = tmp_path / "checkpoints", tmp_path / "metrics.jsonl"

    def saved() -> bool:
        return any(path.name.isdigit() for path in checkpoints.glob("*"))

    def saving() -> bool:
        return any(checkpoints.glob("*tmp*"))

    def scoring() -> bool:
        lines = metrics.read_text().splitlines() if metrics.is_file() else []
        whole = [json.loads(line) for line in lines if line.endswith("}")]
        return bool(whole) and whole[-1]["step"] == 3 and not (tmp_path / "scores.json").is_file()

    ripe = {"first save": saving, "scoring": scoring, "save": lambda: saved() and saving()}
    for moment in moments:
        assert command.kill_when(tmp_path, ripe[moment]), moment
        assert moment != "first save" or not saved()
    command.finish(tmp_path)
    kills.compare(expected, kills.outcome(tmp_path))


def test_a_difference_is_found(expected):
    name = "model/model.safetensors"
    damaged = expected | {name: expected[name][:-1] + b"\0"}
    with pytest.raises(AssertionError, match=f"other bytes: {name}$"):
        kills.compare(expected, damaged)


@pytest.mark.proof
def test_thirty_random_kills(tmp_path):
    command = kills.Command(tmp_path / "cache")
    command.finish(tmp_path / "whole")
    expected = kills.outcome(tmp_path / "whole")
    assert kills.disturbed(command, tmp_path, expected, kills=30, lasts=15.0).total() > 30

"""`kill -9` at the worst moments: the same command continues, and ends with the same bits."""

import json

import pytest
from compiler import COMPILES_FASTER
from quickly import SHALLOW

from benchmarks import kills

SHORT = (*SHALLOW, "--config.optim.max_steps=12", "--config.eval.every_steps=6")


@pytest.fixture(scope="module")
def command(programs):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", COMPILES_FASTER)
        yield kills.Command(programs, (*kills.SETTINGS, *SHORT))


@pytest.fixture(scope="module")
def expected(command, tmp_path_factory):
    """What an undisturbed run leaves."""
    workdir = tmp_path_factory.mktemp("whole")
    command.finish(workdir)
    return kills.outcome(workdir)


def test_killed_in_the_first_save_in_scoring_and_in_a_save(command, expected, tmp_path):
    checkpoints, metrics = tmp_path / "checkpoints", tmp_path / "metrics.jsonl"

    def saved() -> bool:
        return any(path.name.isdigit() for path in checkpoints.glob("*"))

    def saving() -> bool:
        return any(checkpoints.glob("*tmp*"))

    def scoring() -> bool:
        lines = metrics.read_text().splitlines() if metrics.is_file() else []
        whole = [json.loads(line) for line in lines if line.endswith("}")]
        return bool(whole) and whole[-1]["step"] == 6 and not (tmp_path / "scores.json").is_file()

    assert command.kill_when(tmp_path, saving)
    assert not saved()
    assert command.kill_when(tmp_path, scoring)
    assert command.kill_when(tmp_path, lambda: saved() and saving())
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

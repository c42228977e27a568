"""What tests of training share: small programs, and one run that is made once and copied."""

from pathlib import Path

import pytest
from runs import FIVE_STEPS, config_of, small_runs

from dit_jax.train import loop


@pytest.fixture(scope="module")
def small(programs):
    """See `runs.small_runs`; without reports, which take a third of such a run's time.

    `logs/test_run_record.py` reads those, and `test_launch.py` makes one.
    """
    with small_runs(programs), pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "write_report", lambda run: None)
        yield


@pytest.fixture(scope="session")
def trained(programs, tmp_path_factory) -> Path:
    """A finished run of `config_of(**FIVE_STEPS)`, which nothing has disturbed: copy it."""
    workdir = tmp_path_factory.mktemp("trained")
    with small_runs(programs):
        assert loop.train(config_of(**FIVE_STEPS), workdir)
    return workdir

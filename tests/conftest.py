"""Shared by all tests: strict JAX settings and the optional folder of reference data."""

import os
from pathlib import Path

os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference activations and real data: $DIT_JAX_SHARED, or `../shared`."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("DIT_JAX_SHARED", beside))
    if not folder.is_dir():
        pytest.skip(f"reference data are not here: {folder} (set DIT_JAX_SHARED)")
    return folder


@pytest.fixture(scope="session")
def programs(tmp_path_factory) -> Path:
    """Folder of compiled programs, for `quickly`."""
    return tmp_path_factory.mktemp("programs")

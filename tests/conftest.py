"""Shared by all tests: strict JAX settings, compiled programs, the optional reference data."""

import gc
import os
import shutil
import tempfile
from pathlib import Path

from compiler import COMPILES_FASTER

os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", COMPILES_FASTER)  # `make proof` compiles as users do
# Else every process that a run starts compiles every module anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import jaxtyping
import pytest
from beartype import BeartypeConf
from beartype.claw import beartype_package

PACKAGE = Path(__file__).resolve().parents[1] / "dit_jax"
CACHE = "JAX_COMPILATION_CACHE_DIR"
TAKE_MINUTES = tuple(
    f"test_{name}.py" for name in ("trouble", "sharding", "models", "checkpoint", "packed", "kills")
)


def pytest_configure(config):
    """One folder of compiled programs for all processes of this run, which start with it."""
    # Tracing makes objects by the million, next to nothing of which is garbage in circles.
    gc.set_threshold(50_000, 20, 20)
    if CACHE not in os.environ:
        config.stash[CREATED] = os.environ[CACHE] = tempfile.mkdtemp(prefix="dit_jax_programs_")


def pytest_collection_modifyitems(items):
    """The files that take minutes first, then training: the last would have a core to itself."""
    items.sort(
        key=lambda item: (item.path.name not in TAKE_MINUTES, "train" not in item.path.parts)
    )


def pytest_unconfigure(config):
    if folder := config.stash.get(CREATED, None):
        shutil.rmtree(folder, ignore_errors=True)


CREATED = pytest.StashKey[str]()


def check_annotations():
    """At every call in this process. jaxtyping's check, of names of axes, costs 40 times
    beartype's, so it is kept to the modules that have such names."""
    files = [file for file in PACKAGE.rglob("*.py") if "jaxtyping" in file.read_text()]
    modules = [file.relative_to(PACKAGE.parent).with_suffix("") for file in files]
    unknown = ("dit_jax.cli", "dit_jax.train.logs.duplicates")  # name types that are not imported
    beartype_package("dit_jax", conf=BeartypeConf(claw_skip_package_names=unknown))
    jaxtyping.install_import_hook([".".join(each.parts) for each in modules], "beartype.beartype")


check_annotations()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference activations and real data: $DIT_JAX_SHARED, or `../shared`."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("DIT_JAX_SHARED", beside))
    if not folder.is_dir():
        pytest.skip(f"reference data are not here: {folder} (set DIT_JAX_SHARED)")
    return folder


@pytest.fixture(scope="session")
def programs() -> Path:
    """Folder of compiled programs that all tests share."""
    return Path(os.environ[CACHE])

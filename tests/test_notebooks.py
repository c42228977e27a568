"""The notebooks of examples/ are whole as they are committed, and run from top to bottom."""

import json
import os
import re
import shutil

import pytest
from places import ROOT

NOTEBOOKS = sorted(ROOT.glob("examples/*.ipynb"))
LARGEST, ALL = 150_000, 400_000  # bytes
PLACES = re.compile(r"/(?:work|root|home|tmp|Users|usr|opt)/|[A-Z]:\\\\")  # of a machine
DONE = 1200  # seconds for a cell, of a machine that has other things to do


def code(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_they_are_three_and_small():
    sizes = [path.stat().st_size for path in NOTEBOOKS]
    assert len(sizes) == 3 and max(sizes) < LARGEST and sum(sizes) < ALL


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_is_whole(path):
    """Valid, run once from top to bottom, with pictures, without an error or a machine's paths."""
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.read(path, as_version=4))
    cells = code(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for number, cell in enumerate(cells, 1):
        compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec")
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [one for one in outputs if one["output_type"] == "error"]
    assert not [one for one in outputs if one.get("name") == "stderr"]
    assert sum("image/jpeg" in one.get("data", {}) for one in outputs) >= 3
    assert not PLACES.search(json.dumps([{**one, "data": texts(one)} for one in outputs]))


def texts(output):
    return {
        kind: data for kind, data in output.get("data", {}).items() if not kind.startswith("image/")
    }


@pytest.mark.proof
@pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client", "ignore::ResourceWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    """In a copy of what it needs, and what it says has the form of what was committed."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    for name in ("configs", "convert", "dit_jax", "launch.py"):
        os.symlink(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(tmp_path / "examples")}}
    how = dict(timeout=DONE, kernel_name="python3", resources=place)
    nbclient.NotebookClient(notebook, **how).execute()
    ran = [cell for cell in notebook.cells if cell["cell_type"] == "code"]
    for cell, committed in zip(ran, code(path), strict=True):
        assert kinds(cell) == kinds(committed)


def kinds(cell):
    return [(one["output_type"], sorted(one.get("data", ()))) for one in cell["outputs"]]

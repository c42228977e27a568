"""Every command and every line of Python in docs/predict.md, run as it stands."""

import contextlib
import io
import json
import shlex

import numpy as np
import pytest
from command_line import launched
from PIL import Image
from places import ROOT
from small_models import PLAIN, write_model

from dit_jax.data.shapes import dataset
from dit_jax.eval import score
from dit_jax.eval.prediction_files import encoded


def blocks():
    """The indented blocks of the page, without their indentation."""
    found = [[]]
    for line in (ROOT / "docs" / "predict.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("    "):
            found[-1].append(line[4:])
        elif not line and found[-1]:
            found[-1].append("")
        elif found[-1]:
            found.append([])
    return ["\n".join(block).strip() for block in found if block]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where a reader would stand: models, pictures, and the file of pairs that the page shows."""
    folder = tmp_path_factory.mktemp("reader")
    write_model(folder / "mini")
    write_model(folder / "models/sam_vit_b", **PLAIN)
    (folder / "photos").mkdir()
    for number, scene in ((1, 1878), (2, 1446)):
        drawn = dataset.scene("val", scene, size=128)
        Image.fromarray(drawn.image()).save(folder / f"photos/{number}.png")
    return folder


def command(line):
    """What a line for a shell says."""
    python, launch, *words = shlex.split(line.replace("\\\n", " "))
    assert (python, launch) == ("python", "launch.py")
    done = launched(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_python(place, monkeypatch):
    monkeypatch.chdir(place)
    code = "\n".join(
        block for block in blocks() if any(name in block for name in ("segmenter", "sam(", "sam."))
    )
    names, said = {}, io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(code, names)
    assert [line.rpartition(" ")[0] for line in said.getvalue().splitlines()] == [
        "the red star",
        "the blue square",
    ]
    assert len(names["masks"]) == 3 and names["best"].mask.dtype == bool
    assert names["picture"].height == 128


def test_commands(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    commands = [part for block in blocks() for part in block.split("\n\n") if "python " in part]
    everything, *commands = commands
    prompted = commands.pop(1)
    assert len(commands) == 3
    assert " objects in 2 pictures are in out/everything.\n" in command(everything)
    assert command(prompted) == "6 masks of 1 picture are in out/points.\n"
    (place / "photos/pairs.jsonl").write_text(next(b for b in blocks() if b.startswith("{")))
    pairs = (place / "photos/pairs.jsonl").read_text().split("\n\n")[0]
    (place / "photos/pairs.jsonl").write_text(pairs + "\n")
    assert command(commands[0]) == "4 masks of 2 pictures are in out/stars.\n"
    for shown in next(block for block in blocks() if block.startswith("masks/")).splitlines():
        assert (place / "out/stars" / shown.split()[0]).is_file()
    assert command(commands[1]) == "3 masks of 2 pictures are in out/pairs.\n"
    (place / "out/scored").mkdir()
    line = json.loads((place / "out/pairs/predictions.jsonl").read_text().splitlines()[0])
    line["truth"] = encoded(np.eye(*line["size"], dtype=bool))
    (place / "out/scored/predictions.jsonl").write_text(json.dumps(line) + "\n")
    assert commands[2].startswith("python -m dit_jax.eval.score ")
    score.main(shlex.split(commands[2])[3:])
    assert "original" in capsys.readouterr().out

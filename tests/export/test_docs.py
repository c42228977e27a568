"""The commands and programs of docs/deploy.md and docs/model-card.md, as they stand there."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest
from command_line import launched
from exporting import BERT, SMALL, VIT, drawn, random_params
from PIL import Image
from places import ROOT

from dit_jax.data.shapes.dataset import VOCAB
from dit_jax.eval import report
from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Architecture, Injection
from dit_jax.train import optim
from dit_jax.weights import directory

FROZEN = ("image_encoder", "text_encoder")
ARCH = Architecture(VIT, BERT, Injection.LAYER_WISE, **SMALL)


def blocks(name):
    """The indented blocks of a page."""
    text = (ROOT / "docs" / name).read_text()
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, flags=re.MULTILINE)
    return [textwrap.dedent(block).strip() for block in found]


def commands(name):
    """Every line that begins like a command, its continuations joined."""
    lines = [line for block in blocks(name) for line in block.replace("\\\n", "").splitlines()]
    return [line for line in lines if re.match(r"(\S+/)?python |make ", line)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what the pages speak of."""
    folder = tmp_path_factory.mktemp("place")
    start = random_params(ARCH)
    trainable, frozen = optim.partition(start, FROZEN)
    street = optim.combine(jax.tree.map(lambda x: x + np.float32(0.1), trainable), frozen)
    for name, params in {
        "runs/quickstart/model": start,
        "models/start": start,
        "runs/street/model": street,
    }.items():
        directory.save(folder / name, ARCH, params, vocab=VOCAB)
    scores = {"original": {"reported": ["oIoU"], "oIoU": 61.25, "n": 8, "protocol": "original"}}
    for split, row in {"val": scores}.items():
        eval_folder = folder / "runs/quickstart"
        full = {name: {**one, "remarks": {}} for name, one in row.items()}
        full["original"] |= dict.fromkeys(("mIoU", "gIoU", "P@0.5", "P@0.6", "P@0.7"), 50.0)
        full["original"] |= dict.fromkeys(("P@0.8", "P@0.9", "N-acc", "T-acc"), 50.0)
        report.write_scores(eval_folder, "shapes", split, full)
    Image.fromarray(drawn(60, 90)).save(folder / "photo.jpg")
    return folder


def run(command, place):
    """In this process what is the project's, in one of its own what it has written."""
    _, *words = shlex.split(command, comments=True)
    if words[0] == "launch.py":
        done = launched(*words[1:])
    else:
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        how = dict(cwd=place, env=env, capture_output=True, text=True, timeout=240)
        done = subprocess.run([sys.executable, *words], **how)
    assert done.returncode == 0, f"{command}\n{done.stderr}"


# What is in a command → the package without which it is not run; `make onnx` has the first.
NEEDS = {"onnx": "jax2onnx", ".pth": "torch"}


def test_every_command(place, monkeypatch):
    """In the page's order; those of `NEEDS` where its packages are."""
    monkeypatch.chdir(place)
    found = commands("deploy.md") + commands("model-card.md")
    assert len(found) >= 8
    for command in found:
        needs = [package for word, package in NEEDS.items() if word in command]
        if command.startswith("make ") or not all(map(importlib.util.find_spec, needs)):
            continue
        run(command, place)
    whole, pack = place / "models/street", place / "packs/street"
    expected = params_lib.flatten(directory.read(place / "runs/street/model")[1])
    for path, value in params_lib.flatten(directory.read(whole)[1]).items():
        np.testing.assert_array_equal(value, expected[path])
    assert (pack / "pack.safetensors").is_file() and (place / "photo-2.png").is_file()
    card = (place / "models/shapes/README.md").read_text()
    assert "| shapes | val | original | 61.25 |" in card and "license: apache-2.0" in card


def test_every_program(place, monkeypatch):
    """After the commands, which make what they read."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", [*sys.path])
    programs = [block for block in blocks("deploy.md") if re.match(r"(import|from) ", block)]
    assert len(programs) == 4
    for program in programs:
        exec(compile(program, "deploy.md", "exec"), {})

"""docs/serve.md, as it stands: its commands and its program, of a server that listens; deploy/."""

import json
import re
import shlex
import shutil
import subprocess
import textwrap
import threading

import numpy as np
import pytest
import yaml
from absl import flags
from absl.testing import flagsaver
from photos import encoded, photo
from places import ROOT
from small_models import PLAIN, write_model

from dit_jax import Segmenter, cli
from dit_jax.data import shapes
from dit_jax.serve import server

TEXT = (ROOT / "docs/serve.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = write_model(tmp_path_factory.mktemp("sam") / "sam", **PLAIN)
    segmenter = Segmenter.from_pretrained(folder, batch_size=2)
    how = dict(name="mini_sam", host="127.0.0.1", port=0, deadline=60.0)
    running, served, one = server.make_server(segmenter, **how)
    served.ready.set()
    thread = threading.Thread(target=running.run, args=([one],), daemon=True)
    thread.start()
    yield f"localhost:{one.getsockname()[1]}"
    running.should_exit = True
    thread.join(60)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(encoded(photo(), "JPEG"))


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")
def test_its_commands(address, photos):
    commands = re.findall(r"^    (curl .*)$", TEXT, re.MULTILINE)
    said = {}
    for command in commands:
        words = shlex.split(command.replace("localhost:8000", address))
        done = subprocess.run([*words, "--noproxy", "*"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said[re.search(r"8000/(\S+)", command)[1]] = done.stdout
    assert len(said) == 5
    (answer,) = json.loads(said["v1/segment"])["answers"]
    assert answer["mask"]["size"] == [48, 70]
    assert json.loads(said["v1/everything"])["size"] == [48, 70]
    assert json.loads(said["readyz"]) == {"ready": True}
    assert "dit_jax_batch_rows" in said["metrics"]


def test_its_program(address, photos):
    program = re.search(r"^    import base64.*?(?=^\S)", TEXT, re.MULTILINE | re.DOTALL)[0]
    exec(textwrap.dedent(program).replace("localhost:8000", address), {})


@pytest.mark.proof
def test_scores_in_words():
    """docs/see.md: of 400 expressions, how many of a word's answers have an IoU of 0.5 and more."""
    script = (ROOT / "dit_jax/serve/page/list.js").read_text(encoding="utf-8")
    sure, fairly = (float(least) for least in re.findall(r"\[([\d.]+), \"", script))
    segmenter = Segmenter.from_pretrained("mini", batch_size=8)
    right = {"sure": [], "fairly": [], "unsure": []}
    for i in range(400):
        scene = shapes.scene("val", i, size=128)
        target = scene.targets[i % len(scene.targets)]
        (found,) = segmenter(scene.image(), target.expressions[0].text)
        true = scene.mask(target.number)
        iou = (found.mask & true).sum() / max(1, (found.mask | true).sum())
        word = "sure" if found.score >= sure else "fairly" if found.score >= fairly else "unsure"
        right[word].append(iou >= 0.5)
    shares = [round(100 * float(np.mean(right[word]))) for word in right]
    text = (ROOT / "docs/see.md").read_text(encoding="utf-8")
    said = re.search(r"(\d+) % of its .sure. answers, in (\d+) % .*, and in (\d+) % of", text)
    np.testing.assert_allclose(shares, [int(share) for share in said.groups()], atol=1)


def test_the_container_starts_what_the_command_line_knows():
    text = (ROOT / "deploy/serve.Dockerfile").read_text(encoding="utf-8")
    program, mode, *words = (
        word
        for line in re.findall(r"^(?:ENTRYPOINT|CMD) (\[.*\])$", text, re.MULTILINE)
        for word in json.loads(line)
    )
    assert program == "dit-jax"
    with flagsaver.flagsaver():
        cli.parse([program, f"--mode={mode}", *words])
        cli.check_flags(cli.MODES["serve"])
        assert (flags.FLAGS.host, flags.FLAGS.port, flags.FLAGS.model) == (
            "0.0.0.0",
            8000,
            "/model",
        )
    composed = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text(encoding="utf-8"))
    service = composed["services"]["serve"]
    assert (
        ROOT / "deploy" / service["build"]["context"] / service["build"]["dockerfile"]
    ).is_file()
    assert service["ports"] == ["127.0.0.1:8000:8000"] and service["read_only"] is True
    assert service["volumes"] == ["${MODEL:?a model directory}:/model:ro"]
    assert int(service["stop_grace_period"][:-1]) > server.DEADLINE

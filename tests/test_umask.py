"""Files and folders are for whom the user's umask says, whoever writes them and however."""

import os
import stat

import numpy as np
import pytest
from PIL import Image
from runs import compiling_once, config_of, shrink
from small_models import WORDS, architecture, random_params

from dit_jax.convert import checkpoint
from dit_jax.convert.reverse import reverse
from dit_jax.data.prepare import prepare
from dit_jax.data.shapes import dataset
from dit_jax.export import formats, stablehlo
from dit_jax.figures.__main__ import main as figures
from dit_jax.models import params as params_lib
from dit_jax.predict import command
from dit_jax.train import loop, probing
from dit_jax.weights import directory, packs
from examples import own_data as example


@pytest.fixture(params=[0o022, 0o077], ids=["022", "077"])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture(scope="module", autouse=True)
def small(programs):
    with pytest.MonkeyPatch.context() as patch, compiling_once(programs):
        shrink(patch)
        yield


def check(folder, umask, *, at_least):
    found = [path for path in folder.rglob("*") if not path.is_symlink()]
    modes = {path.relative_to(folder): stat.S_IMODE(path.stat().st_mode) for path in found}
    others = {
        str(path): oct(mode)
        for path, mode in modes.items()
        if mode != (0o777 if (folder / path).is_dir() else 0o666) & ~umask
    }
    assert not others
    assert at_least <= {path.name for path in modes}


def test_models_in_every_form(umask, tmp_path, monkeypatch):
    arch = architecture()
    params = random_params(arch)
    unused = {"logit_scale": np.zeros(3, np.float32)}
    directory.save(tmp_path / "base", arch, params, vocab=dataset.VOCAB, unused=unused)
    flat = params_lib.flatten(params)
    tensors = {path: value for path, value in flat.items() if path.startswith("text_encoder.")}
    directory.save_text_encoder(tmp_path / "bert", WORDS["bert"], tensors)
    moved = {path: v + path.startswith("mask_decoder.") for path, v in flat.items()}
    directory.save(tmp_path / "own", arch, params_lib.unflatten(moved), vocab=dataset.VOCAB)
    packs.save(tmp_path / "own", tmp_path / "base", tmp_path / "pack")
    reverse(tmp_path / "own", tmp_path / "hf", form="hf-sam")
    formats.export(tmp_path / "own", tmp_path / "whole", form="safetensors")
    formats.export(tmp_path / "own", tmp_path / "packed", form="pack", base=tmp_path / "base")
    monkeypatch.setattr(stablehlo, "INSIDE", 0)
    formats.export(tmp_path / "own", tmp_path / "program", form="stablehlo")
    written = {"model.safetensors", "unused.safetensors", "pack.safetensors", "vocab.txt"}
    written |= {"weights.safetensors", "manifest.json", "README.md", "run.py"}
    check(tmp_path, umask, at_least=written)


def test_checkpoints_of_pytorch(umask, tmp_path):
    pytest.importorskip("torch")
    checkpoint.write(tmp_path / "a.pth", {"weight": np.zeros(3, np.float32)})
    check(tmp_path, umask, at_least={"a.pth"})


def test_records(umask, tmp_path):
    example.draw(tmp_path / "photos", counts={"train": 2, "val": 1})
    prepare("folder", "", source=tmp_path / "photos", out_dir=tmp_path / "records")
    check(tmp_path, umask, at_least={"features.json", "manifest.json"})


@pytest.mark.proof
def test_a_run_and_what_it_answers(umask, tmp_path):
    workdir, out = tmp_path / "run", tmp_path / "out"
    config = config_of(optim__max_steps=2, checkpoint__every_steps=1, eval__predictions=True)
    loop.train(config, workdir)
    probing.probe(config, workdir)
    Image.fromarray(dataset.scene("val", 1, size=64).image()).save(tmp_path / "scene.png")
    asked = dict(images=[str(tmp_path / "scene.png")], texts=["the red star"])
    command.predict(workdir / "model", out, **asked)
    assert figures(["curves", str(workdir), f"--out={tmp_path / 'curves.png'}"]) in (0, None)
    written = {"config.json", "run.json", "metrics.jsonl", "report.md", "shapes-val-dit.json"}
    written |= {"model.safetensors", "checksums.json", "predictions.jsonl", "curves.png"}
    check(tmp_path, umask, at_least=written)

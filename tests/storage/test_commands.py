"""Commands whose paths are in a bucket; training and what follows is in tests/train."""

import importlib.util
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from bucket import bucket
from command_line import launched
from runs import flags_of
from small_models import PLAIN, write_model

from dit_jax import config_file, storage
from dit_jax.convert.__main__ import main as convert
from dit_jax.eval import score
from dit_jax.eval.prediction_files import encoded
from dit_jax.figures.__main__ import main as figures
from dit_jax.predict import pairs
from dit_jax.train.placement import compile_cache
from dit_jax.weights import directory, hub


@pytest.fixture(scope="module")
def server():
    with bucket() as one:
        yield one


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def put(name, data):
    storage.write(storage.Name("gs", f"bucket/{name}"), data)


def test_convert(server, tmp_path, capsys):
    with storage.written("gs://bucket/models/sam") as folder:
        write_model(folder, **PLAIN)
    places = ("gs://bucket/models/sam", "gs://bucket/hf")
    assert convert(["reverse", "--format=hf-sam", *places]) == 0, capsys.readouterr().err
    assert convert(["sam", "gs://bucket/hf", "gs://bucket/models/again"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("gs://bucket/models/again: Archit")
    weights = "model.safetensors"
    assert server.read(f"models/again/{weights}") == server.read(f"models/sam/{weights}")
    assert convert(["sam", "gs://bucket/hf", "gs://bucket/models/again"]) == 1
    assert "gs://bucket/models/again is not empty; choose" in capsys.readouterr().err
    assert convert(["sam", "gs://bucket/hf", "gs://bucket/hf", "--overwrite"]) == 1
    assert "gs://bucket/hf lies in gs://bucket/hf, which would be" in capsys.readouterr().err


def test_curves(server):
    put("run/metrics.jsonl", b'{"step": 1, "train/loss": 1.0}\n{"step": 2, "train/loss": 0.5}\n')
    assert figures(["curves", "gs://bucket/run", "--out", "gs://bucket/curves.png"]) == 0
    assert server.read("curves.png").startswith(b"\x89PNG")


def test_score(server):
    mask = encoded(np.eye(4, dtype=bool))
    line = {"id": "a", "text": "b", "image_id": 1, "size": [4, 4], "mask": mask, "truth": mask}
    put("predictions.jsonl", json.dumps(line).encode())
    places = ["--json=gs://bucket/scores/all.json", "--markdown=gs://bucket/scores/all.md"]
    score.main(["gs://bucket/predictions.jsonl", "--protocols=original", "--bootstrap=0", *places])
    assert json.loads(server.read("scores/all.json"))["predictions"]["original"]["oIoU"] == 100.0
    assert b"100.0" in server.read("scores/all.md")


def test_pairs_name_pictures_beside_them(server):
    picture = cv2.imencode(".png", np.zeros((4, 6, 3), np.uint8))[1].tobytes()
    put("asked/photos/a.png", picture)
    put("asked/pairs.jsonl", b'{"image": "photos/a.png", "text": "star"}\n')
    (task,) = pairs.read(storage.local("gs://bucket/asked/pairs.jsonl"))
    assert task.given == "photos/a.png"
    assert task.image.read_bytes() == picture
    assert storage.named(task.image) == "gs://bucket/asked/photos/a.png"


def test_weights_bring_what_lies_beside_them(server):
    put("bert/pytorch_model.bin", b"weights")
    put("bert/config.json", b"{}")
    put("bert/vocab.txt", b"[PAD]\n")
    path = hub.local("gs://bucket/bert/pytorch_model.bin")
    names = sorted(one.name for one in path.parent.iterdir())
    assert names == ["config.json", "pytorch_model.bin", "vocab.txt"]


def test_a_folder_without_a_model_is_named(server):
    put("half/model.safetensors", b"x")
    with pytest.raises(FileNotFoundError) as told:
        directory.read(hub.local("gs://bucket/half"))
    said = storage.shown(str(told.value))
    assert said == "gs://bucket/half is no model directory: it has no config.json."


def test_a_config_file(server):
    put("configs/mine.py", b"def get_config(argument): ...\n")
    words = ["--config", "gs://bucket/configs/mine.py:a,b"]
    name, _, path = config_file.joined(words)[0].partition("=")
    assert name == "--config" and path.endswith("/gs/bucket/configs/mine.py:a,b")
    assert Path(path.removesuffix(":a,b")).read_text().startswith("def get_config")


def test_compiled_programs_go_there_directly(server, monkeypatch):
    monkeypatch.delenv(compile_cache.VARIABLE, raising=False)
    with storage.written("gs://bucket/run") as workdir:
        assert str(compile_cache.folder("", workdir)) == "gs://bucket/run/compiled"
    assert str(compile_cache.folder("gs://bucket/xla", workdir)) == "gs://bucket/xla"


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--workdir=gs://bucket/run", "gs://bucket/run needs gcsfs: pip install 'dit_jax[gcs]'."),
        ("--config.data.cache_dir=s3://bucket/x", "s3://bucket/x needs s3fs: pip install"),
        ("--config.data.dataset=folder(s3://b/x)", "s3://b/x needs s3fs: pip install"),
        ("--workdir=ftp://bucket/run", "ftp://bucket/run is no place; expected a path, gs://BUCK"),
    ],
)
def test_what_cannot_be_reached_is_said_before_anything(flag, says, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    missing = ("gcsfs", "s3fs")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in missing else find(name, *a)
    )
    done = launched(*flags_of(), f"--workdir={tmp_path / 'run'}", flag)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {says}") and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())

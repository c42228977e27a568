"""Names on the hub in place of paths, against a server of its addresses on loopback."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import launched
from hub_server import Hub, commit_of, serving
from PIL import Image
from runs import config_of
from safetensors.numpy import save
from small_models import architecture, random_params, write_model

import dit_jax
from dit_jax import cli
from dit_jax.convert import beside, names, transfer
from dit_jax.convert.__main__ import main as convert
from dit_jax.data import shapes
from dit_jax.export import formats
from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Architecture, Bert, Injection, Vit
from dit_jax.train import model as models
from dit_jax.weights import directory, hub, manifest
from dit_jax.weights import push as pushing

constants = pytest.importorskip("huggingface_hub.constants", reason="the extra `hub`")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub without repositories; an empty cache; nobody is logged in."""
    found = Hub()
    with serving(found) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))  # of other processes
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_TOKEN"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.lower(), raising=False)
        yield found


VIT = Vit(depth=2, width=32, heads=2, global_blocks=(1,), window=3, grid=4)
BERT = Bert(vocab=200, depth=2, width=48, heads=6, mlp_width=64, positions=32)


def sam_state():
    arch = Architecture(VIT, None, Injection.NONE, image_size=64, windowed=True)
    state = transfer.to_state(params_lib.flatten(random_params(arch)))
    return {names.HF_SAM.write(name): np.ascontiguousarray(v) for name, v in state.items()}


def bert_files():
    arch = Architecture(Vit(1, 16, 1, (0,), grid=1), BERT, Injection.NONE, text_layer=1)
    state = transfer.to_state(params_lib.flatten(random_params(arch)))
    state = {
        name.removeprefix("lang_encoder."): np.ascontiguousarray(value)
        for name, value in state.items()
        if name.startswith("lang_encoder.")
    }
    config = {theirs: getattr(BERT, ours) for ours, theirs in beside.BERT_KEYS.items()}
    return {
        "model.safetensors": save(state),
        "config.json": json.dumps({"model_type": "bert", **config}).encode(),
        "vocab.txt": shapes.VOCAB.read_bytes(),
        "pytorch_model.bin": b"never fetched",
        "onnx/model.onnx": b"never fetched",
        "onnx/config.json": b"never fetched",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://a/b", hub.Name("a/b")),
        ("hf:/a/b", hub.Name("a/b")),  # through a path object
        ("hf://a/b/", hub.Name("a/b")),
        ("hf://a/b.c-d@v1.0", hub.Name("a/b.c-d", "v1.0")),
        ("hf://a/b@refs/pr/3", hub.Name("a/b", "refs/pr/3")),
        ("hf://a/b@refs/pr/3/x.pth", hub.Name("a/b", "refs/pr/3", "x.pth")),
        ("hf://a/b/c/d.pth", hub.Name("a/b", None, "c/d.pth")),
        ("models/a", None),
        ("/hf://a", None),
    ],
)
def test_names(text, expected):
    assert hub.parse(text) == expected
    if expected is not None:
        assert hub.parse(str(expected)) == expected


@pytest.mark.parametrize("text", ["hf://", "hf://a", "hf://a/b@", "hf://a b/c", "hf://a/b/../c"])
def test_what_is_no_name(text):
    with pytest.raises(ValueError, match=r"is no name on the hub; expected hf://org/name\[@rev"):
        hub.parse(text)


def test_paths_stay_paths(tmp_path, monkeypatch):
    """What is here, and what cannot be a repository, is asked of nobody."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "_download", lambda name: pytest.fail("asked the hub"))
    (tmp_path / "models").mkdir()
    for path in ("models", "models/typo", "none", "a/b/c", "./a/b", "/a/b", "a/b.pth", "../a/b"):
        assert hub.local(path) == Path(path)


def test_sam_and_bert_by_name(server, tmp_path, capsys):
    """`convert` and `assemble`; nothing pickled and no other format is fetched."""
    server.repos["facebook/sam"] = {"main": {"model.safetensors": save(sam_state())}}
    server.repos["org/bert"] = {"main": bert_files()}
    assert convert(["sam", "hf://facebook/sam", str(tmp_path / "sam")]) == 0
    assert convert(["bert", "hf://org/bert", str(tmp_path / "bert")]) == 0
    assert directory.read(tmp_path / "sam")[0].vit == VIT
    found = directory.read_contents(tmp_path / "bert")
    assert found.bert == BERT and found.provenance["source"] == "hf://org/bert"
    assert directory.vocab_path(tmp_path / "bert").read_bytes() == shapes.VOCAB.read_bytes()
    assert not [asked for asked in server.asked if ".bin" in asked or "onnx" in asked]
    before = len(server.asked)
    assert convert(["bert", "hf://org/bert", str(tmp_path / "again")]) == 0
    assert not [asked for asked in server.asked[before:] if "resolve" in asked]  # the cache


def test_a_bare_name_is_taken_with_a_hint(server, tmp_path, capsys):
    server.repos["org/bert"] = {"main": bert_files()}
    assert convert(["bert", "org/bert", str(tmp_path / "out")]) == 0
    hint = "org/bert is no file or folder here; taken as hf://org/bert."
    assert hint in capsys.readouterr().err
    assert convert(["bert", "org/other", str(tmp_path / "b")]) == 1
    said = capsys.readouterr().err
    assert "there is no hf://org/other on the hub, or it is private" in said
    assert "nor is there a file or folder org/other here" in said


def test_revisions(server, tmp_path):
    """A branch, a commit, a pull request; and one that does not exist."""
    old, new = bert_files(), bert_files() | {"vocab.txt": b"[PAD]\n"}
    server.repos["org/bert"] = {"main": new, "v1": old, "refs/pr/1": old}
    for revision in ("v1", commit_of(old), "refs/pr/1"):
        folder = hub.local(f"hf://org/bert@{revision}")
        assert (folder / "vocab.txt").read_bytes() == old["vocab.txt"]
    assert (hub.local("hf://org/bert") / "vocab.txt").read_bytes() == b"[PAD]\n"
    with pytest.raises(ValueError, match="hf://org/bert has no revision v2"):
        hub.local("hf://org/bert@v2")


def test_pickles_are_fetched_only_by_their_name(server, tmp_path):
    files = bert_files()
    weights = files.pop("model.safetensors")
    server.repos["org/old"] = {"main": files | {"sub/model.safetensors": weights}}
    with pytest.raises(FileNotFoundError, match="What is pickled is fetched only by its name"):
        hub.local("hf://org/old")
    path = hub.local("hf://org/old/pytorch_model.bin")
    assert path.read_bytes() == b"never fetched"
    assert path.with_name("config.json").is_file()  # which says what tensors cannot
    assert hub.local("hf://org/old/sub/model.safetensors").read_bytes() == weights
    with pytest.raises(FileNotFoundError, match="hf://org/old has no file none.pth"):
        hub.local("hf://org/old/none.pth")


def test_without_network(server, tmp_path, monkeypatch):
    """The cache answers; what is not in it is one sentence."""
    server.repos["org/bert"] = {"main": bert_files()}
    here = hub.local("hf://org/bert")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert hub.local("hf://org/bert") == here
    with pytest.raises(OSError, match="none is not in the hub's cache here, and the hub cannot"):
        hub.local("hf://org/none")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub.local("hf://org/bert") == here
    with pytest.raises(OSError, match="not in the hub's cache here, and HF_HUB_OFFLINE is set"):
        hub.local("hf://org/none")


def test_gated(server):
    server.repos["org/bert"] = {"main": bert_files()}
    server.gated.add("org/bert")
    with pytest.raises(ValueError, match="hf://org/bert is gated: ask for it on its page"):
        hub.local("hf://org/bert")


def test_without_the_package(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'dit_jax\[hub\]'"):
        hub.local("hf://org/bert")


def test_a_model_is_sent_and_read(server, tmp_path, monkeypatch, capsys):
    """Exported, pushed, and asked by its name: the same masks."""
    write_model(tmp_path / "model")
    how = dict(form="safetensors", license="Apache-2.0")
    formats.export(tmp_path / "model", tmp_path / "out", **how)
    (tmp_path / "out" / "notes.txt").write_text("stay here")
    monkeypatch.setattr(sys, "argv", ["dit-jax", "push", str(tmp_path / "out"), "hf://org/street"])
    assert cli.console() == 0
    assert "/org/street" in capsys.readouterr().out
    sent = server.repos["org/street"]["main"]
    noted = manifest.read(tmp_path / "out")
    assert sent.keys() == {*noted.files, "manifest.json", "README.md"}
    assert sent["README.md"].startswith(b"---\nlicense: apache-2.0\nlibrary_name: dit_jax\n")
    for name, content in sent.items():
        assert content == (tmp_path / "out" / name).read_bytes()
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    for load in ("hf://org/street", "hf://org/street@main"):
        (theirs,) = dit_jax.Segmenter.from_pretrained(load)(picture, "the red circle")
        (ours,) = dit_jax.Segmenter.from_pretrained(tmp_path / "model")(picture, "the red circle")
        np.testing.assert_array_equal(theirs.probability, ours.probability)
    assert dit_jax.load("hf://org/street").arch == architecture()


def test_a_card_is_written_where_there_is_none(server, tmp_path):
    write_model(tmp_path / "model")
    pushing.push(tmp_path / "model", "hf://org/street", private=True)
    assert server.private["org/street"]
    card = server.repos["org/street"]["main"]["README.md"].decode()
    assert card.startswith("---\nlicense: unknown\n") and "\n# street\n" in card
    assert '= dit_jax.load("hf://org/street")\n' in card
    pushing.push(tmp_path / "model", "hf://org/street")  # once more: the same repository
    formats.export(tmp_path / "model", tmp_path / "int8", form="int8")
    (tmp_path / "int8" / "README.md").unlink()
    pushing.push(tmp_path / "int8", "hf://org/small")
    card = server.repos["org/small"]["main"]["README.md"].decode()
    assert 'from_pretrained("hf://org/small")\n' in card and "matrices are int8" in card


def test_what_is_not_sent(server, tmp_path):
    folder = write_model(tmp_path / "model")
    (folder / "README.md").write_text("# My model\n")
    with pytest.raises(ValueError, match="does not begin with a metadata block"):
        pushing.push(folder, "hf://org/street")
    for name in ("org/street", "models/a", "hf://org/street/file.txt"):
        with pytest.raises(ValueError, match="is no repository on the hub; expected hf://org/name"):
            pushing.push(folder, name)
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    with pytest.raises(ValueError, match="is damaged"):
        pushing.push(folder, "hf://org/street")
    assert not server.repos


def test_training_and_the_command_line_take_names(server, tmp_path, monkeypatch, capsys):
    server.repos["org/bert"] = {"main": bert_files()}
    config = config_of(model__text_encoder="hf://org/bert")
    assert config.architecture().bert == BERT
    bert = Path(models.weights(config.model).bert)
    assert (bert / "model.safetensors").is_file()
    assert models.vocabulary(config.model, drawn=True) == bert / "vocab.txt"
    pushing.push(write_model(tmp_path / "model"), "hf://org/street")
    picture = tmp_path / "a.png"
    Image.new("RGB", (30, 20), "red").save(picture)
    words = ["predict", "--model=hf://org/street", f"--images={picture}", "--text=the circle"]
    done = launched(*words, f"--out={tmp_path / 'masks'}")
    assert done.returncode == 0, done.stderr
    assert any((tmp_path / "masks").rglob("*.png"))

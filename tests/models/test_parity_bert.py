"""Live parity with `transformers`' BERT: every layer, name style, padding, both file formats."""

import numpy as np
import pytest
from closeness import assert_close
from peers import torch, transformers

from dit_jax.convert.__main__ import main as convert
from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Architecture, Injection, Vit
from dit_jax.weights import directory

DEPTH = 3
IDS = np.array([[1, 7, 9, 11, 2, 0, 0], [1, 3, 2, 0, 0, 0, 0], [1, 4, 5, 6, 7, 8, 2]])


@pytest.fixture(scope="module")
def theirs():
    return random_bert()


def random_bert(**changes):
    torch.manual_seed(0)
    small = dict(
        vocab_size=50,
        hidden_size=64,
        num_hidden_layers=DEPTH,
        num_attention_heads=1,
        intermediate_size=96,
        max_position_embeddings=32,
    )
    model = transformers.BertModel(transformers.BertConfig(**(small | changes))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model


def old_names(state):
    return {
        f"bert.{k}".replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): v
        for k, v in state.items()
    }


STYLES = {
    "plain": lambda s: s,
    "prefixed": lambda s: {f"bert.{k}": v for k, v in s.items()},
    "pre-training": lambda s: (
        {f"bert.{k}": v for k, v in s.items()} | {"cls.predictions.bias": torch.zeros(50)}
    ),
    "gamma and beta": old_names,
}


def write(state, path):
    from safetensors.torch import save_file  # needs PyTorch

    state = {k: v.contiguous() for k, v in state.items()}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return str(path)


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
@pytest.mark.parametrize("style", STYLES)
def test_names(theirs, tmp_path, style, suffix):
    source = write(STYLES[style](theirs.state_dict()), tmp_path / f"bert{suffix}")
    assert convert(["bert", source, str(tmp_path / "out")]) == 0
    contents = directory.read_contents(tmp_path / "out")
    assert contents.bert.depth == DEPTH and contents.bert.heads == 1
    expected = theirs.embeddings.LayerNorm.weight.detach().numpy()
    np.testing.assert_array_equal(contents.tensors["text_encoder.embeddings.norm.scale"], expected)


# What leaves no trace in the tensors, and stands in config.json.
UNTOLD = {
    "four heads": dict(num_attention_heads=4),
    "relu": dict(hidden_act="relu"),
    "gelu_new": dict(hidden_act="gelu_new", num_attention_heads=2),
    "gelu_fast": dict(hidden_act="gelu_fast"),
    "epsilon 1e-3": dict(layer_norm_eps=1e-3),
    "epsilon 1e-5": dict(layer_norm_eps=1e-5, num_attention_heads=8),
}


# Every config once, and `make proof` beside the other kind of file too.
@pytest.mark.parametrize(
    ("which", "safe"),
    [
        pytest.param(which, safe, marks=() if i % 2 == safe else pytest.mark.proof)
        for i, which in enumerate(UNTOLD)
        for safe in (False, True)
    ],
)
def test_a_folder_of_hugging_face(tmp_path, which, safe):
    """`convert bert FOLDER` computes what the config beside the tensors says."""
    theirs = random_bert(**UNTOLD[which])
    theirs.save_pretrained(tmp_path / "theirs")
    if not safe:
        (tmp_path / "theirs" / "model.safetensors").unlink()
        torch.save(theirs.state_dict(), tmp_path / "theirs" / "pytorch_model.bin")
    assert convert(["bert", str(tmp_path / "theirs"), str(tmp_path / "out")]) == 0
    check_layer(theirs, tmp_path / "out", DEPTH)


@pytest.mark.parametrize("layer", range(1, DEPTH + 1))
def test_every_layer(theirs, tmp_path, layer):
    source = write(theirs.state_dict(), tmp_path / "bert.bin")
    assert convert(["bert", source, str(tmp_path / "out")]) == 0
    check_layer(theirs, tmp_path / "out", layer)


def check_layer(theirs, folder, layer):
    """One layer of a model directory against PyTorch's."""
    contents = directory.read_contents(folder)
    vit = Vit(depth=1, width=16, heads=1, global_blocks=(0,), grid=1)
    arch = Architecture(vit, contents.bert, Injection.NONE, text_layer=layer)
    graph, _ = params_lib.structure(arch)
    flat = params_lib.flatten(params_lib.init(arch)) | contents.tensors
    model = params_lib.merge(graph, params_lib.unflatten(flat))
    mask = (IDS != 0).astype(np.int32)
    with torch.no_grad():
        expected = theirs(
            torch.from_numpy(IDS), torch.from_numpy(mask), output_hidden_states=True
        ).hidden_states[layer]
    assert_close(model.encode_text(IDS.astype(np.int32), mask), expected, f"layer {layer}")

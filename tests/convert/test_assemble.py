"""A model from a SAM and a BERT, and every parameter's name in PyTorch."""

import dataclasses

import numpy as np
import pytest
from checkpoints import BERT, VIT, dit, in_sam, random_state, run, tensors, write_vocab
from peers import torch
from places import TREES

from dit_jax import variants
from dit_jax.convert import checkpoint, layout
from dit_jax.convert.assemble import assemble
from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Architecture, Injection
from dit_jax.weights import directory


@pytest.fixture
def parts(tmp_path):
    """A SAM and a BERT file with random weights, as published ones are named."""
    sam = Architecture(VIT, None, Injection.NONE, windowed=True)
    torch.save(tensors(in_sam(random_state(sam, seed=3))), tmp_path / "sam.pth")
    bert = random_state(dit("none"), "text_encoder.", seed=4)
    prefix = "lang_encoder."
    torch.save(tensors({k.removeprefix(prefix): v for k, v in bert.items()}), tmp_path / "bert.bin")
    return tmp_path / "sam.pth", tmp_path / "bert.bin"


@pytest.mark.parametrize("presence", [False, True])
@pytest.mark.parametrize("injection", list(Injection))
def test_assemble(parts, injection, presence):
    """SAM's and BERT's values arrive; only the paper's own parameters and ours are fresh."""
    sam, bert = parts
    arch = dit(injection, decoder_depth=4, presence=presence)
    flat = params_lib.flatten(assemble(arch, sam=sam, bert=bert))
    fresh = params_lib.flatten(params_lib.init(arch))
    loaded = checkpoint.read(sam, "sam").tensors | checkpoint.read(bert, "bert").tensors
    for path, value in flat.items():
        name = layout.torch_name(path)
        if name in loaded:
            np.testing.assert_array_equal(layout.to_torch(path, value), loaded.pop(name))
        else:
            own = (
                *("image_encoder.injector", "image_encoder.prob_text", "text_proj"),
                "mask_decoder.presence_head",
            )
            assert path.startswith(own) or ".layers.2." in path or ".layers.3." in path, path
            np.testing.assert_array_equal(value, fresh[path])
    assert not loaded


def test_assemble_command(parts, tmp_path, monkeypatch, capsys):
    sam, bert = parts
    monkeypatch.setitem(variants.VARIANTS, "small", variants.Variant("small", Injection.LAYER_WISE))
    monkeypatch.setitem(variants.BACKBONES, "small", VIT)
    monkeypatch.setitem(variants.TEXT_ENCODERS, "base", BERT)
    write_vocab(tmp_path / "vocab.txt", BERT.vocab)
    options = tmp_path / "model", f"--sam={sam}", f"--bert={bert}", "--text-layer=2"
    assert run("assemble", "smal", *options) == 1
    assert "nearest: small" in capsys.readouterr().err
    assert run("assemble", "small", *options) == 0
    assert directory.read(tmp_path / "model")[0].vit == VIT
    assert directory.vocab_path(tmp_path / "model").is_file()


@pytest.mark.parametrize(
    ("width", "lacking", "message"),
    [
        (
            40,
            "nothing",
            "no multiple of 64: give --text-heads to `convert bert` or `convert dit`, or",
        ),
        (64, "position", "it has no tensor bert.embeddings.position_embeddings.weight"),
    ],
)
def test_what_is_wrong_with_the_bert_names_it(parts, capsys, width, lacking, message):
    """Not the SAM; with no advice that `assemble` cannot take."""
    sam, bert = parts
    odd = dataclasses.replace(dit("none").bert, width=width)
    state = random_state(Architecture(VIT, odd, Injection.NONE, text_layer=1), "text_encoder.")
    state = {name.removeprefix("lang_encoder."): value for name, value in state.items()}
    state.pop(f"bert.embeddings.{lacking}_embeddings.weight", None)
    torch.save(tensors(state), bert)
    out = bert.parent / "model"
    assert run("assemble", "ldit_vit_b", out, f"--sam={sam}", f"--bert={bert}") == 1
    said = capsys.readouterr().err
    assert said.startswith(f"convert assemble: {bert}: ") and message in said


def test_assemble_from_model_directories(parts, tmp_path):
    sam, bert = parts
    assert run("sam", sam, tmp_path / "sam") == 0
    assert run("bert", bert, tmp_path / "bert") == 0
    arch = dit("layer_wise", presence=True)
    direct = params_lib.flatten(assemble(arch, sam=sam, bert=bert))
    through = params_lib.flatten(assemble(arch, sam=tmp_path / "sam", bert=tmp_path / "bert"))
    assert direct.keys() == through.keys()
    assert all(np.array_equal(direct[k], through[k]) for k in direct)


def test_assemble_refuses_another_size(parts):
    sam, bert = parts
    other = dataclasses.replace(dit("layer_wise"), vit=dataclasses.replace(VIT, depth=3))
    with pytest.raises(ValueError, match="another ViT .*: depth 2 ≠ 3"):
        assemble(other, sam=sam, bert=bert)
    wide = dataclasses.replace(dit("layer_wise"), bert=dataclasses.replace(BERT, mlp_width=50))
    with pytest.raises(ValueError, match="another BERT .*: mlp_width 48 ≠ 50"):
        assemble(wide, sam=sam, bert=bert)


def test_a_bert_gives_its_first_layers(parts):
    """As many as the model has; what is read of them is the same."""
    arch = dit("layer_wise")
    first = dataclasses.replace(arch, bert=dataclasses.replace(BERT, depth=1))
    ids, mask = np.array([[5, 6, 7, 0]]), np.array([[1, 1, 1, 0]])
    read = [
        params_lib.merge(
            params_lib.structure(made)[0], assemble(made, sam=None, bert=parts[1])
        ).encode_text(ids, mask)
        for made in (arch, first)
    ]
    np.testing.assert_array_equal(*read)
    assert np.abs(read[0]).max() > 0.1


@pytest.mark.parametrize("row", variants.VARIANTS)
def test_every_parameter_has_a_name_in_pytorch(row):
    """At real size, as tests/models/test_trees.py holds it; no two parameters share a name."""
    lines = (TREES / f"{row}.txt").read_text().splitlines()[1:]
    paths = [line.split()[0] for line in lines]
    theirs = [layout.torch_name(path) for path in paths]
    assert len(set(theirs)) == len(paths)

"""Hugging Face's SamModel, in and out: folders, files, shards, half precision, without PyTorch."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints import VIT, dit, run
from closeness import assert_close
from live_sam import meta_names, random_sam
from peers import torch, transformers
from safetensors.numpy import load_file, save_file

import dit_jax
from dit_jax.convert import files
from dit_jax.convert.assemble import assemble
from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Architecture, Injection
from dit_jax.weights import directory


@pytest.fixture(scope="module")
def theirs():
    return random_sam(image=64)


@pytest.fixture
def folder(theirs, tmp_path, capsys):
    theirs.save_pretrained(tmp_path / "theirs")
    capsys.readouterr()  # transformers shows its progress
    return tmp_path / "theirs"


@pytest.fixture
def no_torch(monkeypatch):
    def refuse():
        raise AssertionError("PyTorch was asked for")

    monkeypatch.setattr(files, "require_torch", refuse)


@pytest.fixture(scope="module")
def expected(theirs, tmp_path_factory):
    """The same weights through Meta's names."""
    folder = tmp_path_factory.mktemp("meta")
    torch.save(meta_names(theirs.state_dict()), folder / "sam.pth")
    assert run("sam", folder / "sam.pth", folder / "out") == 0
    return directory.read_contents(folder / "out")


def check(out, expected):
    found = directory.read_contents(out)
    assert found.architecture == expected.architecture
    assert found.tensors.keys() == expected.tensors.keys()
    for path, value in expected.tensors.items():
        np.testing.assert_array_equal(found.tensors[path], value, err_msg=path)


@pytest.mark.parametrize("name", ["", "model.safetensors"])
def test_in_without_pytorch(folder, expected, no_torch, name):
    assert run("sam", folder / name, folder.parent / "out") == 0
    check(folder.parent / "out", expected)


@pytest.mark.parametrize("config", [True, False])
def test_pickled(folder, theirs, expected, config):
    """As older files are: the tied matrix is stored twice."""
    (folder / "model.safetensors").unlink()
    state = theirs.state_dict()
    assert "prompt_encoder.shared_embedding.positional_embedding" in state
    torch.save(state, folder / "pytorch_model.bin")
    if not config:
        (folder / "config.json").unlink()
    assert run("sam", folder, folder.parent / "out") == 0
    check(folder.parent / "out", expected)


def test_a_tied_matrix_that_differs(folder, capsys):
    state = load_file(folder / "model.safetensors")
    matrix = state["shared_image_embedding.positional_embedding"]
    state["prompt_encoder.shared_embedding.positional_embedding"] = matrix + 1
    save_file(state, folder / "model.safetensors")
    assert run("sam", folder, folder.parent / "out") == 1
    assert "holds two tensors for one: " in capsys.readouterr().err


@pytest.mark.parametrize("named", ["", "model.safetensors.index.json", "first"])
def test_shards(theirs, expected, tmp_path, no_torch, named):
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="300KB")
    parts = sorted((tmp_path / "theirs").glob("*.safetensors"))
    assert len(parts) > 2
    source = parts[0] if named == "first" else tmp_path / "theirs" / named
    assert run("sam", source, tmp_path / "out") == 0
    check(tmp_path / "out", expected)


def test_shards_that_are_missing(theirs, tmp_path, capsys):
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="300KB")
    parts = sorted((tmp_path / "theirs").glob("*.safetensors"))
    parts[1].unlink()
    assert run("sam", tmp_path / "theirs", tmp_path / "out") == 1
    assert f"lacks 1 of {len(parts)} shards: {parts[1].name}" in capsys.readouterr().err
    index = tmp_path / "theirs" / "model.safetensors.index.json"
    for content in ("{}", "[1]", "{", '{"weight_map": {"a": "../b"}}', '{"weight_map": {}}'):
        index.write_text(content)
        assert run("sam", tmp_path / "theirs", tmp_path / "out") == 1
        assert "is no index of shards" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_half_precision(theirs, folder, kind, no_torch, capsys):
    dtype = getattr(torch, kind)
    state = {name: value.to(dtype) for name, value in theirs.state_dict().items()}
    state.pop("prompt_encoder.shared_embedding.positional_embedding")
    from safetensors.torch import save_file as save

    save(state, folder / "model.safetensors")
    assert run("sam", folder, folder.parent / "out") == 0
    found = directory.read_contents(folder.parent / "out").tensors
    kernel = found["image_encoder.blocks.0.mlp.lin1.kernel"]
    rounded = state["vision_encoder.layers.0.mlp.lin1.weight"].float().numpy().T
    np.testing.assert_array_equal(kernel, rounded)


def test_eight_bits_are_refused(theirs, folder, capsys):
    from safetensors.torch import save_file as save

    state = {n: v.to(torch.float8_e4m3fn) for n, v in theirs.vision_encoder.state_dict().items()}
    save(state, folder / "model.safetensors")
    assert run("sam", folder, folder.parent / "out") == 1
    assert "is of type F8_E4M3; expected numbers of 16, 32 or 64 bits" in capsys.readouterr().err


def test_out(folder, theirs, capsys):
    """`SamModel.from_pretrained` loads what `reverse` wrote, equal bit for bit."""
    assert run("sam", folder, folder.parent / "out") == 0
    reverse = ("reverse", "--format=hf-sam", folder.parent / "out", folder.parent / "back")
    assert run(*reverse) == 0
    back, info = transformers.SamModel.from_pretrained(
        folder.parent / "back", output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    state = back.state_dict()
    for name, value in theirs.state_dict().items():
        assert torch.equal(state[name], value), name
    for key in ("hidden_size", "window_size", "global_attn_indexes", "image_size", "mlp_dim"):
        assert getattr(back.config.vision_config, key) == getattr(theirs.config.vision_config, key)
    picture = np.zeros((30, 40, 3), np.uint8)
    processor = transformers.SamProcessor.from_pretrained(folder.parent / "back")
    assert processor(images=picture, return_tensors="np")["pixel_values"].shape == (1, 3, 64, 64)
    assert run(*reverse) == 1 and "is not empty" in capsys.readouterr().err
    assert run(*reverse, "--overwrite") == 0
    assert run("sam", folder.parent / "back", folder.parent / "again") == 0
    assert directory.read(folder.parent / "again")[0] == directory.read(folder.parent / "out")[0]


def test_both_compute_the_same(folder, theirs):
    assert run("sam", folder, folder.parent / "out") == 0
    pixels = np.random.default_rng(0).standard_normal((1, 64, 64, 3), np.float32)
    with torch.no_grad():
        expected = theirs.get_image_embeddings(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    actual = dit_jax.load(folder.parent / "out").encode_image(jnp.asarray(pixels))
    assert_close(actual, expected.permute(0, 2, 3, 1), "image embeddings")


def test_the_sam_part_of_a_dit_model(tmp_path, capsys):
    arch = dit("layer_wise")
    directory.save(tmp_path / "model", arch, params_lib.init(arch))
    assert run("reverse", "--format=hf-sam", tmp_path / "model", tmp_path / "out") == 0
    assert "left out, not part of SAM: lang_encoder." in capsys.readouterr().out
    _, info = transformers.SamModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))


@pytest.mark.parametrize(
    ("vit", "settings", "message"),
    [
        (dict(table_grid=8), {}, "its tables span 8 patches beside 4×4 positions, for"),
        ({}, dict(image_size=128), "reads pictures of 128 pixels beside positions for 64, for"),
        ({}, dict(windowed=False), "all of its blocks attend globally, for"),
        (
            dict(table_grid=8),
            dict(image_size=512, windowed=False),
            "4×4 positions and it reads pictures of 512 pixels beside positions for 64 and all of",
        ),
    ],
)
def test_what_has_no_place_there(tmp_path, capsys, vit, settings, message):
    """SamModel's size is that of its positions, and all but its global blocks have windows."""
    plain = dict(image_size=64, windowed=True) | settings
    arch = Architecture(dataclasses.replace(VIT, **vit), None, Injection.NONE, **plain)
    directory.save(tmp_path / "model", arch, params_lib.init(arch))
    assert run("reverse", "--format=hf-sam", tmp_path / "model", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert message in said and "for which SamModel has no place: use --format=sam" in said
    assert not (tmp_path / "out").exists()


def test_assemble_reads_it(folder, theirs, expected):
    vit = expected.architecture.vit
    arch = Architecture(vit, dit("none").bert, Injection.LAYER_WISE, text_layer=1)
    params = params_lib.flatten(assemble(arch, sam=folder, bert=None))
    for path, value in expected.tensors.items():
        np.testing.assert_array_equal(params[path], value, err_msg=path)


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (None, dict(model_type="sam2"), "model_type 'sam2' (SAM 2); expected 'sam'"),
        (None, dict(model_type="sam_hq"), "model_type 'sam_hq' (SAM-HQ)"),
        (None, dict(vision_config=3), "says vision_config 3; expected a section"),
        ("vision_config", dict(global_attn_indexes=3), "global_attn_indexes 3; expected list"),
        ("vision_config", dict(image_size=64.0), "image_size 64.0; expected int"),
        ("vision_config", dict(hidden_act="gelu_new"), "vision_config.hidden_act 'gelu_new'"),
        ("vision_config", dict(layer_norm_eps=1e-5), "vision_config.layer_norm_eps 1e-05"),
        ("vision_config", dict(patch_size=8), "vision_config.patch_size 8; expected 16"),
        ("vision_config", dict(use_rel_pos=False), "vision_config.use_rel_pos False"),
        ("vision_config", dict(num_attention_heads=4), "heads 4 ≠ 3"),
        ("vision_config", dict(image_size=128), "grid 8 ≠ 4"),
        ("vision_config", dict(window_size=14), "window 14 ≠ 3"),
        ("vision_config", dict(global_attn_indexes=[2]), "blocks have tables of [5, 7] rows"),
        ("mask_decoder_config", dict(attention_downsample_rate=1), "attention_downsample_rate 1"),
        ("mask_decoder_config", dict(num_attention_heads=4), "num_attention_heads 4; expected 32"),
        ("mask_decoder_config", dict(hidden_act="gelu"), "mask_decoder_config.hidden_act 'gelu'"),
    ],
)
def test_a_config_that_is_not_computed(folder, capsys, section, values, message):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    (config if section is None else config[section]).update(values)
    path.write_text(json.dumps(config))
    assert run("sam", folder, folder.parent / "out") == 1
    assert message in capsys.readouterr().err

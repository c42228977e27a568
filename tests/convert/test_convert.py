"""The converter's promises: strict both ways, bit-exact back, one sentence for a bad file."""

import dataclasses
import os
import pickle
import resource

import numpy as np
import pytest
import reference_names
from checkpoints import BERT, VIT, dit, in_sam, run, state_of, tensors, write_vocab
from peers import torch

from dit_jax.convert import checkpoint, transfer
from dit_jax.export import formats
from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Architecture, Injection
from dit_jax.weights import directory

WRAPPINGS = {
    "bare": lambda s: s,
    "data-parallel": lambda s: {f"module.{k}": v for k, v in s.items()},
    "training": lambda s: {
        "state_dict": {f"module.{k}": v for k, v in s.items()},
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]},
        "scheduler": {"last_epoch": 3},
        "epoch": 39,
        "lr": np.float64(1e-6),
    },
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("injection", list(Injection))
def test_dit_round_trip(tmp_path, injection, wrapping):
    """Every method, every wrapping: inferred from the tensors, and back bit for bit."""
    arch = dit(injection, decoder_depth=4 if injection == Injection.NONE else 2)
    state = state_of(arch)
    torch.save(WRAPPINGS[wrapping](tensors(state)), tmp_path / "source.pth")
    options = ["--variant", injection] if injection == Injection.E2E else []
    assert run("dit", tmp_path / "source.pth", tmp_path / "model", *options) == 0
    assert directory.read(tmp_path / "model")[0] == arch
    assert run("reverse", "--format=dit", tmp_path / "model", tmp_path / "back.pth") == 0
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert back.keys() == state.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(back[name].numpy(), value, err_msg=name)


@pytest.mark.parametrize("form", ["dit", "sam"])
def test_what_no_tensor_tells_travels(tmp_path, capsys, form):
    """Whose IoU is trusted, precision, padding: noted, since nothing in the weights says so."""
    odd = dict(iou_trained=form == "dit", dtype="bfloat16", products="bfloat16")
    arch = dataclasses.replace(dit("layer_wise", **odd), mask_padding=True, text_layer=2)
    if form == "sam":
        arch = Architecture(VIT, None, Injection.NONE, image_size=64, windowed=True, **odd)
    vocab = None if arch.bert is None else write_vocab(tmp_path / "vocab.txt", arch.bert.vocab)
    directory.save(tmp_path / "model", arch, params_lib.init(arch), vocab=vocab)
    assert run("reverse", f"--format={form}", tmp_path / "model", tmp_path / "back.pth") == 0
    said = "this model reads layer 2 of BERT and masks padding; the released code reads layer 1"
    assert (said in capsys.readouterr().out) == (form == "dit")
    assert run(form, tmp_path / "back.pth", tmp_path / "again") == 0
    assert directory.read(tmp_path / "again")[0] == arch


def test_a_presence_head_travels(tmp_path, capsys):
    """Found in the tensors, back bit for bit; told to whoever loads it into the released code."""
    arch = dit("layer_wise", presence=True)
    state = state_of(arch)
    head = {name for name in state if name.startswith("mask_decoder.presence_head.")}
    assert head == {
        f"mask_decoder.presence_head.layers.{i}.{leaf}"
        for i in range(3)
        for leaf in ("weight", "bias")
    }
    torch.save(tensors(state), tmp_path / "source.pth")
    assert run("dit", tmp_path / "source.pth", tmp_path / "model") == 0
    assert directory.read(tmp_path / "model")[0] == arch
    assert run("reverse", "--format=dit", tmp_path / "model", tmp_path / "back.pth") == 0
    assert "load_state_dict(strict=False)" in capsys.readouterr().out
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert back.keys() == state.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(back[name].numpy(), value, err_msg=name)
    assert run("reverse", "--format=sam", tmp_path / "model", tmp_path / "sam.pth") == 0
    left_out = capsys.readouterr().out.splitlines()[0]
    assert left_out.startswith("left out, not part of SAM: ")
    assert all(name in left_out for name in head)
    assert not head & torch.load(tmp_path / "sam.pth", weights_only=True).keys()


def test_half_a_presence_head_is_refused(tmp_path, capsys):
    state = state_of(dit("layer_wise", presence=True))
    del state["mask_decoder.presence_head.layers.1.weight"]
    message = problem(tmp_path, capsys, state)
    assert "missing: mask_decoder.presence_head.layers.1.weight" in message


@pytest.mark.parametrize("width", [32, 64])
def test_the_projection_is_where_the_tensors_say(tmp_path, width):
    """The released ViT-H code declares W whatever the widths are."""
    vit = dataclasses.replace(VIT, width=width)
    arch = Architecture(vit, BERT, Injection.LAYER_WISE, text_layer=1, text_projection=True)
    torch.save(tensors(state_of(arch)), tmp_path / "a.pth")
    assert run("dit", tmp_path / "a.pth", tmp_path / "model") == 0
    assert directory.read(tmp_path / "model")[0] == arch


def test_heads_that_cannot_be_guessed(tmp_path, capsys):
    odd = dataclasses.replace(BERT, width=40, heads=2)
    arch = Architecture(VIT, odd, Injection.NONE, text_layer=1)
    state = {k: v for k, v in state_of(arch).items() if "pooler" not in k}
    assert "no multiple of 64: give --text-heads" in problem(tmp_path, capsys, state)
    assert run("dit", tmp_path / "bad.pth", tmp_path / "model", "--text-heads=2") == 0


@pytest.mark.parametrize(
    "name, shape, message",
    [
        ("visual_encoder.pos_embed", (4, 32), "pos_embed has shape [4, 32]; expected 4 axes"),
        ("visual_encoder.neck.0.weight", (5,), "neck.0.weight [5] ≠"),
    ],
)
def test_tensors_of_another_rank(tmp_path, capsys, name, shape, message):
    state = state_of(dit("layer_wise")) | {name: np.zeros(shape, np.float32)}
    text = problem(tmp_path, capsys, state)
    assert message in text and "bad.pth" in text


def test_sam_round_trip(tmp_path):
    arch = Architecture(VIT, None, Injection.NONE, image_size=64, windowed=True)
    flat = params_lib.flatten(params_lib.init(arch))
    state = in_sam(transfer.to_state(flat))
    torch.save(tensors(state), tmp_path / "sam.pth")
    assert run("sam", tmp_path / "sam.pth", tmp_path / "model") == 0
    assert directory.read(tmp_path / "model")[0] == arch
    assert run("reverse", "--format=sam", tmp_path / "model", tmp_path / "back.pth", "--wrap") == 0
    back = torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"]
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[k].numpy(), v) for k, v in state.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--format=sam out.safetensors", "out.safetensors would hold no safetensors but"),
        ("--format=dit out.safetensors", "PyTorch's pickle; name it .pth."),
        ("--format=hf-sam out --wrap", "--wrap is for a file, and --format=hf-sam writes a folder"),
    ],
)
def test_reverse_writes_what_it_is_called(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    arch = Architecture(VIT, None, Injection.NONE, image_size=64, windowed=True)
    directory.save("model", arch, params_lib.init(arch))
    form, *rest = options.split()
    assert run("reverse", form, "model", *rest) == 1
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_reverse_fills_what_the_released_code_declares(tmp_path):
    """A model that was never in PyTorch loads strictly there: unused tensors are zeros."""
    arch = dit("layer_wise")
    directory.save(tmp_path / "model", arch, params_lib.init(arch))
    assert run("reverse", "--format=dit", tmp_path / "model", tmp_path / "out.pth") == 0
    state = torch.load(tmp_path / "out.pth", weights_only=True)
    assert state.keys() == state_of(arch).keys()
    assert not state["self_attention.in_proj_weight"].any()


@pytest.mark.parametrize("wrap", [False, True])
def test_reverse_loads_strictly_by_the_reference_names(tmp_path, wrap):
    """Names and shapes written down from the reference, in a module that has them and no others."""
    vit = dataclasses.replace(VIT, width=64)  # BERT's width, as in ViT-B: no projection W
    arch = Architecture(vit, BERT, Injection.LAYER_WISE, text_layer=1)
    params = params_lib.init(arch, seed=5)
    directory.save(tmp_path / "model", arch, params)
    options = ["--wrap"] if wrap else []
    reverse = ("reverse", "--format=dit", tmp_path / "model", tmp_path / "out.pth", *options)
    assert run(*reverse) == 0
    state = torch.load(tmp_path / "out.pth", weights_only=True)
    module = reference_names.module_of(reference_names.ldit(arch))
    module.load_state_dict(state["state_dict"] if wrap else state, strict=True)
    assert not any(value.isnan().any() for value in module.state_dict().values())
    qkv = module.visual_encoder.blocks.get_submodule("1").attn.qkv.weight.detach().numpy()
    ours = params["image_encoder"]["blocks"]["1"]["attn"]["qkv"]["kernel"]
    np.testing.assert_array_equal(qkv, ours.T)


def test_sam_part_of_a_dit_model(tmp_path, capsys):
    arch = dit("layer_wise")
    directory.save(tmp_path / "model", arch, params_lib.init(arch))
    assert run("reverse", "--format=sam", tmp_path / "model", tmp_path / "out.pth") == 0
    state = torch.load(tmp_path / "out.pth", weights_only=True)
    assert all(n.startswith(("image_encoder", "prompt_", "mask_")) for n in state)
    assert not any("prob" in name for name in state)
    assert "left out, not part of SAM: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "name, expected",
    [
        ("seg_best", "layer_wise"),
        ("e2e_refcoco", "e2e"),
        ("edit-vit-b", "e2e"),
        ("credit", "layer_wise"),
    ],
)
def test_e_dit_and_l_dit_have_the_same_tensors(tmp_path, capsys, name, expected):
    torch.save(tensors(state_of(dit("e2e"))), tmp_path / f"{name}.pth")
    assert run("dit", tmp_path / f"{name}.pth", tmp_path / "model") == 0
    assert directory.read(tmp_path / "model")[0].injection == expected
    assert f"taken as {expected}" in capsys.readouterr().err


def test_overrides(tmp_path):
    torch.save(tensors(state_of(dit("layer_wise"))), tmp_path / "a.pth")
    options = "--text-layer=2", "--text-heads=4", "--image-size=256"
    assert run("dit", tmp_path / "a.pth", tmp_path / "model", *options) == 0
    arch, _ = directory.read(tmp_path / "model")
    assert (arch.text_layer, arch.bert.heads, arch.image_size) == (2, 4, 256)


def problem(tmp_path, capsys, state, kind="dit"):
    """The sentence with which a bad state dict is refused."""
    torch.save(tensors(state), tmp_path / "bad.pth")
    assert run(kind, tmp_path / "bad.pth", tmp_path / "model") == 1
    assert not (tmp_path / "model").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["bad.pth"]
    return capsys.readouterr().err


def test_refusals_list_both_sides(tmp_path, capsys):
    state = state_of(dit("layer_wise"))
    missing, extra = "mask_decoder.iou_token.weight", "visual_encoder.blocks.0.adapter.weight"
    value = state.pop(missing)
    state[extra] = value
    state["text_proj.bias"] = np.zeros(7, np.float32)
    message = problem(tmp_path, capsys, state)
    assert f"missing: {missing}" in message and f"unexpected: {extra}" in message
    assert "text_proj.bias [7] ≠ [256]" in message


def test_refuses_another_kind_of_checkpoint(tmp_path, capsys):
    assert "no tensor visual_encoder.pos_embed" in problem(
        tmp_path, capsys, {"layer1.0.conv1.weight": np.zeros((3, 3), np.float32)}
    )


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_file_that_holds_code_is_refused_and_nothing_runs(tmp_path, capsys):
    target = tmp_path / "made"
    torch.save({"state_dict": {}, "epoch": Hostile(str(target))}, tmp_path / "bad.pth")
    assert run("dit", tmp_path / "bad.pth", tmp_path / "model") == 1
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Hostile(str(target))))
    assert run("sam", tmp_path / "raw.pth", tmp_path / "model") == 1
    assert not target.exists() and not (tmp_path / "model").exists()
    message = capsys.readouterr().err
    assert message.count("\n") == 2 and "holds more than data" in message


@pytest.mark.parametrize("kind", ["sam", "dit", "bert"])
@pytest.mark.parametrize("content", ["empty", "text", "truncated", "number", "names"])
def test_files_that_are_no_checkpoints(tmp_path, capsys, kind, content):
    path = tmp_path / "bad.pth"
    torch.save(tensors(state_of(dit("layer_wise"))), path)
    whole = path.read_bytes()
    if content == "number":
        torch.save(3.5, path)
    elif content == "names":
        torch.save({"a": "b"}, path)
    else:
        parts = {
            "empty": b"",
            "text": b"<html>not found</html>",
            "truncated": whole[: len(whole) // 2],
        }
        path.write_bytes(parts[content])
    assert run(kind, path, tmp_path / "model") == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "bad.pth" in message
    assert not (tmp_path / "model").exists()


def test_nothing_is_overwritten_unasked(tmp_path, capsys):
    torch.save(tensors(state_of(dit("layer_wise"))), tmp_path / "a.pth")
    assert run("dit", tmp_path / "missing.pth", tmp_path / "model") == 1
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").write_text("kept")
    assert run("dit", tmp_path / "a.pth", tmp_path / "model") == 1
    assert (tmp_path / "model" / "mine.txt").read_text() == "kept"
    assert "is not empty" in capsys.readouterr().err
    assert run("dit", tmp_path / "a.pth", tmp_path / "model", "--overwrite") == 0


@pytest.mark.parametrize(
    "command",
    [
        "dit OUT/a.pth OUT",
        "dit link.pth OUT",
        "dit b.pth OUT --vocab=OUT/words.txt",
        "assemble ldit_vit_b OUT --sam=OUT/a.pth --bert=b.pth",
        "assemble ldit_vit_b OUT --sam=b.pth --bert=OUT/a.pth",
        "reverse --format=hf-sam OUT/model OUT",
        "reverse --format=hf-sam OUT/model elsewhere/../OUT",
    ],
)
def test_what_is_read_is_not_replaced(tmp_path, monkeypatch, capsys, command):
    """OUT is replaced as a whole: what lies in it cannot be read to make it."""
    monkeypatch.chdir(tmp_path)
    arch = Architecture(VIT, None, Injection.NONE, image_size=64, windowed=True)
    directory.save("OUT/model", arch, params_lib.init(arch))
    write_vocab(tmp_path / "OUT" / "words.txt", BERT.vocab)
    for name in ("OUT/a.pth", "b.pth"):
        torch.save(tensors(state_of(dit("layer_wise"))), name)
    (tmp_path / "link.pth").symlink_to("OUT/a.pth")
    (tmp_path / "elsewhere").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert run(*command.split(), "--overwrite") == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert " lies in " in message and "OUT, which would be replaced; name another" in message
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("write", [checkpoint.write, directory.write_tensors])
def test_a_full_disk_is_told_by_name(tmp_path, write):
    """Of PyTorch's own error, and of safetensors', which are no OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))  # bytes of a file
    try:
        with pytest.raises(OSError, match=f"{tmp_path / 'a.pth'} could not be written: [^\n]+$"):
            write(tmp_path / "a.pth", {"weight": np.zeros(5000, np.float32)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_home_is_where_it_is(tmp_path, monkeypatch):
    """A shell leaves `~` alone behind `--vocab=`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(tensors(state_of(dit("layer_wise"))), tmp_path / "a.pth")
    vocab = write_vocab(tmp_path / "words.txt", BERT.vocab)
    assert run("dit", "~/a.pth", "~/model", "--vocab=~/words.txt") == 0
    assert directory.vocab_path(tmp_path / "model").read_bytes() == vocab.read_bytes()


@pytest.mark.parametrize("command", ["sam", "reverse --format=sam"])
def test_a_name_on_the_hub_is_nothing_to_write(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    assert run(*command.split(), "a.pth", "hf://org/name") == 1
    said = "hf://org/name is no place; expected a path, gs://BUCKET/… or s3://BUCKET/….\n"
    assert capsys.readouterr().err.endswith(said)
    assert not list(tmp_path.iterdir())


def test_a_file_whose_name_is_no_utf_8(tmp_path):
    """As old archives have them; what is noted of it goes into every file, the card included."""
    arch = Architecture(VIT, None, Injection.NONE, image_size=64, windowed=True)
    source = tmp_path / os.fsdecode(b"mod\xe8le.pth")
    torch.save(
        tensors(in_sam(transfer.to_state(params_lib.flatten(params_lib.init(arch))))), source
    )
    assert run("sam", source, tmp_path / "model") == 0
    assert directory.read_provenance(tmp_path / "model")["source"] == "mod\ufffdle.pth"
    formats.export(tmp_path / "model", tmp_path / "out", form="safetensors")
    assert "mod\ufffdle.pth" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_vocabulary_travels(tmp_path):
    torch.save(tensors(state_of(dit("layer_wise"))), tmp_path / "a.pth")
    vocab = write_vocab(tmp_path / "vocab.txt", BERT.vocab)
    assert run("dit", tmp_path / "a.pth", tmp_path / "model") == 0
    assert directory.vocab_path(tmp_path / "model").read_bytes() == vocab.read_bytes()

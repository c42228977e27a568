"""A state dict as training scripts leave it: nested, prefixed, beside other things."""

import argparse
import collections
import datetime
import pathlib
import sys
import types

import numpy as np
import pytest
from checkpoints import VIT, in_sam, random_state, run, tensors
from peers import torch, transformers
from safetensors.numpy import save_file

from dit_jax.convert import sources
from dit_jax.models.architecture import Architecture, Injection

NECK = "image_encoder.neck.0.weight"
SAM = in_sam(random_state(Architecture(VIT, None, Injection.NONE, windowed=True)))


def prefixed(*words):
    return lambda state: {"".join(words) + name: value for name, value in state.items()}


def under(*keys):
    def nest(state):
        for key in reversed(keys):
            state = {key: state}
        return state

    return nest


def beside(**others):
    return lambda state: {"model": state, **others}


def inside(state):
    """As `torch.compile` and data parallelism rename parts of a model."""
    return {
        name.replace("image_encoder.", "image_encoder._orig_mod.module.").replace(
            "mask_decoder.", "mask_decoder._orig_mod."
        ): value
        for name, value in state.items()
    }


def as_numpy(state):
    return {name: value.numpy() for name, value in state.items()}


WRAPPINGS = {  # how a state dict is wrapped → what is said to be taken off
    "model": (under("model"), "model"),
    "model_state_dict": (under("model_state_dict"), "model_state_dict"),
    "net": (under("net"), "net"),
    "ema": (under("ema"), "ema"),
    "network_weights": (under("network_weights"), "network_weights"),
    "model in state_dict": (under("checkpoint", "state_dict"), "checkpoint, state_dict"),
    "model.": (prefixed("model."), "model.*"),
    "sam.": (prefixed("sam."), "sam.*"),
    "sam_model.": (prefixed("sam_model."), "sam_model.*"),
    "module.": (prefixed("module."), "module."),
    "_orig_mod.": (prefixed("_orig_mod."), "_orig_mod."),
    "module._orig_mod.sam.": (prefixed("module._orig_mod.sam."), "sam.*, _orig_mod., module."),
    "sam.module.": (prefixed("sam.module."), "sam.*, module."),
    "_orig_mod.module.": (prefixed("_orig_mod.module."), "_orig_mod., module."),
    "inside": (inside, "_orig_mod., module."),
    "an integer": (lambda s: {**s, "iteration": 7}, "not read, beside the tensors: iteration"),
    "a namespace": (
        beside(args=argparse.Namespace(lr=1e-4, out="runs"), epoch=3),
        "model; not read, beside the tensors: args, epoch",
    ),
    "numpy": (as_numpy, ""),
    "numpy in net": (lambda s: {"net": as_numpy(s), "step": np.int64(3)}, "net"),
    "all of it": (
        lambda s: {"ema": {"state_dict": prefixed("module.model.sam.")(s)}, "epoch": 3},
        "ema, state_dict, model.sam.*, module.; not read, beside the tensors: epoch",
    ),
    "optimizer": (
        beside(optimizer={"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []}),
        "model; not read, beside the tensors: optimizer",
    ),
    "one dict under two keys": (lambda s: {"model": s, "state_dict": s}, "model"),
}


def check(arch, found):
    assert arch.vit == VIT
    assert in_sam(found.tensors).keys() == SAM.keys()
    for name, value in in_sam(found.tensors).items():
        np.testing.assert_array_equal(value, SAM[name], err_msg=name)


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_it_is_taken_off_and_said(tmp_path, capsys, wrapping):
    wrap, said = WRAPPINGS[wrapping]
    torch.save(wrap(tensors(SAM)), tmp_path / "a.pth")
    check(*sources.sam(tmp_path / "a.pth"))
    message = capsys.readouterr().err
    assert said in message and message.count("\n") == bool(said)


def test_prefixes_in_safetensors(tmp_path, capsys):
    save_file(prefixed("module.sam.")(SAM), tmp_path / "a.safetensors")
    check(*sources.sam(tmp_path / "a.safetensors"))
    assert "taken off: sam.*, module." in capsys.readouterr().err


def test_what_a_file_is_its_bytes_say(tmp_path):
    """Safetensors called .bin and .pth; a pickle called .safetensors."""
    for name in ("a.bin", "a.pth"):
        save_file(SAM, tmp_path / name)
        check(*sources.sam(tmp_path / name))
    torch.save(tensors(SAM), tmp_path / "b.pth")
    (tmp_path / "b.pth").rename(tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="is no whole safetensors file"):
        sources.sam(tmp_path / "b.safetensors")


def fake(module, name, base):
    """A class of a package that need not be installed here."""
    made = type(name, (base,), {"__module__": module})
    parts = module.split(".")
    for i in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:i]), types.ModuleType(parts[i - 1]))
    setattr(sys.modules[module], name, made)
    return made


class Held:
    pass


HARMLESS = {
    "namespace": lambda: argparse.Namespace(a=1, b=[2]),
    "simple namespace": lambda: types.SimpleNamespace(a=1),
    "path": lambda: pathlib.Path("runs") / "a",
    "default dict": lambda: collections.defaultdict(list, {"a": [1]}),
    "time": lambda: datetime.datetime(2024, 1, 2),
    "duration": lambda: datetime.timedelta(3),
    "set": lambda: {1, 2},
    "NumPy's numbers": lambda: [np.float64(1), np.int32(2), np.bool_(True), np.zeros(3)],
    "easydict": lambda: fake("easydict", "EasyDict", dict)(a=1),
    "yacs": lambda: fake("yacs.config", "CfgNode", dict)(a=1),
    "lightning": lambda: fake("lightning.fabric.utilities.data", "AttributeDict", dict)(a=1),
    "omegaconf": lambda: fake("omegaconf.dictconfig", "DictConfig", Held)(),
    "ml_collections": lambda: fake("ml_collections.config_dict.config_dict", "ConfigDict", Held)(),
}


@pytest.fixture
def modules():
    """`sys.modules` as it was."""
    before = dict(sys.modules)
    yield
    for name in sys.modules.keys() - before.keys():
        del sys.modules[name]
    sys.modules.update(before)


@pytest.mark.parametrize("kind", HARMLESS)
def test_harmless_things_beside_the_tensors(tmp_path, modules, monkeypatch, kind):
    """They are data here: their own classes are neither imported nor called."""
    for name in [name for name in sys.modules if name.startswith("ml_collections.config_dict")]:
        if kind == "ml_collections":
            monkeypatch.delitem(sys.modules, name)
    other = HARMLESS[kind]()
    torch.save({"model": tensors(SAM), "config": other}, tmp_path / "a.pth")
    if type(other).__module__ not in ("builtins", "collections", "datetime", "pathlib", "types"):
        monkeypatch.setattr(type(other), "__init__", explode, raising=False)
    check(*sources.sam(tmp_path / "a.pth"))


def explode(*args, **kwargs):
    raise AssertionError("a class of the file was called")


def test_other_classes_are_refused(tmp_path, modules):
    other = fake("somebody.s", "Config", dict)(a=1)
    torch.save({"model": tensors(SAM), "config": other}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="holds more than data and would run somebody.s.Config"):
        sources.sam(tmp_path / "a.pth")


def test_several_models_in_one_file(tmp_path, capsys):
    ema = {name: value + 1 for name, value in SAM.items()}
    torch.save({"model": tensors(SAM), "ema": tensors(ema)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="holds 2 models, model and ema; choose one with --key"):
        sources.sam(tmp_path / "a.pth")
    check(*sources.sam(tmp_path / "a.pth", key="model"))
    with pytest.raises(ValueError, match="holds nothing under 'teacher'; it holds model and ema"):
        sources.sam(tmp_path / "a.pth", key="teacher")
    both = prefixed("student.")(SAM) | prefixed("teacher.sam.")(SAM)
    save_file(both, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"2 models, student\.\* and teacher\.sam\.\*;"):
        sources.sam(tmp_path / "b.safetensors")
    _, found = sources.sam(tmp_path / "a.pth", key="ema")
    np.testing.assert_array_equal(in_sam(found.tensors)[NECK], ema[NECK])


@pytest.mark.parametrize("first", ["", "model."])
def test_one_of_several_is_chosen_by_its_prefix(tmp_path, capsys, first):
    """Each with its own tensors alone; what belongs to neither is still refused."""
    ema = {name: value + 1 for name, value in SAM.items()}
    both = prefixed(first)(SAM) | prefixed("ema.")(ema)
    save_file(both, tmp_path / "a.safetensors")
    _, found = sources.sam(tmp_path / "a.safetensors", key="ema")
    found = in_sam(found.tensors)
    assert found.keys() == SAM.keys()
    assert all(np.array_equal(found[name], ema[name]) for name in ema)
    if first:
        check(*sources.sam(tmp_path / "a.safetensors", key="model"))
    save_file(
        both | {"ema.image_encoder.more": np.zeros(3, np.float32)}, tmp_path / "b.safetensors"
    )
    assert run("sam", tmp_path / "b.safetensors", tmp_path / "out", "--key=ema") == 1
    assert "unexpected: ema.image_encoder.more" in capsys.readouterr().err


@pytest.mark.parametrize("prefix", ["", "sam.", "module.sam_model."])
def test_refusals_use_the_file_s_names(tmp_path, capsys, prefix):
    state = dict(SAM)
    del state["image_encoder.blocks.1.norm1.weight"]
    state["mask_decoder.iou_token.weight"] = np.zeros((2, 3), np.float32)
    state["prompt_encoder.more"] = np.zeros(3, np.float32)
    save_file(prefixed(prefix)(state), tmp_path / "a.safetensors")
    assert run("sam", tmp_path / "a.safetensors", tmp_path / "out") == 1
    message = capsys.readouterr().err.splitlines()[-1]
    wrapped = prefix.replace("module.", "")  # what is missing has no name in the file
    assert f"missing: {wrapped}image_encoder.blocks.1.norm1.weight;" in message
    assert f"unexpected: {prefix}prompt_encoder.more" in message
    assert f"{prefix}mask_decoder.iou_token.weight [2, 3] ≠ [1, 256]" in message
    assert "visual_encoder" not in message


def test_refusals_are_short(tmp_path, capsys):
    state = {name: value for name, value in SAM.items() if "mlp" not in name}
    state |= {f"prompt_encoder.more.{i}": np.zeros(3, np.float32) for i in range(300)}
    state["mask_decoder.transformer.layers.0.mlp.lin1.weight"] = SAM[
        "mask_decoder.transformer.layers.0.mlp.lin1.weight"
    ]
    save_file(state, tmp_path / "a.safetensors")
    assert run("sam", tmp_path / "a.safetensors", tmp_path / "out") == 1
    message = capsys.readouterr().err
    assert "and 295 more" in message and len(message) < 1000


HEADS = {
    "BertForSequenceClassification": "classifier.weight",
    "BertForTokenClassification": "classifier.bias",
    "BertForMultipleChoice": "classifier.weight",
    "BertForQuestionAnswering": "qa_outputs.weight",
    "BertForMaskedLM": "cls.predictions.bias",
    "BertForPreTraining": "cls.seq_relationship.weight",
    "BertForNextSentencePrediction": "cls.seq_relationship.bias",
}


@pytest.mark.parametrize("head", HEADS)
def test_heads_of_tasks_are_set_aside(tmp_path, capsys, head):
    cls = getattr(transformers, head)
    small = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    cls(transformers.BertConfig(vocab_size=50, **small)).save_pretrained(tmp_path / "a")
    assert run("bert", tmp_path / "a", tmp_path / "out") == 0
    assert f"kept aside: {HEADS[head]} (" in capsys.readouterr().out


def test_medsam_is_read_as_the_sam_that_it_is(tmp_path, capsys):
    torch.save(tensors(SAM), tmp_path / "medsam_vit_b.pth")
    check(*sources.sam(tmp_path / "medsam_vit_b.pth"))
    assert (
        "is read as the SAM that MedSAM is; it was trained on pictures" in capsys.readouterr().err
    )


def test_folders_that_leave_it_open(tmp_path, capsys):
    for name in ("training_args.bin", "optimizer.pt", "rng_state_0.pth"):  # a trainer's own
        (tmp_path / name).write_bytes(b"x")
    assert run("sam", tmp_path, tmp_path / "out") == 1
    assert "holds no weights: expected model.safetensors or" in capsys.readouterr().err
    torch.save(tensors(SAM), tmp_path / "one.pth")
    assert run("sam", tmp_path, tmp_path / "out") == 0
    torch.save(tensors(SAM), tmp_path / "two.pth")
    assert run("sam", tmp_path, tmp_path / "out") == 1
    assert "holds several files of weights (one.pth, two.pth); name one" in capsys.readouterr().err
    assert run("sam", tmp_path / "out", tmp_path / "again") == 1
    assert "is a model directory already" in capsys.readouterr().err

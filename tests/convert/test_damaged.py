"""Files that are none, cut or overwritten, and values that are no weights: a sentence each."""

import io
import json
import pickle
import struct

import numpy as np
import pytest
from checkpoints import VIT, dit, in_sam, random_state, run, tensors
from peers import torch
from safetensors.numpy import save, save_file

from dit_jax.convert import beside, hugging_face, names
from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Architecture, Injection, to_json
from dit_jax.weights import directory

SMALL = dict(decoder_width=32, decoder_mlp_width=16)
ARCH = Architecture(VIT, None, Injection.NONE, windowed=True, **SMALL)
SAM = in_sam(random_state(ARCH))
BERT = random_state(dit("none"), "text_encoder.")
BERT = {name.removeprefix("lang_encoder."): value for name, value in BERT.items()}
KERNEL = "image_encoder.blocks.0.mlp.lin1.weight"


QUANTISED = "is sparse, quantised or without values"
VALUES = {
    "sparse": (lambda v: v.to_sparse(), QUANTISED),
    "sparse rows": (lambda v: v.to_sparse_csr(), QUANTISED),
    "quantised": (lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8), QUANTISED),
    "nested": (lambda v: torch.nested.nested_tensor([v]), QUANTISED),
    "meta": (lambda v: v.to("meta"), QUANTISED),
    "complex": (lambda v: v.to(torch.complex64), "is of type complex64; expected real numbers"),
    "eight bits": (lambda v: v.to(torch.float8_e4m3fn), "is of type torch.float8_e4m3fn; expected"),
    "integers": (lambda v: (10 * v).to(torch.int32), "not finite real numbers: image_encoder"),
    "truth": (lambda v: v > 0, "not finite real numbers: image_encoder"),
    "nan": (lambda v: v * float("nan"), "not finite real numbers: image_encoder"),
    "infinite": (lambda v: v + float("inf"), "not finite real numbers: image_encoder"),
    "beyond float32": (lambda v: 1e300 * v.double(), "not finite real numbers: image_encoder"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", VALUES)
def test_values_that_are_none(tmp_path, capsys, kind):
    change, message = VALUES[kind]
    state = tensors(SAM)
    state[KERNEL] = change(state[KERNEL])
    torch.save(state, tmp_path / "a.pth")
    assert run("sam", tmp_path / "a.pth", tmp_path / "out") == 1
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["f8", "f2"])
def test_numbers_that_are_none_without_pytorch(tmp_path, capsys, kind):
    huge = np.full(SAM[KERNEL].shape, 1e300 if kind == "f8" else np.inf, kind)
    save_file(SAM | {KERNEL: huge}, tmp_path / "a.safetensors")
    assert run("sam", tmp_path / "a.safetensors", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert "not finite real numbers: image_encoder" in said and said.count("\n") == 1


SHAPES = {
    "no channels": ({"image_encoder.blocks.0.attn.rel_pos_h": (5, 0)}, "its tables' 0 channels"),
    "no rows": ({"image_encoder.blocks.0.attn.rel_pos_h": (0, 16)}, "of another shape"),
    "no positions": ({"image_encoder.pos_embed": (1, 0, 0, 32)}, "vit.grid is 0; expected"),
    "no hidden": (
        {"mask_decoder.transformer.layers.0.mlp.lin1.weight": (0, 32)},
        "decoder_mlp_width is 0; expected a number from 1",
    ),
    "a far block": ({"image_encoder.blocks.99999999999.norm1.weight": (2,)}, "blocks.2.attn.rel"),
    "a name of two lines": (
        {"prompt_encoder.a\nb\x1b": (2,)},
        r"unexpected: 'prompt_encoder.a\nb\x",
    ),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_shapes_and_names_that_are_none(tmp_path, capsys, kind):
    shapes, message = SHAPES[kind]
    save_file(SAM | {n: np.zeros(s, np.float32) for n, s in shapes.items()}, tmp_path / "a.pth")
    assert run("sam", tmp_path / "a.pth", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_static_tokens_of_another_rank(tmp_path, capsys):
    state = random_state(dit("layer_wise_static"))
    state["visual_encoder.tokens"] = np.zeros(2, np.float32)
    save_file(state, tmp_path / "a.pth")
    assert run("dit", tmp_path / "a.pth", tmp_path / "out") == 1
    assert "visual_encoder.tokens has shape [2]; expected 3 axes" in capsys.readouterr().err


@pytest.mark.parametrize("nest", [lambda s: s, lambda s: {"model": s}])
@pytest.mark.parametrize("key", [lambda i, name: i, lambda i, name: name.encode()])
def test_tensors_without_names(tmp_path, capsys, nest, key):
    state = {key(i, name): value for i, (name, value) in enumerate(tensors(SAM).items())}
    torch.save(nest(state), tmp_path / "a.pth")
    assert run("sam", tmp_path / "a.pth", tmp_path / "out") == 1
    assert "holds no tensors by name; expected a state dict" in capsys.readouterr().err


def saved(state, **how):
    file = io.BytesIO()
    torch.save(state, file, **how)
    return file.getvalue()


SOUND = {  # files of every form that readers meet
    "zip": saved(tensors(BERT)),
    "small zip": saved({"a": torch.zeros(3)}),
    "PyTorch's form of old": saved(tensors(BERT), _use_new_zipfile_serialization=False),
    "safetensors": save(BERT),
    "a plain pickle": pickle.dumps({"a": np.zeros(3)}, protocol=2),
    "text": b"this is no picture",
}


def damaged(data, rng):
    """Cut, with bytes overwritten, or with a piece exchanged for another."""
    data = bytearray(data)
    match rng.integers(3):
        case 0:
            del data[rng.integers(0, len(data) + 1) :]
        case 1:
            for place in rng.integers(0, len(data), 5):
                data[place] = rng.integers(256)
        case 2:
            place = rng.integers(0, len(data))
            data[place : place + rng.integers(20)] = rng.bytes(rng.integers(20))
    return bytes(data)


def refused_or_read(capsys, *command):
    """In one sentence, behind remarks of a line each."""
    status = run(*command, "--overwrite")
    said = capsys.readouterr().err.splitlines()
    assert status in (0, 1) and len(said) <= 3, said
    if status:
        assert said[-1].startswith("convert ") and len(said[-1]) < 800 and said[-1].isprintable()


@pytest.mark.parametrize("count", [30, pytest.param(600, marks=pytest.mark.proof)])
@pytest.mark.parametrize("kind", [*SOUND, "short"])
def test_damaged_files(tmp_path, capsys, kind, count):
    rng = np.random.default_rng(count)
    for i in range(count):
        data = rng.bytes(rng.integers(80)) if kind == "short" else damaged(SOUND[kind], rng)
        path = tmp_path / ["a.pth", "a.safetensors"][i % 2]
        path.write_bytes(data)
        refused_or_read(capsys, ["bert", "sam", "dit"][i % 3], path, tmp_path / "out")


ZIPS = {  # what Python's reader of zip files says of each, one by one
    "magic": lambda data: data.replace(b"PK\x01\x02", b"PK\x01\x03"),
    "version": lambda data: data.replace(b"PK\x01\x02", b"PK\x01\x02\xff\xff\xff\xff"),
    "parts": lambda data: data.replace(  # a ZIP64 locator of two parts before the end
        b"PK\x05\x06", struct.pack("<4sLQL", b"PK\x06\x07", 1, 0, 2) + b"PK\x05\x06"
    ),
}


@pytest.mark.parametrize("kind", ZIPS)
def test_damaged_archives(tmp_path, capsys, kind):
    (tmp_path / "a.pth").write_bytes(ZIPS[kind](SOUND["zip"]))
    assert run("bert", tmp_path / "a.pth", tmp_path / "out") == 1
    assert "a.pth is a damaged zip archive, or one that is cut short" in capsys.readouterr().err


ODD = [
    None,
    True,
    -1,
    0,
    2**70,
    0.5,
    float("nan"),
    "",
    "x",
    "\ud800",
    "a" * 300,
    [],
    [1],
    ["a"],
    {},
]
BERT_CONFIG = {theirs: getattr(dit("none").bert, ours) for ours, theirs in beside.BERT_KEYS.items()}
INDEX = {"weight_map": dict.fromkeys(list(BERT)[:3], "model.safetensors")}
CONFIGS = {  # what lies beside tensors, or in their metadata
    "bert": {"model_type": "bert", "architectures": ["BertModel"], **BERT_CONFIG},
    "sam": hugging_face.config(ARCH),
    "index": INDEX,
    "facts": {"architecture": to_json(ARCH)},
}


def with_odd_values(config, rng):
    """A copy with other values, or without keys, at any depth."""
    config = json.loads(json.dumps(config))
    for _ in range(rng.integers(1, 3)):
        part = config
        while (
            inner := [v for v in part.values() if isinstance(v, dict) and v]
        ) and rng.random() < 0.7:
            part = inner[rng.integers(len(inner))]
        part[list(part)[rng.integers(len(part))]] = ODD[rng.integers(len(ODD))]
    return json.dumps(config).encode()


@pytest.mark.parametrize("count", [40, pytest.param(800, marks=pytest.mark.proof)])
@pytest.mark.parametrize("kind", CONFIGS)
def test_damaged_configs(tmp_path, capsys, kind, count):
    rng = np.random.default_rng(count)
    theirs = {names.HF_SAM.write(n): np.ascontiguousarray(v) for n, v in random_state(ARCH).items()}
    save_file(theirs if kind == "sam" else BERT, tmp_path / "model.safetensors")
    for i in range(count):
        text = with_odd_values(CONFIGS[kind], rng)
        if i % 8 == 0:
            text = b"[" * 100_000 if i == 0 else damaged(text, rng)
        command = ["sam" if kind in ("sam", "facts") else "bert", tmp_path]
        if kind == "facts":
            state = type(torch.nn.Module().state_dict())(tensors(SAM))
            state._metadata = {"": {"dit_jax": text.decode("latin-1")}}
            torch.save(state, tmp_path / "a.pth")
            command = ["sam", tmp_path / "a.pth"]
        elif kind == "index":
            (tmp_path / "model.safetensors.index.json").write_bytes(text)
            command = ["bert", tmp_path / "model.safetensors.index.json"]
        else:
            (tmp_path / "config.json").write_bytes(text)
        refused_or_read(capsys, *command, tmp_path / "out")


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2", "bfloat16", "complex64", "int16"])
def test_other_numbers_in_a_model_directory(tmp_path, kind):
    from safetensors.torch import save_file as save_tensors

    arch = dit("layer_wise")
    directory.save(tmp_path, arch, params_lib.init(arch))
    state = tensors(directory.read_tensors(tmp_path / "model.safetensors"))
    state["text_proj.bias"] = state["text_proj.bias"].to(getattr(torch, kind))
    save_tensors(state, tmp_path / "model.safetensors")
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"safetensors holds text_proj.bias \w+; expected F32 or"):
        directory.read(tmp_path)

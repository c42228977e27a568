"""What looks like a SAM or a BERT and is none, or is no checkpoint at all: named in a sentence."""

import zipfile

import numpy as np
import pytest
from checkpoints import VIT, dit, in_sam, random_state, run, state_of
from peers import torch, transformers

from dit_jax.models.architecture import Architecture, Injection

SAM = in_sam(random_state(Architecture(VIT, None, Injection.NONE, windowed=True)))


def named(*names):
    return {name: np.zeros((2, 2), np.float32) for name in names}


OTHERS = {  # what people have → names of its tensors, the command, what is said
    "SAM 2": (
        named("image_encoder.trunk.pos_embed", "memory_attention.layers.0.norm1.weight"),
        "is SAM 2 (image_encoder.trunk.pos_embed); expected Meta's SAM",
    ),
    "SAM 2, wrapped": (
        dict(model=named("maskmem_tpos_enc", "sam_mask_decoder.iou_token.weight")),
        "is SAM 2 (maskmem_tpos_enc)",
    ),
    "SAM 2 of Hugging Face": (
        named("vision_encoder.backbone.blocks.0.attn.qkv.weight", "no_memory_embedding"),
        "is SAM 2 or later (vision_encoder.backbone",
    ),
    "SAM-HQ": (
        SAM | named("mask_decoder.hf_token.weight", "mask_decoder.compress_vit_feat.0.weight"),
        "is SAM-HQ (mask_decoder.compress_vit_feat.0.weight)",
    ),
    "SAM-HQ of Hugging Face": (
        named("vision_encoder.pos_embed", "mask_decoder.hq_token.weight"),
        "is SAM-HQ (mask_decoder.hq_token.weight)",
    ),
    "MobileSAM": (
        named("image_encoder.patch_embed.seq.0.c.weight", "mask_decoder.iou_token.weight"),
        "is MobileSAM or LiteMedSAM, whose image encoder is a TinyViT",
    ),
    "EdgeSAM": (named("image_encoder.features.0.weight"), "is a SAM with another backbone"),
    "SAM-Med2D": (
        SAM | named("image_encoder.blocks.0.Adapter.channel.0.weight"),
        "is SAM with adapters (SAM-Med2D, Medical SAM Adapter and kin)",
    ),
    "Medical SAM Adapter": (
        dict(state_dict=SAM | named("image_encoder.blocks.0.MLP_Adapter.D_fc1.weight")),
        "is SAM with adapters",
    ),
    "LoRA": (
        SAM | named("image_encoder.blocks.0.attn.qkv.lora_A.weight"),
        "is LoRA (image_encoder.blocks.0.attn.qkv.lora_A.weight); merge it into its base model",
    ),
    "LoRA of SAMed": (named("w_a_000", "w_b_000"), "is LoRA (w_a_000)"),
    "LoRA of peft": (
        named("base_model.model.encoder.layer.0.q.lora_B.default.weight"),
        "is LoRA (base_model.model.encoder.layer.0.q.lora_B.default.weight)",
    ),
    "a DIT model": (state_of(dit("layer_wise")), "holds a DIT model: use `convert dit`"),
    "a BERT": (
        named("bert.embeddings.word_embeddings.weight"),
        "holds a BERT: use `convert bert`",
    ),
    "something else": (
        named("layer1.0.conv1.weight", "fc.bias"),
        "has no tensor image_encoder.pos_embed or vision_encoder.pos_embed, but 2 such as fc.bias",
    ),
    "no SAM left": (
        {name: value for name, value in SAM.items() if "rel_pos" not in name},
        "it has no tensor image_encoder.blocks.0.attn.rel_pos_h",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds_of_sam_are_named(tmp_path, capsys, kind):
    state, message = OTHERS[kind]
    torch.save(to_torch(state), tmp_path / "a.pth")
    assert run("sam", tmp_path / "a.pth", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert message in said and "visual_encoder" not in said.splitlines()[-1]


def to_torch(state):
    return {
        k: to_torch(v) if isinstance(v, dict) else torch.from_numpy(v) for k, v in state.items()
    }


TEXT = {
    "DistilBertModel": ("is DistilBERT (", dict(dim=32, hidden_dim=32, n_layers=1, n_heads=2)),
    "AlbertModel": ("is ALBERT (", dict(embedding_size=16)),
    "ElectraForPreTraining": ("is ELECTRA (", dict(embedding_size=32)),
    "DebertaV2Model": ("is DeBERTa (", dict(relative_attention=True)),
    "MPNetModel": ("is MPNet (", {}),
    "MobileBertModel": ("is MobileBERT (", dict(embedding_size=16, intra_bottleneck_size=16)),
    "RobertaForMaskedLM": ("is RoBERTa or XLM-R", {}),
    "CamembertForMaskedLM": ("is RoBERTa or XLM-R", {}),
    "ErnieModel": ("is ERNIE (", dict(use_task_id=True)),
}


@pytest.mark.parametrize("kind", TEXT)
@pytest.mark.parametrize("config", [True, False])
def test_other_text_encoders_are_named(tmp_path, capsys, kind, config):
    message, more = TEXT[kind]
    small = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    cls = getattr(transformers, kind)
    model = cls(cls.config_class(**small | dict(vocab_size=50) | more))
    model.save_pretrained(tmp_path / "a")
    if not config:
        (tmp_path / "a" / "config.json").unlink()
    capsys.readouterr()
    assert run("bert", tmp_path / "a", tmp_path / "out") == 1
    assert message in capsys.readouterr().err


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 375042383\n"
FILES = {
    "git-lfs": (LFS, "is a git-lfs pointer and not the file itself: run `git lfs pull`"),
    "html": (b"<!DOCTYPE html>\n<html><head><title>404</title>", "is a web page: the download"),
    "HTML after a gap": (b"\n\n  <HTML lang='en'>", "is a web page"),
    "xml": (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "is a web page"),
    "json": (b'{"error": "Repository not found"}', "is JSON, not weights"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(300), "is an HDF5 file of TensorFlow or Keras"),
    "gguf": (b"GGUF\x03\x00" + bytes(300), "is a GGUF file"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(300), "is a compressed archive: unpack it first"),
    "empty": (b"", "is empty: the download or copy went wrong"),
}


@pytest.mark.parametrize("suffix", [".pth", ".bin", ".safetensors", ".ckpt"])
@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_checkpoint_is_named(tmp_path, capsys, kind, suffix):
    content, message = FILES[kind]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    for source in (path, tmp_path):
        assert run("bert", source, tmp_path / "out") == 1
        assert f"a{suffix} {message}" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_archives_that_hold_no_state_dict(tmp_path, capsys):
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(tmp_path / "program.pt")
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    with zipfile.ZipFile(tmp_path / "files.zip", "w") as archive:
        archive.writestr("model/pytorch_model.bin", b"x")
    (tmp_path / "bert_model.ckpt.index").write_bytes(b"x")
    for name, message in {
        "program.pt": "is a TorchScript program: save the state_dict() of its model",
        "arrays.npz": "is NumPy's .npz; expected",
        "files.zip": "is a zip archive of files: unpack it first",
        "bert_model.ckpt": "is a checkpoint of TensorFlow; expected PyTorch's",
    }.items():
        assert run("bert", tmp_path / name, tmp_path / "out") == 1
        assert f"{name} {message}" in capsys.readouterr().err


def test_a_whole_model_is_refused(tmp_path, capsys):
    """`torch.save(model)`: a class that would have to be imported and filled."""
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pth")
    assert run("sam", tmp_path / "a.pth", tmp_path / "out") == 1
    assert "holds more than data and would run torch.nn.modules.linear" in capsys.readouterr().err

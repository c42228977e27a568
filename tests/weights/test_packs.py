"""Packs: what training changed, on its base again: the same model bit for bit, and on no other."""

import dataclasses
import json
import re
import shutil
import time

import jax
import numpy as np
import pytest
from places import TREES

import dit_jax
from dit_jax.data.shapes.dataset import VOCAB
from dit_jax.export import formats
from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Architecture, Bert, Injection, Vit
from dit_jax.train import optim
from dit_jax.weights import directory, manifest, packs

VIT = Vit(depth=2, width=32, heads=2, global_blocks=(1,), window=3, grid=4)
BERT = Bert(vocab=256, depth=1, width=32, heads=2, mlp_width=48, positions=32)
SMALL = dict(text_layer=1, decoder_width=64, decoder_mlp_width=64, decoder_depth=1, image_size=64)
ARCH = Architecture(VIT, BERT, Injection.LAYER_WISE, **SMALL)
FROZEN = ("image_encoder", "text_encoder")


def trained(params, *, seed, freeze=FROZEN):
    """As a run with frozen encoders leaves them: every trainable number is another one."""
    rng = np.random.default_rng(seed)
    trainable, frozen = optim.partition(params, freeze)
    moved = jax.tree.map(
        lambda v: (v + 0.1 * rng.standard_normal(v.shape)).astype(np.float32), trainable
    )
    return optim.combine(moved, frozen)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A base, two models trained from it, and their packs."""
    root = tmp_path_factory.mktemp("packs")
    base = params_lib.init(ARCH, seed=1)
    directory.save(root / "base", ARCH, base, vocab=VOCAB, provenance={"source": "drawn"})
    for seed, name in enumerate(("cats", "dogs")):
        about = dict(vocab=VOCAB, provenance={"step": seed}, license="MIT")
        directory.save(root / name, ARCH, trained(base, seed=seed), **about)
        packs.save(root / name, root / "base", root / f"{name}.pack")
    return root


@pytest.fixture(scope="module")
def base(folders):
    return packs.Base.open(folders / "base")


def same(actual, expected):
    actual, expected = params_lib.flatten(actual), params_lib.flatten(expected)
    assert actual.keys() == expected.keys()
    for path in expected:
        np.testing.assert_array_equal(actual[path], expected[path], err_msg=path, strict=True)


@pytest.mark.parametrize("name", ["cats", "dogs"])
def test_the_whole_model_bit_for_bit(folders, base, name):
    arch, params = base.params(folders / f"{name}.pack")
    expected_arch, expected = directory.read(folders / name)
    assert arch == expected_arch
    same(params, expected)
    graph, split = params_lib.split(base.with_pack(folders / f"{name}.pack"))
    assert graph == params_lib.split(dit_jax.load(folders / name))[0]
    same(split, expected)


def test_a_pack_holds_what_was_trained_and_no_more(folders):
    pack = packs.read(folders / "cats.pack")
    trainable, _ = optim.partition(params_lib.structure(ARCH)[1], FROZEN)
    assert pack.tensors.keys() == params_lib.flatten(trainable).keys()
    assert any(path.startswith("image_encoder.injector.") for path in pack.tensors)
    assert pack.provenance == {"step": 0, "base": "base"}
    noted = manifest.verify(folders / "cats.pack")
    assert noted.files.keys() == {"pack.json", "pack.safetensors"} and noted.license == "MIT"


def test_swapping_compiles_nothing_and_takes_less_than_a_second(folders, base):
    graph = params_lib.structure(ARCH)[0]
    rng = np.random.default_rng(0)
    images = rng.standard_normal((1, 64, 64, 3)).astype(np.float32)
    ids, mask = np.full((1, 20), 7, np.int32), np.ones((1, 20), np.int32)

    @jax.jit
    def logits(params):
        return params_lib.merge(graph, params)(images, ids, mask).logits

    first = {}
    for name in ("cats", "dogs", "cats", "dogs"):
        start = time.monotonic()
        _, params = base.params(folders / f"{name}.pack")
        jax.block_until_ready(params)
        assert time.monotonic() - start < 1
        found = np.asarray(logits(params))
        np.testing.assert_array_equal(found, first.setdefault(name, found))
    assert logits._cache_size() == 1
    for name, found in first.items():
        np.testing.assert_array_equal(found, logits(directory.read(folders / name)[1]))
    assert not np.array_equal(first["cats"], first["dogs"])


def test_a_segmenter_takes_on_one_pack_after_another(folders, base):
    segmenter = dit_jax.Segmenter.from_pretrained(folders / "base")
    picture = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    for name in ("cats", "dogs"):
        arch, params = base.params(folders / f"{name}.pack")
        segmenter.replace_params(params, arch)
        (found,) = segmenter(picture, "the red circle")
        (expected,) = dit_jax.Segmenter.from_pretrained(folders / name)(picture, "the red circle")
        np.testing.assert_array_equal(found.probability, expected.probability)


def test_a_pack_of_another_architecture_is_not_taken_on(folders, base, tmp_path):
    """What no shape tells: the pack says it, and its masks would be others."""
    arch = dataclasses.replace(ARCH, image_size=2 * ARCH.image_size, iou_trained=True)
    directory.save(tmp_path / "large", arch, directory.read(folders / "cats")[1], vocab=VOCAB)
    packs.save(tmp_path / "large", folders / "base", tmp_path / "pack")
    segmenter = dit_jax.Segmenter.from_pretrained(folders / "base")
    given, params = base.params(tmp_path / "pack")
    assert given == arch
    different = f"iou_trained True ≠ False, image_size {arch.image_size} ≠ {ARCH.image_size}"
    with pytest.raises(ValueError, match=f"its own ≠ this segmenter's.: {different}"):
        segmenter.replace_params(params, given)


def test_a_wrong_base_is_one_sentence(folders, tmp_path):
    pack = folders / "cats.pack"
    other = params_lib.init(ARCH, seed=2)
    directory.save(tmp_path / "other", ARCH, other, vocab=VOCAB)
    (tmp_path / "words.txt").write_text(VOCAB.read_text() + "more\n")
    right = params_lib.init(ARCH, seed=1)
    directory.save(tmp_path / "words", ARCH, right, vocab=tmp_path / "words.txt")
    deeper = dataclasses.replace(ARCH, vit=dataclasses.replace(VIT, depth=3))
    directory.save(tmp_path / "deeper", deeper, params_lib.init(deeper), vocab=VOCAB)
    one_bit = params_lib.flatten(params_lib.init(ARCH, seed=1))
    kernel = one_bit["image_encoder.blocks.1.attn.qkv.kernel"]
    kernel.view(np.uint8)[-1, -1] ^= 1
    directory.save(tmp_path / "bit", ARCH, params_lib.unflatten(one_bit), vocab=VOCAB)
    for name in ("other", "words", "deeper", "bit"):
        with pytest.raises(ValueError) as refused:
            packs.Base.open(tmp_path / name).with_pack(pack)
        message = str(refused.value)
        assert message.startswith(f"{tmp_path / name} is not the base of {pack}: expected the")
        assert "\n" not in message and message.endswith(".")


def test_what_is_trained_may_be_anything_in_the_base(folders):
    """A pack is bound to what it takes: another pack's model is as good a base."""
    _, params = packs.Base.open(folders / "dogs").params(folders / "cats.pack")
    same(params, directory.read(folders / "cats")[1])


@pytest.mark.parametrize("freeze", [("image_encoder",), ("text_encoder",)])
def test_one_encoder_may_be_trained(folders, tmp_path, base, freeze):
    params = trained(directory.read(folders / "base")[1], seed=3, freeze=freeze)
    directory.save(tmp_path / "model", ARCH, params, vocab=VOCAB)
    packs.save(tmp_path / "model", folders / "base", tmp_path / "pack")
    same(base.params(tmp_path / "pack")[1], params)


def test_a_presence_head_and_another_method_on_the_same_base(folders, tmp_path, base):
    """Its architecture is the pack's own; only the encoders are the base's."""
    arch = dataclasses.replace(ARCH, presence=True, injection=Injection.CROSS_ATTENTION)
    shared = params_lib.flatten(directory.read(folders / "base")[1])
    flat = params_lib.flatten(params_lib.init(arch, seed=9))
    flat |= {k: v for k, v in shared.items() if k in flat and optim.group(k) in FROZEN}
    directory.save(tmp_path / "model", arch, params_lib.unflatten(flat), vocab=VOCAB)
    packs.save(tmp_path / "model", folders / "base", tmp_path / "pack")
    found, params = base.params(tmp_path / "pack")
    assert found == arch
    same(params, params_lib.unflatten(flat))


def test_refusals(folders, tmp_path):
    def refused(match, model, base):
        with pytest.raises((ValueError, OSError), match=match):
            packs.save(model, base, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    everything = params_lib.init(ARCH, seed=8)
    directory.save(tmp_path / "tuned", ARCH, everything, vocab=VOCAB)
    refused("tuned shares no encoder with .*base", tmp_path / "tuned", folders / "base")
    refused("no parameter differs", folders / "base", folders / "base")
    (tmp_path / "words.txt").write_text(VOCAB.read_text() + "more\n")
    other = dict(vocab=tmp_path / "words.txt")
    directory.save(tmp_path / "words", ARCH, directory.read(folders / "cats")[1], **other)
    refused("different vocabularies", tmp_path / "words", folders / "base")
    spelled = folders / "base" / "tokenizer_config.json"
    cased = spelled.read_text().replace('"do_lower_case": true', '"do_lower_case": false')
    (tmp_path / "cased").mkdir()
    (tmp_path / "cased" / "tokenizer_config.json").write_text(cased)
    shutil.copy(VOCAB, tmp_path / "cased" / "words.txt")
    other = dict(vocab=tmp_path / "cased" / "words.txt")
    directory.save(tmp_path / "case", ARCH, directory.read(folders / "cats")[1], **other)
    refused("different vocabularies", tmp_path / "case", folders / "base")
    assert (tmp_path / "case" / "tokenizer_config.json").read_text() == cased
    refused("nowhere is no model directory", tmp_path / "nowhere", folders / "base")
    with pytest.raises(FileExistsError, match="is not empty"):
        packs.save(folders / "cats", folders / "base", folders / "dogs")


def test_a_damaged_pack_is_one_sentence(folders, tmp_path, base):
    pack = shutil.copytree(folders / "cats.pack", tmp_path / "pack")
    weights = pack / "pack.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"pack.safetensors is damaged: its SHA-256 is"):
        base.params(pack)
    weights.write_bytes(whole)
    (pack / "manifest.json").unlink()  # then what is in it has to do
    weights.write_bytes(whole[:-8])
    with pytest.raises(ValueError, match="is no whole safetensors file"):
        base.params(pack)
    weights.write_bytes(whole[:-4] + np.float32("nan").tobytes())
    with pytest.raises(ValueError, match=r"pack.safetensors holds NaN or infinity in \w+"):
        base.params(pack)
    weights.write_bytes(whole)
    base.params(pack)
    config = json.loads((pack / "pack.json").read_text())
    wrong = ({"format": 9}, {"base": 3}, {"provenance": None}, {"architecture": []})
    for content in ("{", "[]", *(json.dumps(config | change) for change in wrong)):
        (pack / "pack.json").write_text(content)
        with pytest.raises(ValueError, match=r"pack.json (is not JSON|describes no pack)"):
            base.params(pack)
    deep = config["architecture"]["vit"] | {"depth": 10**5}
    claimed = config | {"architecture": config["architecture"] | {"vit": deep}}
    (pack / "pack.json").write_text(json.dumps(claimed))
    with pytest.raises(ValueError, match="base is not the base of"):
        base.params(pack)
    with pytest.raises(FileNotFoundError, match="base is no pack: it has no pack.json"):
        base.params(folders / "base")


def test_export(folders, tmp_path):
    """To a pack, and from pack and base to every form that a whole model has."""
    noted = formats.export(
        folders / "cats", tmp_path / "cats", form="pack", base=folders / "base", license="MIT"
    )
    assert noted.provenance == {"step": 0, "base": "base"}
    card = (tmp_path / "cats" / "README.md").read_text()
    assert 'packs.Base.open("base").with_pack("cats")' in card
    with pytest.raises(ValueError, match="cats is a pack; give the model .* --base"):
        formats.export(tmp_path / "cats", tmp_path / "whole", form="safetensors")
    with pytest.raises(ValueError, match="cats is a pack already; expected the whole model"):
        formats.export(tmp_path / "cats", tmp_path / "a", form="pack", base=folders / "base")
    formats.export(tmp_path / "cats", tmp_path / "whole", form="safetensors", base=folders / "base")
    same(directory.read(tmp_path / "whole")[1], directory.read(folders / "cats")[1])
    assert (tmp_path / "whole" / "vocab.txt").read_bytes() == VOCAB.read_bytes()


def test_a_few_per_cent_at_real_size():
    """By the golden tree of the row, which tests/models/test_trees.py holds to the model."""
    tree = TREES / "ldit_vit_b_both_frozen.txt"
    total, trained = map(int, re.findall(r"\d+", tree.read_text().split("\n", 1)[0]))
    assert 0.05 < trained / total < 0.055

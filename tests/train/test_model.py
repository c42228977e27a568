"""From a config to the parts of a run: what does not fit is said before the first step."""

import dataclasses
import functools
import json
import logging
import re
import shutil

import jax
import numpy as np
import pytest
from checkpoints import random_state
from runs import config_of, shrink
from safetensors.numpy import load_file, save_file
from small_models import write_model

from dit_jax import variants, vocabulary
from dit_jax.config import Init
from dit_jax.convert import beside, transfer
from dit_jax.convert.__main__ import main as convert
from dit_jax.convert.assemble import assemble
from dit_jax.data import shapes
from dit_jax.models import params as parameters
from dit_jax.models.architecture import Architecture, Bert, Injection, Vit
from dit_jax.train import model, run, scoring, trained
from dit_jax.train.run import Run
from dit_jax.variants import BOTH, IMAGE
from dit_jax.weights import directory


@pytest.fixture(autouse=True)
def small(monkeypatch):
    shrink(monkeypatch)


def first_params(config, folder, arch):
    init = with_init(config, model=str(folder)).model.init
    return model.first_params(init, arch, seed=config.seed)


def with_init(config, **init):
    """The config with other sources of weights."""
    model = dataclasses.replace(config.model, init=dataclasses.replace(config.model.init, **init))
    return dataclasses.replace(config, model=model)


def plain_sam(folder):
    arch = Architecture(Vit(1, 16, 1, (0,), grid=4), None, Injection.NONE, image_size=64)
    directory.save(folder, arch, parameters.init(arch))


def test_another_architecture_is_refused():
    wanted = config_of().architecture()
    free = dataclasses.replace(wanted, image_size=128, dtype="bfloat16")
    model.check_architecture(free, wanted, folder="models/a")
    bert = dataclasses.replace(wanted.bert, depth=2)
    other = dataclasses.replace(wanted, injection=Injection.E2E, mask_padding=False, bert=bert)
    with pytest.raises(ValueError, match="^models/a holds another model") as raised:
        model.check_architecture(other, wanted, folder="models/a")
    for field in ("injection: e2e → layer_wise", "mask_padding: False → True", "bert.depth: 2 → 1"):
        assert field in str(raised.value)


@pytest.mark.parametrize(
    ("row", "given", "freeze", "said"),
    [
        ("ldit_vit_b", "bert", (), "WARNED .* for image_encoder: .*Give --config.model.init.sam="),
        ("ldit_vit_b", "sam", (), "WARNED .* for text_encoder: .*Give --config.model.init.bert="),
        ("ldit_vit_b", "", (), "WARNED .* for image_encoder and text_encoder: .*sam=.* --.*bert="),
        ("ldit_vit_b", "sam", IMAGE, "WARNED .* for text_encoder: "),
        ("ldit_vit_b", "bert", IMAGE, "^image_encoder would stay at random .*expected --.*sam=S"),
        ("ldit_vit_b", "sam", BOTH, "^text_encoder would stay at random .*expected --.*bert=B"),
        ("ldit_vit_b", "sam,bert", BOTH, "^$"),
        ("ldit_vit_b", "model", BOTH, "^$"),
        ("tiny", "", BOTH, "^$"),  # small ones may be trained from nothing
    ],
)
def test_a_large_encoder_without_weights_is_named(row, given, freeze, said, monkeypatch):
    seen = []
    monkeypatch.setattr(run.logging, "warning", lambda text: seen.append(f"WARNED {text}"))
    init = Init(*(name * (name in given.split(",")) for name in ("model", "sam", "bert")))
    arch = variants.architecture(variants.VARIANTS[row])
    try:
        run.check_weights(init, arch, freeze=freeze)
    except ValueError as error:
        seen.append(str(error))
    assert re.search(said, "".join(seen)), seen


def test_plain_sam_needs_no_bert(monkeypatch):
    monkeypatch.setattr(run.logging, "warning", pytest.fail)
    arch = Architecture(variants.BACKBONES["vit_b"], None, Injection.NONE)
    run.check_weights(Init(model="", sam="SAM.pth", bert=""), arch, freeze=BOTH)


def test_training_from_a_directory(tmp_path):
    config = config_of()
    arch = config.architecture()
    params = parameters.init(arch, seed=7)
    directory.save(tmp_path / "model", arch, params)
    plain_sam(tmp_path / "sam")
    first = first_params(config, tmp_path / "model", arch)
    jax.tree.map(np.testing.assert_array_equal, first, params)
    other = dataclasses.replace(arch, injection=Injection.E2E)  # of the very same shapes
    with pytest.raises(ValueError, match="injection: layer_wise → e2e"):
        first_params(config, tmp_path / "model", other)
    with pytest.raises(ValueError, match="one encoder or plain SAM; give it as model.init.bert"):
        first_params(config, tmp_path / "sam", arch)


def test_the_vocabulary_of_bert(tmp_path):
    folder, config = tmp_path / "bert", config_of(data__dataset="refcoco")
    folder.mkdir()
    weights = folder / "model.safetensors"
    for bert in ("", str(folder), str(weights)):
        with pytest.raises(ValueError, match="model.vocab is empty and no vocab.txt lies beside"):
            model.vocabulary(with_init(config, bert=bert).model, drawn=False)
    weights.touch()
    (folder / "vocab.txt").touch()
    for bert in (folder, weights):
        assert (
            model.vocabulary(with_init(config, bert=str(bert)).model, drawn=False)
            == folder / "vocab.txt"
        )


def test_bert_from_a_hugging_face_folder(tmp_path):
    arch = variants.architecture(variants.VARIANTS["tiny"], text_layer=1)
    params = parameters.flatten(parameters.init(arch, seed=7))
    bert = {path: value for path, value in params.items() if path.startswith("text_encoder.")}
    state = {k.removeprefix("lang_encoder."): v for k, v in transfer.to_state(bert).items()}
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(FileNotFoundError, match="holds no weights: expected model.safetensors or"):
        assemble(arch, sam=None, bert=tmp_path)
    save_file(
        {k: np.ascontiguousarray(v) for k, v in state.items()}, tmp_path / "model.safetensors"
    )
    found = parameters.flatten(assemble(arch, sam=None, bert=tmp_path))
    for path, value in bert.items():
        np.testing.assert_array_equal(found[path], value, err_msg=path)


def test_a_directory_is_asked_at_its_own_size_and_precision_and_says_so(tmp_path, caplog):
    folder, same = write_model(tmp_path / "model"), dict(model__image_size=64)
    load = functools.partial(trained.load, workdir=tmp_path / "run", model_dir=folder)
    caplog.set_level(logging.WARNING, logger="absl")
    load(config_of(**same))
    assert not caplog.messages
    found = load(config_of(model__image_size=128, model__dtype="bfloat16"))
    assert (found.model.arch.image_size, found.model.arch.dtype) == (64, "float32")
    assert caplog.messages == [
        f"{folder} is asked at its own image_size, 64; the config says 128.",
        f"{folder} is asked at its own dtype, float32; the config says bfloat16.",
    ]


def test_splits_are_opened_first(tmp_path):
    config = config_of(data__eval_splits=("val", "testC"))
    with pytest.raises(ValueError, match="unknown split 'testC'"):
        Run.of(config, tmp_path)


def test_plain_sam_is_not_evaluated(tmp_path):
    plain_sam(tmp_path / "sam")
    with pytest.raises(ValueError, match="is plain SAM, which reads no text; expected a model"):
        scoring.score(config_of(), tmp_path, model_dir=tmp_path / "sam")


@pytest.fixture
def bert_folder(tmp_path):
    """A BERT of Hugging Face's names, 48 wide, with 6 heads and its vocabulary."""
    bert = Bert(vocab=300, depth=2, width=48, heads=6, mlp_width=64, positions=32)
    arch = Architecture(Vit(1, 16, 1, (0,), grid=1), bert, Injection.NONE, text_layer=1)
    folder = tmp_path / "bert"
    folder.mkdir()
    state = random_state(arch, "text_encoder.")
    save_file(
        {name.removeprefix("lang_encoder."): value for name, value in state.items()},
        folder / "model.safetensors",
    )
    keys = {theirs: getattr(bert, ours) for ours, theirs in beside.BERT_KEYS.items()}
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **keys}))
    shutil.copy(shapes.VOCAB, folder)
    return folder


@pytest.mark.parametrize("injection", ["none", "e2e", "layer_wise", "layer_wise_static"])
def test_a_text_encoder_of_another_size(tmp_path, bert_folder, injection):
    """One setting: its size, its weights, its words; the projection comes by itself."""
    config = config_of(model__text_encoder=str(bert_folder), model__injection=injection)
    run = Run.of(config, tmp_path / "run")
    bert = run.model.arch.bert
    assert (bert.width, bert.heads, bert.depth, bert.vocab) == (48, 6, 2, 300)
    assert run.model.arch.text_projection == (injection != "none")
    assert run.model.tokenizer.vocab_path == bert_folder / "vocab.txt"
    params = model.first_params(model.weights(config.model), run.model.arch, seed=0)
    theirs = load_file(bert_folder / "model.safetensors")["bert.embeddings.LayerNorm.weight"]
    scale = parameters.flatten(params)["text_encoder.embeddings.norm.scale"]
    np.testing.assert_array_equal(scale, theirs)


def test_a_text_encoder_by_its_row_or_a_model_directory(tmp_path, bert_folder):
    assert config_of(model__text_encoder="base").architecture().bert == Bert()
    assert convert(["bert", str(bert_folder), str(tmp_path / "ours")]) == 0
    named = config_of(model__text_encoder=str(tmp_path / "ours"))
    assert named.architecture() == config_of(model__text_encoder=str(bert_folder)).architecture()
    assert model.weights(named.model).bert == str(tmp_path / "ours")
    with_model = config_of(model__text_encoder=str(bert_folder))
    with_model = with_init(with_model, model=str(tmp_path / "a")).model
    assert model.weights(with_model).bert == ""  # a whole model has its own
    with pytest.raises(
        ValueError,
        match="'larg'; expected one of tiny, mini, mini_first, base, or a BERT's folder: no such",
    ):
        config_of(model__text_encoder="larg").architecture()
    plain_sam(tmp_path / "sam")
    with pytest.raises(ValueError, match="is plain SAM; expected a model with a text encoder"):
        config_of(model__text_encoder=str(tmp_path / "sam")).architecture()


def test_another_bert_is_told_in_one_short_sentence(tmp_path, bert_folder):
    """Before its vocabulary is compared with a table that is not its own."""
    config = with_init(config_of(), bert=str(bert_folder))
    with pytest.raises(ValueError, match="another BERT .*: vocab 300 ≠ 256, depth 2 ≠ 1") as raised:
        Run.of(config, tmp_path / "run")
    assert f"set model.text_encoder={bert_folder}." in str(raised.value)
    assert len(str(raised.value)) < 400 + len(str(bert_folder)) * 2


def test_a_bert_without_its_words(tmp_path, bert_folder):
    """The embedded data set has a vocabulary too, but of another table."""
    (bert_folder / "vocab.txt").unlink()
    for bert in (bert_folder, bert_folder / "model.safetensors"):
        with pytest.raises(ValueError, match="expected the vocabulary that it was trained with"):
            model.vocabulary(with_init(config_of(), bert=str(bert)).model, drawn=True)
        config = config_of(model__text_encoder=str(bert_folder))
        with pytest.raises(ValueError, match="expected the vocabulary that it was trained with"):
            Run.of(config, tmp_path / "run")
    assert model.vocabulary(config_of().model, drawn=True) == shapes.VOCAB


@pytest.mark.parametrize("count", [400, 20])
def test_the_words_of_another_bert(tmp_path, bert_folder, count, monkeypatch):
    """Named by hand, where its own lie beside it."""
    monkeypatch.setattr(vocabulary, "PADDED", 200)
    lines = [*vocabulary.SPECIAL, *(f"word{i}" for i in range(count - 5))]
    (tmp_path / "words.txt").write_text("\n".join(lines))
    named = dict(model__vocab=str(tmp_path / "words.txt"))
    config = config_of(model__text_encoder=str(bert_folder), **named)
    with pytest.raises(ValueError, match=f"words.txt has {count} word pieces, .* has 300 rows"):
        Run.of(config, tmp_path / "run")


def test_odd_line_ends_are_word_pieces(tmp_path):
    """A vocabulary has a piece a line; U+2028, U+0085, U+000B and U+000C end none."""
    arch = config_of().architecture()
    words = [*shapes.VOCAB.read_text().splitlines(), "\u2028", "\u0085x", "\u000b", "a\u000cb"]
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("\n".join(words) + "\n", encoding="utf-8")
    fitting = dataclasses.replace(arch, bert=dataclasses.replace(arch.bert, vocab=len(words)))
    assert model.open_tokenizer(vocab, fitting).size == len(words)
    small = dataclasses.replace(arch, bert=dataclasses.replace(arch.bert, vocab=len(words) - 1))
    with pytest.raises(ValueError, match=f"set model.vocab_size={len(words)}"):
        model.open_tokenizer(vocab, small)

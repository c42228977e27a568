"""From a config to the parts of a run: what does not fit is said before the first step."""

import dataclasses

import jax
import numpy as np
import pytest
from runs import config_of, shrink
from safetensors.numpy import save_file

from dit_jax import variants
from dit_jax.convert import transfer
from dit_jax.convert.assemble import assemble
from dit_jax.models import params as parameters
from dit_jax.models.architecture import Architecture, Injection, Vit
from dit_jax.train import model, scoring
from dit_jax.train.run import Run
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


def test_splits_are_opened_first(tmp_path):
    config = config_of(data__eval_splits=("val", "testC"))
    with pytest.raises(ValueError, match="unknown split 'testC'"):
        Run.of(config, tmp_path)


def test_plain_sam_is_not_evaluated(tmp_path):
    plain_sam(tmp_path / "sam")
    with pytest.raises(ValueError, match="is plain SAM, which reads no text; expected a model"):
        scoring.score(config_of(), tmp_path, model_dir=tmp_path / "sam")

"""The answer "nothing": the head alone, in the loss, in directories; and that it is learnt."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import assert_close
from runs import config_of, shrink

from dit_jax.data.pipeline.streams import train_batches
from dit_jax.data.pixels.transforms import UNCHANGED
from dit_jax.data.referent import Referent, Truth
from dit_jax.data.shapes import dataset
from dit_jax.data.shapes.layout import COLOURS
from dit_jax.data.tokenizer import Tokenizer
from dit_jax.models import params as parameters
from dit_jax.models.architecture import Architecture, Bert, Injection, Vit, from_json, to_json
from dit_jax.models.initial import PRESENT
from dit_jax.train import model as models
from dit_jax.train import optim
from dit_jax.train import state as states
from dit_jax.train import step as steps
from dit_jax.train.placement import sharding
from dit_jax.weights import directory

HEAD = directory.PRESENCE_HEAD
ASKED = tuple(COLOURS)[::2]  # red, yellow, cyan, purple
SIZE = 64
WEIGHTS = dict(presence_weight=0.25, iou_weight=0.0)


@dataclasses.dataclass(frozen=True)
class Squares:
    """One square a picture, and two expressions for it: the second names a colour it has not.

    In each eight referents, four are meant and every colour is named twice, once in vain: neither
    the picture nor the words alone tell which.
    """

    length: int

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        place, absent = divmod(index, 2)
        said = ASKED[(place + absent * (1 + place // 4)) % 4]
        y, x = np.random.default_rng(place).integers(4, 36, 2)
        mask = np.zeros((SIZE, SIZE), bool)
        mask[y : y + 24, x : x + 24] = True
        image = np.full((SIZE, SIZE, 3), 128, np.uint8)
        image[mask] = COLOURS[ASKED[place % 4]]
        return Referent(image, mask & (not absent), (f"the {said} square",), f"s{index}", place)

    def truth(self, index) -> Truth:
        return self[index].truth()

    def expression_counts(self):
        return np.ones(self.length, np.int64)

    def image_ids(self):
        return np.arange(self.length) // 2


@pytest.fixture(autouse=True, scope="module")
def small():
    """Small models, which take longer to optimise than to run."""
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        yield
    jax.config.update("jax_disable_most_optimizations", False)


def architecture(**settings) -> Architecture:
    vit = Vit(depth=2, width=32, heads=2, global_blocks=(1,), window=3, grid=4)
    bert = Bert(vocab=256, depth=1, width=32, heads=2, mlp_width=48, positions=32)
    settings = dict(text_layer=1, image_size=SIZE, decoder_depth=1, presence=True) | settings
    return Architecture(vit, bert, Injection.LAYER_WISE, **settings)


@functools.cache
def squares(count: int) -> dict:
    """One training batch of them, as the pipeline makes it."""
    tokenizer = Tokenizer(dataset.VOCAB, length=20)
    about = dict(size=SIZE, batch_size=count, augmentation=UNCHANGED, seed=0)
    batches = train_batches(Squares(count), tokenizer, **about)
    batch = next(batches)
    batches.close()
    return batch


def prepared() -> tuple[steps.Inputs, tuple]:
    """Everything about four of them, and what the model is given of it."""
    inputs = steps.prepare({key: jnp.asarray(x) for key, x in squares(4).items()})
    return inputs, (inputs["images"], inputs["input_ids"], inputs["attention_mask"])


def perturbed(arch: Architecture) -> parameters.Params:
    """Parameters of which none is zero by its start."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: jnp.asarray(x + 0.05 * rng.standard_normal(x.shape, np.float32)),
        parameters.init(arch),
    )


@functools.cache
def forward(arch: Architecture):
    """`(params, *what the model is given) → Prediction`, compiled."""
    graph, _ = parameters.structure(arch)
    return jax.jit(lambda params, *given: parameters.merge(graph, params)(*given))


@functools.cache
def answering():
    """Compiled: `(params, inputs) → ((presence loss, all losses), its gradients)`."""
    graph, _ = parameters.structure(architecture())

    def presence_loss(params, inputs):
        metrics = steps.losses(graph, params, inputs, **WEIGHTS, rngs=None)
        return metrics["presence_loss"], metrics

    return jax.jit(jax.value_and_grad(presence_loss, has_aux=True))


def test_without_the_head_nothing_changes():
    """The head adds six parameters and an output; all else has the same values."""
    with_head, without = architecture(), architecture(presence=False)
    ours, theirs = parameters.init(with_head), parameters.init(without)
    flat, rest = parameters.flatten(ours), parameters.flatten(theirs)
    added = flat.keys() - rest.keys()
    assert added == {f"{HEAD}layers.{i}.{leaf}" for i in range(3) for leaf in ("kernel", "bias")}
    assert all(np.array_equal(flat[path], value) for path, value in rest.items())
    _, given = prepared()
    saying, silent = forward(with_head)(ours, *given), forward(without)(theirs, *given)
    assert silent.presence is None
    assert_close(silent.logits, saying.logits, "logits", tolerance=1e-6)
    assert_close(silent.iou, saying.iou, "iou", tolerance=1e-6)
    # Fresh, it answers as a model without it: something is meant.
    np.testing.assert_array_equal(saying.presence, np.full(4, PRESENT, np.float32))
    assert PRESENT > 0


def test_presence_is_one_float32_a_picture():
    """Whatever the compute dtype, and however many masks are asked for."""
    arch = architecture(dtype="bfloat16")
    graph, _ = parameters.structure(arch)

    def both(params, images, *words):
        model = parameters.merge(graph, params)
        text = model.text_proj(model.encode_text(*words))
        several = model.decode(model.encode_image(images, *words), text=text, multimask=True)
        return [(x.logits, x.iou, x.presence) for x in (model(images, *words), several)]

    _, given = prepared()
    single, several = jax.eval_shape(both, parameters.init(arch), *given)
    assert [x.shape for x in single] == [(4, SIZE, SIZE), (4,), (4,)]
    assert [x.shape for x in several] == [(4, 3, SIZE, SIZE), (4, 3), (4,)]
    assert single[2].dtype == several[2].dtype == jnp.float32


def test_loss():
    """Pixels plus the weighted answers; `present` counts, not what is left of the mask."""
    params, (inputs, given) = perturbed(architecture()), prepared()
    said = forward(architecture())(params, *given)
    (_, metrics), _ = answering()(params, inputs)
    cross_entropy, present = optax.sigmoid_binary_cross_entropy, inputs["present"]
    assert sorted(present.tolist()) == [False, False, True, True]
    np.testing.assert_array_equal(present, inputs["target"].any((1, 2)))
    answers = float(cross_entropy(said.presence, present.astype(np.float32)).mean())
    pixels = float(cross_entropy(said.logits, inputs["target"]).mean())
    assert float(metrics["loss"]) == pytest.approx(pixels + 0.25 * answers, rel=1e-5)
    assert float(metrics["presence_loss"]) == pytest.approx(answers, rel=1e-5)
    assert float(metrics["presence_accuracy"]) == np.mean((said.presence > 0) == present)
    vanished = inputs | {"target": jnp.zeros_like(inputs["target"])}
    assert float(answering()(params, vanished)[0][0]) == pytest.approx(answers, rel=1e-5)
    nothing = inputs | {"present": jnp.zeros_like(present)}
    assert float(answering()(params, nothing)[0][0]) != pytest.approx(answers, rel=1e-3)


def test_gradients_of_the_answer():
    """They reach the head and all that it looks at, both encoders included."""
    _, grads = answering()(perturbed(architecture()), prepared()[0])
    largest = {path: np.abs(g).max() for path, g in parameters.flatten(grads).items()}
    for path in (
        f"{HEAD}layers.0.kernel",
        f"{HEAD}layers.2.bias",
        "mask_decoder.iou_token",
        "image_encoder.patch_embed.proj.kernel",
        "image_encoder.blocks.0.attn.qkv.kernel",
        "text_encoder.layer.0.attention.value.kernel",
    ):
        assert largest[path] > 1e-6, path
    # The mask's own network is none of its business.
    assert largest["mask_decoder.output_hypernetworks_mlps.0.layers.0.kernel"] == 0


def test_every_parameter_of_the_head_has_a_place():
    """In the sharding table, and in the freezing table: it learns while the encoders are frozen."""
    flat = parameters.flatten(parameters.init(architecture()))
    _, frozen = optim.partition(
        parameters.unflatten(flat), freeze=("image_encoder", "text_encoder")
    )
    for path in (path for path in flat if path.startswith(HEAD)):
        sharding._rule(path)
        assert path not in parameters.flatten(frozen)


def test_an_older_directory_has_no_head(tmp_path):
    """Without the field it says nothing about presence; asked for, the head starts fresh."""
    arch = architecture(presence=False)
    directory.save(tmp_path, arch, parameters.init(arch, seed=3))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"].pop("presence") is False
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "manifest.json").unlink()  # older still
    contents = directory.read_contents(tmp_path)
    assert contents.architecture == arch
    extended = directory.with_presence(contents, seed=5)
    assert extended.architecture == architecture()
    fresh = parameters.flatten(parameters.init(architecture(), seed=5))
    expected = {path: v for path, v in fresh.items() if path.startswith(HEAD)} | contents.tensors
    assert extended.tensors.keys() == expected.keys() == fresh.keys()
    assert all(np.array_equal(extended.tensors[path], v) for path, v in expected.items())
    assert directory.with_presence(extended, seed=6) is extended


def test_training_goes_on_from_a_directory(tmp_path):
    """A head is added to a model that has none; one that is there is not dropped unasked."""
    silent, saying = config_of(), config_of(model__presence=True)
    for name, config in (("silent", silent), ("saying", saying)):
        arch = config.architecture()
        directory.save(tmp_path / name, arch, parameters.init(arch, seed=3))
    first = parameters.flatten(first_params(saying, tmp_path / "silent"))
    kept = parameters.flatten(parameters.init(silent.architecture(), seed=3))
    assert first.keys() - kept.keys() == {path for path in first if path.startswith(HEAD)}
    assert all(np.array_equal(first[path], value) for path, value in kept.items())
    assert first[f"{HEAD}layers.2.bias"] == np.float32(PRESENT)
    with pytest.raises(ValueError, match="holds another model .*presence: True → False"):
        first_params(silent, tmp_path / "saying")


def first_params(config, folder):
    init = dataclasses.replace(config.model.init, model=str(folder))
    return models.first_params(init, config.architecture(), seed=config.seed)


def test_a_directory_keeps_its_head(tmp_path):
    arch = architecture()
    params = perturbed(arch)
    directory.save(tmp_path, arch, params)
    found, loaded = directory.read(tmp_path)
    assert found == arch
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_what_an_architecture_says_of_it():
    assert from_json(to_json(architecture())).presence is True
    with pytest.raises(ValueError, match="architecture.presence is 1 of type int; expected bool"):
        from_json(to_json(architecture()) | {"presence": 1})
    with pytest.raises(ValueError, match="presence needs a text encoder, and bert is None"):
        dataclasses.replace(architecture(), bert=None, injection=Injection.NONE)


def training(config):
    """(step function, first state, prediction function, mesh)."""
    arch = config.architecture()
    graph, abstract = parameters.structure(arch)
    mesh = sharding.make_mesh(config.mesh)
    state = states.create(parameters.init(arch), freeze=config.freeze(), rules=config.optim)
    placement = sharding.shardings(state, mesh)
    about = dict(mesh=mesh, placement=placement, steps_per_epoch=1)
    about |= dict(dropout=config.model.dropout, remat=config.model.remat)
    train_step = steps.make_train_step(graph, config.optim, **about)
    placed = sharding.shardings(abstract, mesh)
    predict = steps.make_predict_step(graph, mesh=mesh, placement=placed)
    return train_step, jax.device_put(state, placement), predict, mesh


@pytest.mark.proof
def test_it_learns_what_is_not_there():
    """Answers and masks, of the averaged parameters, on the training pictures."""
    changes = dict(batch_size=16, max_steps=200, lr=2e-3, ema=0.8, presence_weight=0.5)
    config = config_of(model__presence=True, **{f"optim__{k}": v for k, v in changes.items()})
    train_step, state, predict, mesh = training(config)
    batch = squares(16)
    placed = steps.place_batch(batch, mesh)
    for _ in range(80):
        state, metrics = train_step(state, placed, jax.random.key(0))
    answers = predict(states.evaluated(state), placed)
    something = 1 / (1 + np.exp(-np.asarray(answers.presence))) >= 0.5
    present = batch["present"]
    assert np.mean(something == present) >= 0.9  # chance is 0.5
    assert float(metrics["presence_accuracy"]) >= 0.9
    masks, truths = np.asarray(answers.logits) > 0, batch["mask"] > 127
    ious = (masks & truths).sum((1, 2)) / (masks | truths).sum((1, 2)).clip(1)
    assert ious[present].mean() > 0.7
    assert masks[~present].mean() < 0.02  # the pixels agree: there is nothing to find

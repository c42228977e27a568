"""Properties that hold without any reference."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close
from flax import nnx
from quickly import compiled_quickly
from small_models import some

from dit_jax import variants
from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Architecture, Bert, Injection, Vit, from_json, to_json
from dit_jax.models.image_encoder import partition, unpartition

VIT = Vit(depth=2, width=32, heads=2, global_blocks=(1,), window=3, grid=4)
BERT = Bert(vocab=40, depth=1, width=32, heads=2, mlp_width=48, positions=24)
WIDE = dataclasses.replace(BERT, width=48)
QUICK = (Injection.LAYER_WISE, Injection.E2E, Injection.CROSS_ATTENTION)


@pytest.fixture(autouse=True, scope="module")
def quick(programs):
    with compiled_quickly(programs):
        yield


def small(injection, *, vit=VIT, bert=BERT, **settings):
    settings = dict(image_size=64, text_layer=1) | settings
    return Architecture(vit, bert, Injection(injection), **settings)


def batch(size=64, count=2, length=20):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((count, size, size, 3), np.float32)
    ids = rng.integers(1, 40, (count, length)).astype(np.int32)
    mask = np.ones((count, length), np.int32)
    mask[0, 6:] = 0
    return images, ids * mask, mask


@functools.cache
def perturbed(arch):
    """One compilation for all tests of an architecture."""
    return PerturbedModel(arch)


class PerturbedModel:
    """A model whose zero-initialised parameters are not zero, and its parts as jitted functions."""

    def __init__(self, arch):
        self.arch = arch
        self.graph, _ = params_lib.structure(arch)
        rng = np.random.default_rng(0)
        self.params = jax.tree.map(
            lambda x: x + 0.05 * rng.standard_normal(x.shape, np.float32), params_lib.init(arch)
        )
        self.run = jax.jit(lambda params, *batch: self.merge(params)(*batch))
        self.encode = jax.jit(lambda params, *batch: self.merge(params).encode_image(*batch))

    def merge(self, params):
        return params_lib.merge(self.graph, params)

    def __call__(self, *batch):
        return self.run(self.params, *batch)

    def encode_image(self, *batch):
        return self.encode(self.params, *batch)


@pytest.mark.parametrize("injection", some(*QUICK))
def test_every_method_reads_the_text(injection):
    """Words change the mask; in every row but the default also the image embedding."""
    check_that_it_reads(perturbed(small(injection)))


@pytest.mark.parametrize("injection", some(Injection.LAYER_WISE))
def test_every_method_reads_text_of_another_width(injection):
    check_that_it_reads(perturbed(small(injection, bert=WIDE)))


def check_that_it_reads(model):
    images, ids, mask = batch()
    other = ids.copy()
    other[:, 2] = 39 - other[:, 2]
    before, after = (model(images, x, mask).logits for x in (ids, other))
    assert before.shape == (2, 64, 64)
    assert np.abs(before - after).max() > 1e-4
    if model.arch.injection == Injection.NONE:
        return
    before, after = (model.encode_image(images, x, mask) for x in (ids, other))
    assert np.abs(before - after).max() > 1e-5


@pytest.mark.parametrize("injection", ["e2e", "e2e_carried", "layer_wise"])
def test_zero_initialised_injection_is_sam_with_zero_text_tokens(injection):
    arch = small(injection)
    graph, _ = params_lib.structure(arch)
    images, ids, mask = batch()

    @jax.jit
    def both(params):
        model = params_lib.merge(graph, params)
        x, zeros = model.image_encoder.embed(images), jnp.zeros((2, 20, VIT.width))
        carried = zeros
        for block in model.image_encoder.blocks:
            tokens = carried if injection == "e2e_carried" else zeros
            x, carried = block(x, tokens, carry=True)
        return model.encode_image(images, ids, mask), model.image_encoder.neck(x)

    assert_close(*both(params_lib.init(arch)), injection, tolerance=1e-5)


@pytest.mark.parametrize(
    "injection",
    some(Injection.NONE, Injection.E2E, Injection.LAYER_WISE, Injection.CROSS_ATTENTION),
)
def test_hidden_padding_cannot_matter(injection):
    """With `mask_padding` the word ids behind the mask change nothing; without it they do."""
    images, ids, mask = batch()
    other = np.where(mask == 1, ids, 7).astype(np.int32)
    for hidden in (True, False):
        model = perturbed(small(injection, mask_padding=hidden))
        before, after = (model(images, x, mask).logits[0] for x in (ids, other))
        difference = np.abs(before - after).max()
        assert difference < 1e-5 if hidden else difference > 1e-4


def test_text_rows_that_are_discarded_are_not_computed():
    """L-DIT's blocks take text as keys and values only; the image rows are the full block's."""
    model = perturbed(small("layer_wise"))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 4, 4, 32), np.float32)
    text = rng.standard_normal((2, 20, 32), np.float32)

    @jax.jit
    def both(params):
        block = model.merge(params).image_encoder.blocks[1]
        return block(x, text, carry=True), block(x, text)

    (full, _), (read_only, none) = both(model.params)
    assert none is None
    assert_close(read_only, full, "image rows", tolerance=1e-5)


@pytest.mark.parametrize("injection", [Injection.E2E_STATIC, Injection.LAYER_WISE_STATIC])
def test_static_prompts_need_their_number_of_tokens(injection):
    model = perturbed(small(injection))
    images, ids, mask = batch(length=12)
    with pytest.raises(ValueError, match="exactly 20 text tokens; got 12"):
        model(images, ids, mask)


@pytest.mark.parametrize(
    "injection",
    ["none", "layer_wise", pytest.param("cross_attention_ffn", marks=pytest.mark.proof)],
)
def test_expressions_share_their_picture(injection):
    """Five expressions on two pictures: as five calls, with the pictures' own work done twice."""
    model = perturbed(small(injection))
    images, _, _ = batch()
    _, ids, mask = batch(count=5)
    picture_of = np.asarray([1, 0, 0, 1, 0], np.int32)
    run = jax.jit(lambda params, *batch: model.merge(params).segment(*batch, picture_of=picture_of))
    asked = (images, ids, mask), (images[picture_of], ids, mask)
    together, apart = run(model.params, *asked[0]), model(*asked[1])
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(apart), strict=True):
        assert_close(a, b, injection, tolerance=1e-5)
    saved = flops(model.run, model.params, *asked[1]) - flops(run, model.params, *asked[0])
    patches_and_qkv = 2 * 16 * VIT.width * (16 * 16 * 3 + 3 * VIT.width)  # of one picture
    assert saved > 3 * patches_and_qkv
    if injection == "none":  # the whole encoder
        pictures = [flops(model.encode, model.params, images[:n]) for n in (1, 2)]
        assert saved > 0.95 * 3 * (pictures[1] - pictures[0])


def flops(f, *arguments):
    return f.lower(*arguments).cost_analysis()["flops"]


@pytest.mark.parametrize("size", [(64, 64), (32, 96), (80, 48)])
def test_any_size_divisible_by_16(size):
    model = perturbed(small("layer_wise"))
    _, ids, mask = batch()
    images = np.zeros((2, *size, 3), np.float32)
    prediction = model(images, ids, mask)
    assert prediction.logits.shape == (2, *size)
    assert prediction.low_res_logits.shape == (2, size[0] // 4, size[1] // 4)
    with pytest.raises(ValueError, match="expected multiples of 16 pixels"):
        model(np.zeros((2, 60, 64, 3), np.float32), ids, mask)


@pytest.mark.parametrize(
    ("changed", "tolerance"),
    [({"dtype": "bfloat16"}, 0.05), ({"products": "bfloat16"}, 0.05), ({"products": "fp8"}, 0.3)],
)
def test_lower_precision_keeps_parameters_and_logits_in_float32(changed, tolerance):
    arch = small("layer_wise", **changed)
    params = params_lib.init(arch)
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    images, ids, mask = batch()
    half = perturbed(arch)(images, ids, mask)
    whole = perturbed(small("layer_wise"))(images, ids, mask)
    assert half.logits.dtype == half.iou.dtype == jnp.float32
    assert_close(half.logits, whole.logits, str(changed), tolerance=tolerance)
    assert np.abs(half.logits - whole.logits).max() > 1e-4


def test_dropout_needs_a_key_and_uses_it():
    model = perturbed(small("cross_attention_ffn"))
    images, ids, mask = batch()
    train = jax.jit(
        lambda params, key: (
            model.merge(params)(images, ids, mask, rngs=nnx.Rngs(dropout=key)).logits
        )
    )
    plain = model(images, ids, mask).logits
    one, same, two = (train(model.params, jax.random.key(i)) for i in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, two) and not np.allclose(one, plain)


@pytest.mark.parametrize("grid", [(4, 4), (5, 7), (3, 6)])
def test_windows_come_back(grid):
    x = np.random.default_rng(0).standard_normal((2, *grid, 8), np.float32)
    windows, padded = partition(jnp.asarray(x), 3)
    assert windows.shape[1:] == (3, 3, 8) and padded == tuple(-(-n // 3) * 3 for n in grid)
    np.testing.assert_array_equal(unpartition(windows, 3, padded=padded, grid=grid), x)


def test_plain_sam_says_what_it_cannot_do():
    arch = Architecture(VIT, None, Injection.NONE, windowed=True)
    model = perturbed(arch)
    with pytest.raises(ValueError, match="no text encoder; use points or boxes"):
        model(*batch())
    with pytest.raises(ValueError, match="give input_ids and attention_mask"):
        perturbed(small("e2e")).encode_image(batch()[0])


@pytest.mark.parametrize("row", variants.VARIANTS)
def test_architecture_round_trips_through_json(row):
    arch = variants.architecture(variants.VARIANTS[row])
    assert from_json(to_json(arch)) == arch


def test_architecture_refuses_what_cannot_be():
    with pytest.raises(ValueError, match="layers 1 … 1"):
        small("e2e", text_layer=2)
    with pytest.raises(ValueError, match="needs global attention"):
        small("e2e", windowed=True)
    with pytest.raises(ValueError, match=r"unknown key architecture.colour"):
        from_json(to_json(small("e2e")) | {"colour": 1})


@pytest.mark.parametrize("injection", some(Injection.LAYER_WISE))
def test_a_loop_over_blocks_computes_the_same(injection):
    """The embedding and every gradient, with tables of both lengths that checkpoints have."""
    vit = dataclasses.replace(VIT, depth=4, global_blocks=(1, 3))
    model = perturbed(small(injection, vit=vit, mask_padding=True))
    images, _, mask = batch()
    text = np.random.default_rng(1).standard_normal((*mask.shape, BERT.width), np.float32)

    def loss(params, remat):
        encoder = model.merge(params).image_encoder
        embedding = encoder(images, text, text_mask=mask.astype(bool), remat=remat)
        return jnp.mean(jnp.sin(embedding)), embedding

    run = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
    ((_, expected), one), ((_, found), other) = run(model.params, "none"), run(model.params, "scan")
    assert_close(found, expected, "embedding", tolerance=1e-5)
    one, other = (params_lib.flatten(tree["image_encoder"]) for tree in (one, other))
    largest = max(float(jnp.abs(x).max()) for x in one.values())
    for path, gradient in one.items():
        assert np.abs(other[path] - gradient).max() <= 1e-5 * largest, path


def test_a_loop_over_blocks_draws_dropout_anew_for_each():
    vit = dataclasses.replace(VIT, depth=4)
    model = perturbed(small("layer_wise", vit=vit))

    @jax.jit
    def run(key):
        module, rngs = model.merge(model.params), nnx.Rngs(dropout=key)
        return module(*batch(), remat="scan", rngs=rngs).logits

    one, same, two = (run(jax.random.key(i)) for i in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, two)


def test_a_loop_over_blocks_has_no_windows():
    model = perturbed(Architecture(VIT, None, Injection.NONE, windowed=True))
    with pytest.raises(ValueError, match="remat is 'scan'; expected another policy"):
        jax.eval_shape(
            lambda params: model.merge(params).image_encoder(batch()[0], remat="scan"),
            model.params,
        )

"""Text that enters from a later block on: pictures are computed once up to there."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import VIT, architecture, random_params, some, write_model

from dit_jax.convert.reverse import reverse
from dit_jax.models import flops
from dit_jax.models import params as parameters
from dit_jax.models.architecture import Injection, from_json, to_json
from dit_jax.models.word_attention import encoder_maps
from dit_jax.predict import Segmenter
from dit_jax.strict import flatten

DEEP = dataclasses.replace(VIT, depth=5, global_blocks=(1, 4))
LATE = 2


def question(arch, *, pictures=2, texts=2):
    rng = np.random.default_rng(1)
    images = rng.standard_normal((pictures, 64, 64, 3)).astype(np.float32)
    features = rng.standard_normal((texts, arch.text_tokens, arch.bert.width)).astype(np.float32)
    return images, features


def close(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(np.abs(expected).max()))


def encoder_of(arch, params):
    return parameters.merge(parameters.structure(arch)[0], params).image_encoder


def deep(injection, **changes):
    return architecture(injection=injection, vit=DEEP, **changes)


INJECTING = [
    one
    for one in some(Injection.LAYER_WISE, Injection.E2E_STATIC)
    if getattr(one, "values", (one,))[0] != Injection.NONE
]


@pytest.mark.parametrize("injection", INJECTING)
def test_blocks_before_are_plain_and_the_others_a_shorter_model(injection):
    arch = deep(injection, inject_from=LATE, mask_padding=True)
    params = jax.tree.map(jnp.asarray, random_params(arch))
    images, text = question(arch)
    mask = jnp.arange(arch.text_tokens)[None] < jnp.array([[5], [9]])
    encoder = encoder_of(arch, params)

    x = encoder.embed(images)
    for block in encoder.blocks[:LATE]:
        x, _ = block(x, None)
    flat = parameters.flatten(params)
    prefix = "image_encoder.blocks."
    renamed = {
        f"{prefix}{int(number) - LATE}.{rest}": value
        for path, value in flat.items()
        if path.startswith(prefix)
        for number, rest in [path.removeprefix(prefix).split(".", 1)]
        if int(number) >= LATE
    }
    others = {path: value for path, value in flat.items() if not path.startswith(prefix)}
    vit = dataclasses.replace(DEEP, depth=DEEP.depth - LATE, global_blocks=(2,))
    short = dataclasses.replace(arch, vit=vit, inject_from=0)
    expected = encoder_of(short, parameters.unflatten(others | renamed)).from_text(
        x, text, text_mask=mask
    )
    found = jax.jit(lambda images, text: encoder(images, text, text_mask=mask))(images, text)
    close(found, expected)


@pytest.mark.proof
@pytest.mark.parametrize("late", [1, LATE, 3, 4])
def test_a_loop_over_blocks_gives_the_same(late):
    arch = deep(Injection.E2E, inject_from=late)
    params = jax.tree.map(jnp.asarray, random_params(arch))
    images, text = question(arch)

    def total(params, remat):
        return jnp.square(encoder_of(arch, params)(images, text, remat=remat)).mean()

    each = jax.jit(jax.value_and_grad(total), static_argnames="remat")
    (one, gradients), (other, scanned) = (each(params, remat=how) for how in ("none", "scan"))
    np.testing.assert_allclose(one, other, rtol=1e-5)
    largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradients))
    for found, expected in zip(jax.tree.leaves(scanned), jax.tree.leaves(gradients), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5 * largest)


def test_several_expressions_share_what_comes_before_them():
    arch = deep(Injection.LAYER_WISE, inject_from=LATE)
    params = jax.tree.map(jnp.asarray, random_params(arch))
    encoder = encoder_of(arch, params)
    images, text = question(arch, texts=4)
    rows = jnp.array([0, 1, 1, 0])
    together = encoder(images, text, picture_of=rows)
    close(together, encoder(images[rows], text))
    maps, embedding = encoder_maps(encoder, images, text[:2], text_mask=None)
    close(embedding, encoder(images, text[:2]))
    assert [bool(np.any(one)) for one in maps] == [False] * LATE + [True] * (DEEP.depth - LATE)


def test_a_segmenter_computes_a_picture_once(tmp_path, monkeypatch):
    changes = dict(vit=DEEP, injection=Injection.LAYER_WISE)
    late = write_model(tmp_path / "late", inject_from=LATE, **changes)
    segmenter = Segmenter.from_pretrained(late, batch_size=4)
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    texts = ["red circle", "blue star", "small thing"]
    alone = [Segmenter.from_pretrained(late)(picture, text)[0] for text in texts]

    calls = []
    programs = segmenter._engine.programs
    before = programs.before_text
    counted = lambda *given: calls.append(given) or before(*given)  # noqa: E731
    monkeypatch.setattr(programs, "before_text", counted)
    for text, expected in zip(texts, alone, strict=True):
        (found,) = segmenter(picture, text)
        np.testing.assert_array_equal(found.mask, expected.mask)
        assert found.score == pytest.approx(expected.score, abs=1e-5)
    assert len(calls) == 1


def test_what_it_costs_and_where_it_cannot_go():
    early, late = (deep(Injection.LAYER_WISE, inject_from=block) for block in (0, LATE))
    assert flops.forward(late) < flops.forward(early)
    shapes = parameters.flatten(parameters.structure(late)[1])
    probs = {path for path in shapes if "injector.probs" in path and path.endswith("kernel")}
    assert len(probs) == DEEP.depth - LATE
    with pytest.raises(ValueError, match="inject_from is 5; expected a block from 0 to 4"):
        deep(Injection.LAYER_WISE, inject_from=5)
    with pytest.raises(ValueError, match="inject_from is 1; expected a block from 0 to 0"):
        deep(Injection.NONE, inject_from=1)


def test_pytorch_has_no_such_model(tmp_path):
    folder = write_model(tmp_path / "late", vit=DEEP, inject_from=LATE)
    with pytest.raises(ValueError, match="reads text from block 2 on"):
        reverse(folder, tmp_path / "out.pth", form="dit")
    assert reverse(folder, tmp_path / "sam", form="hf-sam") > 0


def test_an_older_description_means_the_paper():
    values = json.loads(json.dumps(to_json(architecture())))
    del values["inject_from"]
    assert flatten(from_json(values)) == flatten(architecture())

"""What is computed, how often and with which settings: each text, picture and program once."""

import threading

import jax
import numpy as np
import pytest
from closeness import assert_same_answer
from photos import encoded, photo
from small_models import architecture, random_params, write_model

from dit_jax import Segmenter
from dit_jax.data.tokenizer import Tokenizer
from dit_jax.ops.attention import dispatch
from dit_jax.ops.platform import Target
from dit_jax.predict import picture as picture_module
from dit_jax.predict.programs import programs_of
from dit_jax.weights import directory

STAR, SQUARE = "the red star", "the large square"


@pytest.fixture
def compiled():
    """A list that grows by one for each program that XLA compiles."""
    found = []

    def listen(event, duration, **_):
        if event.endswith("backend_compile_duration"):
            found.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


def test_nothing_compiles_twice(folder, compiled):
    segmenter = Segmenter.from_pretrained(folder, batch_size=2)
    images = [photo(seed, height=40 + seed) for seed in range(7)]
    point = dict(points=[(3, 4, 1)])
    segmenter(images, SQUARE)  # 2, 2, 2 and 1
    segmenter(images[0], STAR)
    segmenter(images[0], STAR, **point)
    first = len(compiled)
    for seed, image in enumerate(images):
        segmenter(image, f"the {('red', 'blue', 'green')[seed % 3]} star")
        segmenter(image, STAR, points=[(seed, 5, seed % 2)] * (1 + 2 * seed))
    segmenter(images * 3, [STAR] * 21)
    segmenter.replace_params(random_params(architecture(), seed=6))
    segmenter(images[:4], SQUARE)
    segmenter(images[0], [STAR, SQUARE, STAR])
    assert len(compiled) == first
    segmenter(images[0], STAR, points=[(3, 4, 1)] * 17)  # more points than any test before
    assert len(compiled) == first + 1


def counted(monkeypatch, segmenter, name):
    """Rows of each call of a program."""
    program, rows = getattr(segmenter._engine.programs, name), []

    def run(params, *arguments, **more):
        first = next(iter((arguments or (more,))[-1].values()))
        rows.append(len(first))
        return program(params, *arguments, **more)

    monkeypatch.setattr(segmenter._engine.programs, name, run)
    return rows


def test_text_is_encoded_once_and_a_picture_is_read_once(monkeypatch, folder, tmp_path):
    segmenter = Segmenter.from_pretrained(folder, batch_size=2)
    texts, pictures = counted(monkeypatch, segmenter, "features"), []
    opened = segmenter.open
    monkeypatch.setattr(
        segmenter, "open", lambda image, **how: pictures.append(image) or opened(image, **how)
    )
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        path.write_bytes(encoded(photo()))
    segmenter(paths * 2, [STAR] * 6)
    segmenter(paths[0], [STAR, STAR])
    assert texts == [1]
    assert pictures == [*paths, paths[0]]


def test_embeddings_are_computed_once(monkeypatch, segmenter, default):
    """Of a picture that stays open: once a text where the model injects it, else once at all.

    Its pixels are hashed once, too.
    """
    hashed = []
    digest = picture_module.hashlib.blake2b
    monkeypatch.setattr(
        picture_module.hashlib, "blake2b", lambda *a, **how: hashed.append(1) or digest(*a, **how)
    )
    for model, expected in ((segmenter, [2, 1]), (default, [1])):
        embedded = counted(monkeypatch, model, "embed")
        hashed.clear()
        picture = model.open(photo(seed=7))  # that no other test has shown these models
        model(picture, ["the red star", "the red square", "the red circle"])
        model(picture, "the red square", points=[(20, 20, 1)])
        model(picture, "the red star", box=(3, 4, 30, 40))
        assert embedded == expected and hashed == [1]


def test_other_parameters_change_the_answers(folder, tmp_path):
    segmenter = Segmenter.from_pretrained(folder, batch_size=2)
    picture = segmenter.open(photo())
    before = segmenter(picture, STAR)[0]
    other = write_model(tmp_path / "other", seed=6)
    segmenter.replace_params(directory.read(other)[1])
    assert_same_answer(
        segmenter(picture, STAR)[0],
        Segmenter.from_pretrained(other, batch_size=2)(photo(), STAR)[0],
    )
    assert (segmenter(picture, STAR)[0].mask != before.mask).any()


def test_threads_share_a_segmenter(segmenter):
    images = [photo(seed) for seed in range(6)]
    expected = [segmenter(image, [STAR, SQUARE]) for image in images]
    found = {}

    def ask(number):
        found[number] = segmenter(images[number], [STAR, SQUARE])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(6):
        for one, other in zip(found[number], expected[number], strict=True):
            assert_same_answer(one, other)


def test_answers_do_not_keep_what_was_large(segmenter):
    (found,) = segmenter(photo(height=900, width=1200), STAR)
    assert found.logits.base is None and found.logits.nbytes <= 64 * 64 * 4
    before = found.logits.copy()
    assert found.mask is found.mask and found.probability is not found.probability
    np.testing.assert_array_equal(found.logits, before)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("jax_transfer_guard", "disallow"), ("jax_numpy_dtype_promotion", "strict")],
)
@pytest.mark.parametrize("of", ["text", "points and boxes"])
def test_strict_settings_of_jax(segmenter, default, setting, value, of):
    before = jax.config.values[setting]
    jax.config.update(setting, value)
    try:
        if of == "text":
            expected = segmenter(photo(7), [STAR, SQUARE, STAR])
        else:
            expected = default(photo(7), points=[(3, 4, 1)], multimask=True)
            expected += default([photo(7), photo(8)], box=[(3, 4, 40, 30), (1, 2, 20, 30)])
    finally:
        jax.config.update(setting, before)
    assert len(expected) == (3 if of == "text" else 5)


def test_a_model_on_a_cpu_is_given_no_kernels_of_a_gpu_beside_it(folder, monkeypatch):
    chosen, choose = set(), dispatch.choose
    monkeypatch.setattr(dispatch, "choose", lambda *of: chosen.add(of[1]) or choose(*of))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    one = jax.devices("cpu")[-1]
    arch, params = directory.read(folder)
    tokenizer = Tokenizer(folder / "vocab.txt", length=arch.text_tokens)
    programs_of.cache_clear()
    there = Segmenter(arch, jax.device_put(params, one), tokenizer)
    assert len(there(photo(), STAR)) == 1
    assert chosen == {Target("cpu", one)}

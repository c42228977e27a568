"""`Segmenter`: every form of a picture, lists, what is computed once, the evaluation's masks."""

import dataclasses
import io
import threading

import cv2
import jax
import numpy as np
import pytest
from closeness import assert_close
from PIL import Image, ImageOps
from quickly import compiled_quickly
from runs import config_of
from small_models import architecture, random_params, write_model

from dit_jax import Segmenter
from dit_jax.data.pixels.pictures import rgb
from dit_jax.data.tokenizer import Tokenizer, Unread
from dit_jax.eval.prediction_files import read
from dit_jax.models.architecture import Injection
from dit_jax.ops.attention import dispatch
from dit_jax.ops.platform import Target
from dit_jax.predict.engine import Request
from dit_jax.predict.picture import DIT
from dit_jax.predict.programs import programs_of
from dit_jax.predict.prompts import Prompt
from dit_jax.predict.segmentation import Segmentation
from dit_jax.train import scoring
from dit_jax.train.sources import Datasets
from dit_jax.weights import directory

STAR, SQUARE = "the red star", "the large square"


@pytest.fixture(scope="module", autouse=True)
def quick(programs):
    with compiled_quickly(programs):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "ldit")


@pytest.fixture(scope="module")
def segmenter(folder):
    return Segmenter.from_pretrained(folder, batch_size=2)


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    """Default fusion: the picture's embedding knows no text. And it says whether there is any."""
    folder = tmp_path_factory.mktemp("model") / "default"
    return Segmenter.from_pretrained(
        write_model(folder, injection=Injection.NONE, presence=True), batch_size=2
    )


def photo(seed=0, *, height=48, width=70):
    """Smooth enough for JPEG, without any symmetry."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(pixels, kind="PNG", **how):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **how)
    return file.getvalue()


def same(one, other):
    """Programs for different numbers of rows round differently, and differently on each CPU."""
    np.testing.assert_array_equal(one.mask, other.mask)
    assert_close(one.logits, other.logits, "logits", tolerance=1e-5)
    np.testing.assert_allclose(one.score, other.score, rtol=1e-4, atol=1e-5)


def test_one_picture_and_one_text(segmenter):
    (found,) = segmenter(photo(), STAR)
    assert found.mask.shape == found.probability.shape == (48, 70)
    assert (found.mask.dtype, found.probability.dtype) == (np.bool_, np.float32)
    assert 0.05 < found.mask.mean() < 0.95  # or nothing here could fail
    assert 0 <= found.probability.min() < 0.35 < found.probability.max() <= 1
    np.testing.assert_array_equal(found.mask, found.probability > 0.35)
    assert found.score == pytest.approx(found.probability[found.mask].mean(), rel=1e-5)
    assert (type(found.score), found.score_kind) == (float, "confidence")
    assert (found.presence, found.nothing, found.text) == (None, None, STAR)
    (other,) = segmenter(photo(), SQUARE)
    assert (found.mask != other.mask).any()


def test_words_that_are_not_read_are_said(segmenter, caplog):
    long = "the red star \u661f of the large square left of the blue circle"
    texts = [STAR, long, "\u661f star"]
    found = segmenter(photo(), texts)
    assert [(one.cut, one.unknown) for one in found] == [
        ("", ()),
        ("the blue circle", ("\u661f",)),
        ("", ("\u661f",)),
    ]
    (said,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]  # one a call
    assert said.startswith(f"the model does not read all of {long!r} ('unknown: \u661f; beyond")
    caplog.clear()
    assert [one.cut for one in segmenter.stream([(photo(), long)] * 2)] == ["the blue circle"] * 2
    assert len(caplog.records) == 1
    caplog.clear()
    segmenter(photo(), STAR)
    assert not caplog.records


def test_a_model_with_a_presence_head_says_how_sure_it_is(default):
    found = default(photo(), [STAR, SQUARE])
    assert all(0 <= one.presence <= 1 and one.nothing == (one.presence < 0.5) for one in found)
    assert found[0].presence != found[1].presence


def test_every_form_of_a_picture_gives_one_answer(segmenter, tmp_path):
    pixels = photo()
    (tmp_path / "a.png").write_bytes(encoded(pixels))
    transparent = np.dstack([pixels, np.arange(70, dtype=np.uint8)[None].repeat(48, 0)])
    forms = {
        "path": tmp_path / "a.png",
        "text": str(tmp_path / "a.png"),
        "bytes": encoded(pixels),
        "webp": encoded(pixels, "WEBP", lossless=True),
        "PIL": Image.fromarray(pixels),
        "lazy PIL": Image.open(tmp_path / "a.png"),
        "RGBA": transparent,
        "RGBA file": encoded(transparent),
        "RGBA PIL": Image.fromarray(transparent),
        "not contiguous": np.asfortranarray(pixels),
        "opened": segmenter.open(pixels),
    }
    expected = segmenter(pixels, STAR)[0]
    for name, found in zip(forms, segmenter(list(forms.values()), STAR), strict=True):
        same(found, expected), name
    grey = pixels[..., 0]
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    greys = [np.stack([grey] * 3, -1), grey, grey[..., None], Image.fromarray(grey), deep]
    greys += [encoded(grey), encoded(grey.astype(np.uint16) * 257)]
    for found in segmenter(greys, STAR):
        same(found, segmenter(greys[0], STAR)[0])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_seen_upright(tmp_path, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {} if kind in ("JPEG", "TIFF", "AVIF", "PNG") else {"lossless": True}
    data = encoded(photo(), kind, exif=exif, **lossless)
    with Image.open(io.BytesIO(data)) as picture:
        upright = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
        assert upright.shape[:2] == ((70, 48) if orientation > 4 else (48, 70))
        found = rgb(picture)
    np.testing.assert_array_equal(found, upright)
    decoded = rgb(data)
    assert decoded.shape == upright.shape
    assert np.abs(decoded.astype(int) - upright).mean() < 3  # other decoders, at most


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (3, 2), (64, 64), (700, 2500)])
def test_masks_have_the_size_of_the_picture(segmenter, size):
    for found in segmenter(np.full((*size, 3), 90, np.uint8), [STAR, SQUARE]):
        assert found.mask.shape == found.probability.shape == size


def test_lists(segmenter):
    images, texts = [photo(seed) for seed in range(5)], [STAR, SQUARE] * 2 + [STAR]
    alone = [segmenter(image, text)[0] for image, text in zip(images, texts, strict=True)]
    for one, other in zip(segmenter(images, texts), alone, strict=True):  # 2, 2 and 1
        same(one, other)
    for one, image in zip(segmenter(images, STAR), images, strict=True):
        same(one, segmenter(image, STAR)[0])
    for one, text in zip(segmenter(images[0], texts), texts, strict=True):
        same(one, segmenter(images[0], text)[0])
    streamed = list(segmenter.stream((i, t) for i, t in zip(images, texts, strict=True)))
    for one, other in zip(streamed, alone, strict=True):
        same(one, other)
    assert segmenter([], STAR) == segmenter(images[0], []) == []
    assert [found.name for found in segmenter(images[:2], STAR)] == ["picture 1", "picture 2"]


def test_masks_are_those_that_the_evaluation_scores(folder, tmp_path):
    """`--mode=eval` writes its masks; the same pictures, as files, give the same ones."""
    changes = dict(eval__predictions=True, data__eval_splits=("val",), eval__bootstrap=0)
    config = config_of(**changes)
    scoring.score(config, tmp_path, model_dir=folder)
    source = Datasets.of(config.data, size=config.model.image_size).splits[0].open()
    lines = list(read(tmp_path / "predictions" / "shapes-val.jsonl"))
    asked = []
    for referent in (source[i] for i in range(len(source))):
        path = tmp_path / f"{len(asked)}.png"
        path.write_bytes(encoded(referent.image))
        asked += [(path, text) for text in referent.expressions]
    assert len(asked) == len(lines) == 8
    segmenter = Segmenter.from_pretrained(folder, batch_size=2)
    edges = 0
    for found, line in zip(segmenter.stream(asked), lines, strict=True):
        assert found.text == line.values["text"]
        np.testing.assert_array_equal(found.mask, line.mask())
        edges += found.mask.any() and not found.mask.all()
    assert edges > 4


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


def test_other_parameters_change_the_answers(folder, tmp_path):
    segmenter = Segmenter.from_pretrained(folder, batch_size=2)
    picture = segmenter.open(photo())
    before = segmenter(picture, STAR)[0]
    other = write_model(tmp_path / "other", seed=6)
    segmenter.replace_params(directory.read(other)[1])
    same(
        segmenter(picture, STAR)[0],
        Segmenter.from_pretrained(other, batch_size=2)(photo(), STAR)[0],
    )
    assert (segmenter(picture, STAR)[0].mask != before.mask).any()


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
    """Of a picture that stays open: once a text where the model injects it, else once at all."""
    for model, expected in ((segmenter, [2, 1]), (default, [1])):
        embedded = counted(monkeypatch, model, "embed")
        picture = model.open(photo(seed=7))  # that no other test has shown these models
        model(picture, ["the red star", "the red square", "the red circle"])
        model(picture, "the red square", points=[(20, 20, 1)])
        model(picture, "the red star", box=(3, 4, 30, 40))
        assert embedded == expected


def test_points_and_boxes_refine_the_text(segmenter, default):
    for model in (segmenter, default):
        plain = model(photo(), STAR)[0]
        pointed = model(photo(), STAR, points=[(10, 12, 1), (60, 40)])[0]
        boxed = model(photo(), STAR, points=[(10, 12, 0)], box=(5, 5, 30, 40))[0]
        assert (plain.mask != pointed.mask).any() and (boxed.mask != pointed.mask).any()
        images = [photo()] * 3
        both = model(
            images,
            STAR,
            points=[None, np.array([(10, 12, 1), (60, 40, 1)]), [(10, 12, 0)]],
            box=[None, None, (5, 5, 30, 40)],
        )
        for one, alone in zip(both, (plain, pointed, boxed), strict=True):
            same(one, alone)


def test_less_than_a_pixel_beyond_the_border_is_cut():
    picture = DIT.open(photo(), size=64, name="x")
    height, width = float(picture.height), float(picture.width)
    found = Prompt.of([(-0.5, 3, 1), (0, 1)], (-0.4, 2, width + 0.3, height + 0.9), picture=picture)
    assert found == Prompt(((0.0, 3.0, 1), (0.0, 1.0, 1)), (0.0, 2.0, width, height))
    half = Prompt.of([(0.5, 0.25, 0)], (0, 0, 1, 0.5), picture=picture, units="fraction")
    assert half == Prompt(((width / 2, height / 4, 0),), (0.0, 0.0, width, height / 2))
    with pytest.raises(ValueError, match="units is 'percent'; expected one of pixel, fraction"):
        Prompt.of(None, None, picture=picture, units="percent")


def test_the_score_of_a_trained_head_is_what_it_says(segmenter, monkeypatch):
    (before,) = segmenter(photo(), STAR)
    trained = dataclasses.replace(segmenter.arch, iou_trained=True)
    monkeypatch.setattr(segmenter, "arch", trained)  # of the same programs
    (found,) = segmenter(photo(), STAR)
    assert found.score_kind == "predicted_iou"
    asked = Request(segmenter.open(photo()), STAR, Prompt(), Unread())
    (answer,) = segmenter._engine.finish(segmenter._engine.start([asked], multimask=False))
    assert found.score == pytest.approx(float(answer.iou[0]), rel=1e-4)
    assert abs(found.score - before.score) > 1e-2


@pytest.mark.parametrize("height", [2, 5])
def test_a_confidence_is_of_the_mask_alone(height):
    """And 0 without one: a mask that is not there is worth nothing."""
    logits = np.array([[-9, 0.0], [2.0, -1]], np.float32)
    about = dict(name="x", text="y", height=height, width=height, presence=None, nothing=None)
    found = Segmentation(logits=logits, predicted_iou=None, threshold=0.35, **about)
    assert found.score == pytest.approx(found.probability[found.mask].mean(), rel=1e-6)
    if height == 2:
        assert found.score == pytest.approx((0.5 + 1 / (1 + np.exp(-2))) / 2, rel=1e-6)
    none = Segmentation(logits=logits - 9, predicted_iou=None, threshold=0.35, **about)
    assert (none.score, none.mask.sum()) == (0.0, 0)


def test_points_that_only_fill_up_a_batch_change_nothing(segmenter, default):
    images, points = [photo(seed) for seed in range(3)], [(3, 4, 1), (40, 20, 0), (9, 30, 1)]
    lists = [points[:1], points, points[:2]]  # the first is filled up to 4 with the second
    for model in (segmenter, default):
        together = model(images, SQUARE, points=lists)
        for one, image, some in zip(together, images, lists, strict=True):
            same(one, model(image, SQUARE, points=some)[0])


def test_points_alone_where_the_picture_is_read_without_text(default):
    one = default(photo(), points=[(10, 12, 1)])[0]
    three = default(photo(), points=[(10, 12, 1)], multimask=True)
    assert one.text is None and len(three) == 3
    assert len({found.score for found in (one, *three)}) == 4


def test_a_threshold_and_a_bar(folder, capsys):
    strict = Segmenter.from_pretrained(folder, threshold=0.9, batch_size=2)
    loose = Segmenter.from_pretrained(folder, threshold=0.1, batch_size=2)
    assert strict(photo(), STAR)[0].mask.sum() < loose(photo(), STAR)[0].mask.sum()
    loose([photo()] * 3, STAR, progress=True)
    assert "0/3" in capsys.readouterr().err
    loose([photo()] * 40, STAR)  # long, but this is no terminal
    assert capsys.readouterr().err == ""


def test_results_come_while_the_list_goes_on(segmenter):
    taken = []

    def endless():
        while True:
            taken.append(photo(len(taken)))
            yield taken[-1], STAR

    stream = segmenter.stream(endless())
    next(stream)
    assert len(taken) == 4  # one batch is answered, the next one runs


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
            same(one, other)


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

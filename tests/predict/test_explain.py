"""`explain`: words and their tokens, shares of attention, masks without a word."""

import numpy as np
import pytest
from photos import photo
from small_models import PLAIN, write_model

from dit_jax import Segmenter
from dit_jax.data.pixels.transforms import inside
from dit_jax.eval.metrics import iou
from dit_jax.models.architecture import Injection
from dit_jax.predict.explain import NO_TEXT_IN_ENCODER, explain, spans

TEXT = "the  large striped-square"


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    return Segmenter.from_pretrained(
        write_model(tmp_path_factory.mktemp("model") / "ldit"), batch_size=1
    )


@pytest.fixture(scope="module")
def explained(segmenter):
    return explain(segmenter, photo(), TEXT)


def test_words_and_their_tokens(segmenter, explained):
    assert [word.text for word in explained.words] == ["the", "large", "striped-square"]
    tokens = [token for word in explained.words for token in word.tokens]
    assert tokens == list(range(1, len(tokens) + 1))  # [CLS] is 0; each belongs to one word
    assert len(explained.words[2].tokens) >= 3  # striped, -, square
    places = segmenter.token_places(TEXT)
    assert set(places) == set(tokens)
    assert TEXT[slice(*places[1])] == "the"


def test_shares_are_parts_of_all_attention(explained):
    assert explained.layers == ("block 1", "block 2", "decoder 1")
    assert explained.maps.shape == (3, 3, 4, 4) and explained.shares.shape == (3, 3)
    assert (explained.maps >= 0).all() and (explained.maps.sum(axis=1) <= 1 + 1e-5).all()
    assert (explained.shares > 0).all() and (explained.shares.sum(axis=1) < 1).all()
    assert explained.remark is None


def test_shares_are_means_over_the_mask(segmenter, explained):
    """By hand: every pixel of the mask asks its own patch."""
    canvas = np.zeros((64, 64), bool)
    inside(canvas.view(np.uint8), explained.content)[...] = explained.answer.logits > np.log(
        0.35 / 0.65
    )
    assert 0 < canvas.sum() < canvas.size
    rows, columns = np.nonzero(canvas)
    expected = explained.maps[:, :, rows // 16, columns // 16].mean(axis=-1)
    np.testing.assert_allclose(explained.shares, expected, rtol=1e-4)


def test_what_deleting_a_word_does(segmenter, explained):
    (whole,) = segmenter(photo(), TEXT)
    np.testing.assert_array_equal(whole.mask, explained.answer.mask)
    rests = ["large striped-square", "the striped-square", "the large"]
    for word, rest in zip(explained.words, rests, strict=True):
        (without,) = segmenter(photo(), rest)
        np.testing.assert_array_equal(word.without.mask, without.mask)
        assert word.without.text == rest
        assert word.iou == iou(
            whole.logits > np.log(0.35 / 0.65), without.logits > np.log(0.35 / 0.65)
        )
    assert min(word.iou for word in explained.words) < 0.99  # or nothing here could fail


def test_points_stay_while_words_go(segmenter):
    points = [(20, 30, 1), (60, 5, 0)]
    found = explain(segmenter, photo(), "the star", points=points)
    (whole,) = segmenter(photo(), "the star", points=points)
    (without,) = segmenter(photo(), "star", points=points)
    np.testing.assert_array_equal(found.answer.mask, whole.mask)
    np.testing.assert_array_equal(found.words[0].without.mask, without.mask)


def test_a_single_word_cannot_be_left_out(segmenter):
    (word,) = explain(segmenter, photo(), " star ").words
    assert (word.text, word.without, word.iou) == ("star", None, None)


def test_what_the_model_does_not_read(segmenter):
    """Of 12 tokens, two are [CLS] and [SEP]."""
    found = explain(segmenter, photo(), " ".join(["red"] * 10 + ["star"]))
    assert [len(word.tokens) for word in found.words] == [1] * 10 + [0]
    assert found.words[-1].iou == 1.0
    assert not found.maps[:, -1].any()


def test_heat_lies_over_the_picture(explained):
    heat = explained.heat(0, 1, height=48, width=70)
    assert heat.shape == (48, 70) and 0 < heat.max() <= explained.maps[0, 1].max() + 1e-6
    top, _, height, _ = explained.content
    middle = explained.maps[0, 1, (top + height // 2) // 16]
    assert middle.min() - 1e-6 <= heat[24, 35] <= max(middle.max(), explained.maps[0, 1].max())


def test_default_fusion_says_that_its_encoder_reads_nothing(tmp_path):
    segmenter = Segmenter.from_pretrained(write_model(tmp_path / "m", injection=Injection.NONE))
    found = explain(segmenter, photo(), "the star")
    assert found.remark == NO_TEXT_IN_ENCODER and found.layers == ("decoder 1",)


def test_plain_sam_has_no_words(tmp_path):
    segmenter = Segmenter.from_pretrained(write_model(tmp_path / "sam", **PLAIN))
    with pytest.raises(ValueError, match="this model is plain SAM, which reads no text"):
        explain(segmenter, photo(), "the star")


def test_spans():
    assert spans("  a\tbc\n d ") == [(2, 3), (4, 6), (8, 9)]

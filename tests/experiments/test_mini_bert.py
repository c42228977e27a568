"""Masked words: what is asked for, and that what is learned is what is said."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from dit_jax import variants
from dit_jax.data.shapes import VOCAB
from dit_jax.data.shapes.layout import HELD_OUT
from dit_jax.data.tokenizer import Tokenizer
from experiments import mini_bert


def test_a_seventh_of_the_pieces_is_asked_for():
    ids = np.full((2000, 20), 7, np.int32)
    ids[:, 0], ids[:, 12:] = 2, 0  # [CLS]; padding
    read, answer = mini_bert.hide(np.random.default_rng(0), ids, pieces=100)
    words = ids == 7
    asked = answer > 0
    assert not asked[~words].any() and np.array_equal(read[~asked], ids[~asked])
    assert set(answer[asked]) == {7}
    assert asked[words].mean() == pytest.approx(0.15, abs=0.01)
    assert (read[asked] == mini_bert.MASK).mean() == pytest.approx(0.8, abs=0.02)
    assert (read[asked] == 7).mean() == pytest.approx(0.1, abs=0.02)
    assert read[asked].min() >= mini_bert.MASK and read.max() < 100


def test_no_held_out_pair_is_named():
    said = [text.split() for text in mini_bert.sentences("train", 2000)]
    assert len(said) >= 2000
    for colour, shape in HELD_OUT:
        assert not any(f"{colour} {shape}" in " ".join(words) for words in said)


def test_the_loss_is_of_the_pieces_asked_for():
    tokenizer = Tokenizer(VOCAB, length=mini_bert.TOKENS)
    bert = variants.TEXT_ENCODERS["tiny"]
    model = mini_bert.MaskedWords(bert, rngs=nnx.Rngs(0))
    ids, mask = tokenizer(["the red circle", "left star", "big thing below the ring"])
    read, answer = mini_bert.hide(np.random.default_rng(1), ids, pieces=tokenizer.size)
    assert (answer > 0).any()
    loss, found = mini_bert.loss_of(model, jnp.asarray(read), jnp.asarray(answer))
    logits = np.asarray(model(read, mask))
    odds = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    rows, places = np.nonzero(answer)
    assert loss == pytest.approx(-odds[rows, places, answer[rows, places]].mean(), rel=1e-4)
    right = logits[rows, places].argmax(-1) == answer[rows, places]
    assert found == pytest.approx(right.mean())

    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    for _ in range(20):
        last, _ = mini_bert.train_step(model, optimizer, read, answer)
    assert last < 0.5 * loss

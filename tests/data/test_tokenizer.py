"""The tokenizer agrees with BERT's, and says what is wrong with a vocabulary or a text."""

import csv
import pickle
import re
import unicodedata

import numpy as np
import pytest

from dit_jax.data import shapes
from dit_jax.data.tokenizer import Tokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "left", "man", "##s", "in", "red", ","]


@pytest.fixture
def vocab(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n")
    return path


def test_known_ids(shared):
    tokenizer = Tokenizer(shared / "data/bert_vocab/vocab.txt")
    ids, mask = tokenizer(
        ["left man in red", "LEFT Man in red", "Zebra nearest the giraffe's leg!"]
    )
    zebra = [101, 29145, 7205, 1996, 21025, 27528, 7959, 1005, 1055, 4190, 999, 102]
    assert ids.dtype == mask.dtype == np.int32 and ids.shape == mask.shape == (3, 20)
    assert ids[0].tolist() == [101, 2187, 2158, 1999, 2417, 102] + [0] * 14
    assert ids[1].tolist() == ids[0].tolist()
    assert ids[2].tolist() == zebra + [0] * 8
    np.testing.assert_array_equal(mask, ids != 0)


def test_agrees_with_wordpiece_as_published_on_real_expressions(shared):
    """Greedy longest match of lower-cased words, Devlin et al. 2018, written out."""
    path = shared / "data/bert_vocab/vocab.txt"
    vocabulary = {word: i for i, word in enumerate(path.read_text("utf-8").split("\n"))}
    with open(shared / "data/refer_tables/refcocog_umd_val.csv", encoding="utf-8") as file:
        texts = [row["sent"] for row in csv.DictReader(file)][::5] + ["Café au lait", "über-car"]
    ids, _ = Tokenizer(path, length=64)(texts)
    for text, row in zip(texts, ids, strict=True):
        assert [i for i in row.tolist() if i] == _wordpiece(text, vocabulary)


def test_cuts_to_length_and_keeps_the_closing_token(vocab):
    tokenizer = Tokenizer(vocab, length=5)
    ids, mask = tokenizer(["left man in red", "mans"])
    assert ids.tolist() == [[2, 5, 6, 8, 3], [2, 6, 7, 3, 0]]
    assert mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]


def test_says_the_tokens_of_many_texts_before_they_are_cut(vocab):
    tokenizer = Tokenizer(vocab, length=5)
    texts = ["left man in red", "mans", "", "zebra"] * 600
    found = list(tokenizer.uncut(texts))
    assert found[:4] == [[2, 5, 6, 8, 9, 3], [2, 6, 7, 3], [2, 3], [2, tokenizer.unknown, 3]]
    assert found == found[:4] * 600 and list(tokenizer.uncut([])) == []
    assert [bool(tokenizer.unread(text).cut) for text in texts[:2]] == [True, False]


UNREAD = {
    "left man": ("", ()),
    "left man in red": ("red", ()),
    "left mans in  red , left ": ("in  red , left", ()),
    "left in Mans": ("s", ()),  # half of a word
    "Zebra, left zebra": ("zebra", ("Zebra",)),
    "left \u00fcber red in": ("in", ("\u00fcber",)),
    "zebra zoo zebra zebra": ("zebra", ("zebra", "zoo")),
    "": ("", ()),
}


@pytest.mark.parametrize("text", UNREAD)
def test_what_is_not_read(vocab, text):
    found = Tokenizer(vocab, length=5).unread(text)
    assert (found.cut, found.unknown) == UNREAD[text]
    assert bool(found) == any(UNREAD[text])


def test_what_is_not_read_in_a_sentence(vocab):
    tokenizer = Tokenizer(vocab, length=5)
    assert str(tokenizer.unread("zebra zoo in left")) == (
        "unknown: zebra, zoo; beyond its tokens: left"
    )
    assert str(tokenizer.unread("zebra")) == "unknown: zebra" and not str(tokenizer.unread("man"))


def test_words_that_are_letters_to_it():
    """Chinese signs are words each; a letter by itself is one."""
    tokenizer = Tokenizer(shapes.VOCAB)
    assert tokenizer.letters("a dog near the star, 12 DOGs\u661f\u661f dog") == (
        *("dog", "near", "12", "DOGs"),
    )
    assert tokenizer.words[:3] == ["the", "small", "large"] and "cross" in tokenizer.words
    assert not {"a", "##a", "[CLS]", "!"} & set(tokenizer.words)


def test_survives_the_way_to_a_worker_process(vocab):
    tokenizer = Tokenizer(vocab, length=7)
    again = pickle.loads(pickle.dumps(tokenizer))
    np.testing.assert_array_equal(again(["left man"])[0], tokenizer(["left man"])[0])


@pytest.mark.parametrize("text", ["", "   ", "\t\n"])
def test_refuses_an_empty_text(vocab, text):
    with pytest.raises(ValueError, match="is empty, expected at least one word"):
        Tokenizer(vocab)([text])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such vocabulary file"),
        ("", "is empty"),
        ("[PAD]\n[UNK]\nleft\n", r"lacks \[CLS\], \[SEP\], \[MASK\]"),
        ("\n".join(reversed(WORDS)), r"first word piece is ',', expected \[PAD\]"),
    ],
)
def test_refuses_a_bad_vocabulary(tmp_path, content, message):
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=message):
        Tokenizer(path)


def test_refuses_a_length_without_room_for_a_word(vocab):
    with pytest.raises(ValueError, match="length is 2, expected at least 3"):
        Tokenizer(vocab, length=2)


def _wordpiece(text: str, vocabulary: dict[str, int]) -> list[int]:
    plain = unicodedata.normalize("NFD", text.lower())
    plain = "".join(c for c in plain if unicodedata.category(c) != "Mn")
    pieces = [
        piece for word in re.findall(r"\w+|[^\w\s]|_", plain) for piece in _pieces(word, vocabulary)
    ]
    return [vocabulary[piece] for piece in ["[CLS]", *pieces, "[SEP]"]]


def _pieces(word: str, vocabulary: dict[str, int]) -> list[str]:
    pieces, start = [], 0
    while start < len(word):
        ends = range(len(word), start, -1)
        candidates = (("##" if start else "") + word[start:end] for end in ends)
        piece = next((c for c in candidates if c in vocabulary), None)
        if piece is None:
            return ["[UNK]"]
        pieces.append(piece)
        start += len(piece.removeprefix("##") if start else piece)
    return pieces

"""The vocabulary beside a checkpoint: one piece a line, for as many rows as the table has."""

import dataclasses

import pytest
from checkpoints import BERT, dit, random_state, run, write_vocab
from safetensors.numpy import save_file

from dit_jax.data.tokenizer import Tokenizer
from dit_jax.weights import directory


@pytest.fixture
def bert(tmp_path):
    state = random_state(dit("none"), "text_encoder.")
    state = {name.removeprefix("lang_encoder."): value for name, value in state.items()}
    save_file(state, tmp_path / "bert.safetensors")
    return tmp_path / "bert.safetensors"


ENDS = ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e", "a\u2028b", "\x85x"]


def test_line_ends_that_are_none(bert, capsys):
    """bert-base-chinese has the piece U+2028; `str.splitlines` ends lines at it."""
    write_vocab(bert.with_name("vocab.txt"), BERT.vocab, odd=ENDS)
    assert run("bert", bert, bert.with_name("out")) == 0
    assert "word pieces" not in capsys.readouterr().err
    kept = directory.vocab_path(bert.with_name("out"))
    assert Tokenizer(kept).size == BERT.vocab
    ids, _ = Tokenizer(kept)(["word3"])
    assert ids[0, 1] == 5 + len(ENDS) + 3  # the pieces behind keep their rows


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("count", [41, 400])
def test_more_pieces_than_rows(bert, capsys, given, count):
    path = write_vocab(bert.with_name("words.txt" if given else "vocab.txt"), count)
    options = [f"--vocab={path}"] if given else []
    assert run("bert", bert, bert.with_name("out"), *options) == 1
    said = capsys.readouterr().err
    assert f"{path.name} has {count} word pieces, and the text encoder of" in said
    assert "has 40 rows: it is another model's vocabulary" in said
    assert not bert.with_name("out").exists()


def test_fewer_pieces_than_rows(bert, tmp_path, capsys):
    write_vocab(bert.with_name("vocab.txt"), 30)
    assert run("bert", bert, bert.with_name("out")) == 0
    assert "vocab.txt has 30 word pieces for 40 rows: 10 are never read" in capsys.readouterr().err


def test_far_fewer_pieces_than_rows(tmp_path, capsys):
    """The embedded data set's beside a table of bert-base-uncased's height."""
    arch = dit("none")
    arch = dataclasses.replace(arch, bert=dataclasses.replace(BERT, vocab=1200))
    state = random_state(arch, "text_encoder.")
    save_file(
        {name.removeprefix("lang_encoder."): value for name, value in state.items()},
        tmp_path / "bert.safetensors",
    )
    write_vocab(tmp_path / "vocab.txt", 153)
    assert run("bert", tmp_path / "bert.safetensors", tmp_path / "out") == 1
    assert "has 1200 rows: it is another model's vocabulary" in capsys.readouterr().err


TEXTS = {
    "a sentence": (b"these are words\n", "lacks [PAD]"),
    "another tokenizer's": (b"<s>\n<pad>\n</s>\n", "lacks [PAD], [UNK]"),
    "[PAD] later": (b"[UNK]\n[PAD]\n[CLS]\n[SEP]\n[MASK]\n", "first word piece is '[UNK]'"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "lacks [PAD]"),
    "bytes": (b"\x89PNG\r\n\x1a\n\xff\xfe", "is no text; expected one word piece per line"),
    "nothing": (b"", "the vocabulary is empty"),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_a_text_that_is_no_vocabulary(bert, capsys, kind):
    content, message = TEXTS[kind]
    bert.with_name("vocab.txt").write_bytes(content)
    assert run("bert", bert, bert.with_name("out")) == 1
    assert message in capsys.readouterr().err
    assert not bert.with_name("out").exists()


def test_none_is_said(bert, capsys):
    assert run("bert", bert, bert.with_name("out")) == 0
    assert "no vocab.txt beside it; without its words no text can be" in capsys.readouterr().err

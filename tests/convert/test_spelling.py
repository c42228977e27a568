"""Cased, multilingual and Chinese vocabularies: the ids that transformers gives."""

import json
import shutil

import numpy as np
import pytest
from checkpoints import BERT, dit, random_state, run
from peers import transformers
from safetensors.numpy import save_file

from dit_jax import vocabulary
from dit_jax.data.tokenizer import Tokenizer
from dit_jax.vocabulary import CONFIG, SPECIAL, VOCAB, WHOLE, Spelling
from dit_jax.weights import directory

CASED = "Red red Paris paris Große ##s café cafe caf ##é ##e the The man R ##ed , ' 's"
MANY = (
    "Красный красный ##й Ελλάδα ελλαδα हिन्दी हिन ##्दी İstanbul istanbul naïve naive 東 京 한국 ##어"
)
CHINESE = "<S> <T> 红 色 的 汽 车 car ##s ☃ か ##か 左 边 , 。"
LOWER = "red paris große grosse ##s cafe café man i ##stanbul"
PIECES = {"cased": CASED, "multilingual": MANY, "chinese": CHINESE, "accents": LOWER}
SPELLING = {  # as the pieces say it
    "cased": Spelling(do_lower_case=False, strip_accents=False),
    "multilingual": Spelling(do_lower_case=False, strip_accents=False),
    "chinese": Spelling(),
    "accents": Spelling(strip_accents=False),
}
TEXTS = [
    *("Red Paris", "red paris", "the Große's cafés", "Cafe\u0301, The man's", "Caf\u00e9"),
    *("Красный красный", "ελλάδα Ελλάδα", "हिन्दी", "İstanbul istanbul", "naïve Naive 東京 한국어"),
    *(
        "红色的 Cars,左边。",
        "红色的car☃",
        "かが \u3000man",
        "x\u0000y [MASK] [UNK]",
        "GROSSE große",
    ),
]


def write(folder, pieces, config=None):
    folder.mkdir(exist_ok=True)
    lines = [*SPECIAL, *pieces.split()]
    (folder / VOCAB).write_text("\n".join(lines) + "\n", encoding="utf-8")
    if config is not None:
        (folder / CONFIG).write_text(json.dumps(config))
    return folder / VOCAB


@pytest.mark.parametrize("kind", PIECES)
@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("accents", [True, False, None])
@pytest.mark.parametrize("chinese", [True, False])
def test_the_config_decides_as_in_transformers(tmp_path, kind, lower, accents, chinese):
    said = dict(do_lower_case=lower, strip_accents=accents, tokenize_chinese_chars=chinese)
    path = write(tmp_path / "a", PIECES[kind], said)
    theirs = transformers.BertTokenizerFast.from_pretrained(path.parent)
    expected = theirs(TEXTS)["input_ids"]
    assert list(Tokenizer(path).uncut(TEXTS)) == expected
    assert vocabulary.read(path).spelling == Spelling(**said)
    theirs.save_pretrained(tmp_path / "b")
    assert not (tmp_path / "b" / VOCAB).exists()
    assert list(Tokenizer(vocabulary.find(tmp_path / "b")).uncut(TEXTS)) == expected
    (tmp_path / "b" / CONFIG).unlink()  # tokenizer.json is all there is
    assert list(Tokenizer(tmp_path / "b" / WHOLE).uncut(TEXTS)) == expected
    (tmp_path / "c").mkdir()
    vocabulary.write(tmp_path / "b" / WHOLE, tmp_path / "c")
    assert (tmp_path / "c" / VOCAB).read_bytes() == path.read_bytes()
    assert list(Tokenizer(tmp_path / "c" / VOCAB).uncut(TEXTS)) == expected


@pytest.mark.parametrize("kind", PIECES)
def test_the_pieces_decide_where_nothing_says_it(tmp_path, kind):
    path = write(tmp_path, PIECES[kind])
    found = vocabulary.read(path)
    assert found.guessed and found.spelling == SPELLING[kind]
    same = dict(strip_accents=found.spelling.strip_accents)
    same |= dict(do_lower_case=found.spelling.do_lower_case)
    theirs = transformers.BertTokenizerFast(str(path), **same)
    assert list(Tokenizer(path).uncut(TEXTS)) == theirs(TEXTS)["input_ids"]


def test_red_paris_is_two_words_of_a_cased_vocabulary(tmp_path):
    tokenizer = Tokenizer(write(tmp_path, CASED), length=6)
    ids, _ = tokenizer(["Red Paris", "red paris"])
    assert ids.tolist() == [[2, 5, 7, 3, 0, 0], [2, 6, 8, 3, 0, 0]]


def test_a_config_without_case_leaves_it_to_what_else_lies_there(tmp_path):
    path = write(tmp_path, CASED, {"model_max_length": 512, "strip_accents": True})
    assert vocabulary.read(path).spelling == Spelling(False, True)
    theirs = transformers.BertTokenizerFast.from_pretrained(tmp_path, do_lower_case=True)
    theirs.backend_tokenizer.save(str(tmp_path / WHOLE))
    found = vocabulary.read(path)
    assert found.spelling == Spelling(True, True) and not found.guessed


def test_the_embedded_vocabulary_is_in_lower_case(shared):
    from dit_jax.data import shapes

    for path in (shapes.VOCAB, shared / "data/bert_vocab/vocab.txt"):
        assert vocabulary.read(path).spelling == Spelling()


def test_a_converted_model_keeps_them(tmp_path, capsys):
    state = random_state(dit("none"), "text_encoder.")
    state = {name.removeprefix("lang_encoder."): value for name, value in state.items()}
    save_file(state, tmp_path / "bert.safetensors")
    pieces = f"{CASED} {' '.join(f'w{i}' for i in range(BERT.vocab - 24))}"
    write(tmp_path, pieces)
    assert run("bert", tmp_path / "bert.safetensors", tmp_path / "guessed") == 0
    said = capsys.readouterr().err
    assert "texts keep their case and accents, as its pieces do; no tokenizer_config.json" in said
    write(tmp_path, pieces, {"do_lower_case": False})
    transformers.BertTokenizerFast.from_pretrained(tmp_path).save_pretrained(tmp_path / "hf")
    shutil.move(tmp_path / "bert.safetensors", tmp_path / "hf")
    assert run("bert", tmp_path / "hf", tmp_path / "kept") == 0
    assert "as its pieces do" not in capsys.readouterr().err
    expected = Tokenizer(tmp_path / VOCAB)(TEXTS)
    for folder in ("guessed", "kept"):
        np.testing.assert_array_equal(
            Tokenizer(directory.vocab_path(tmp_path / folder))(TEXTS), expected
        )
        assert json.loads((tmp_path / folder / CONFIG).read_text())["do_lower_case"] is False


def changed(key, value):
    def change(whole):
        part = whole
        *way, last = key.split(".")
        for step in way:
            part = part[step]
        part[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("model.type", "BPE"), r"model.type is 'BPE'; expected 'WordPiece'"),
        (changed("model.unk_token", "<unk>"), "model.unk_token is '<unk>'; expected"),
        (changed("normalizer", {"type": "NFKC"}), "normalizer.type is 'NFKC'; expected 'BertNorm"),
        (changed("normalizer", None), "normalizer.type is None"),
        (changed("pre_tokenizer.type", "Whitespace"), "pre_tokenizer.type is 'Whitespace'"),
        (changed("model.vocab.car", 900), "leaves rows without a word piece"),
        (changed("model.vocab", ["a"]), "leaves rows without a word piece"),
        (changed("normalizer.lowercase", "no"), "says lowercase 'no'; expected true or false"),
        (changed("added_tokens", [{"content": "<obj>"}]), "adds the token '<obj>' to BERT's"),
        (changed("model.max_input_chars_per_word", 9), "max_input_chars_per_word is 9; expected"),
        (changed("post_processor.single", [{"Sequence": {"id": "A"}}]), "expected .CLS. A .SEP."),
        (changed("post_processor.type", "RobertaProcessing"), "its post_processor is not BERT's"),
    ],
)
def test_a_tokenizer_that_is_not_berts(tmp_path, change, message):
    theirs = transformers.BertTokenizerFast(str(write(tmp_path, CHINESE)))
    whole = json.loads(theirs.backend_tokenizer.to_str())
    change(whole)
    (tmp_path / WHOLE).write_text(json.dumps(whole))
    with pytest.raises(ValueError, match=message):
        vocabulary.read(tmp_path / WHOLE)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"do_lower_case": "yes"}, "says do_lower_case 'yes'; expected true or false"),
        ({"do_lower_case": None}, "says do_lower_case None; expected true or false"),
        ({"tokenizer_class": "BertJapaneseTokenizer"}, "says tokenizer_class 'BertJapanese"),
        ({"added_tokens_decoder": {"9": {"content": "<obj>"}}}, "adds the token '<obj>'"),
        ({"cls_token": "<s>"}, "says cls_token '<s>'; expected '.CLS.'"),
        ({"unk_token": {"content": "<unk>"}}, "says unk_token {'content': '<unk>'}; expected"),
        ({"do_basic_tokenize": False}, "says do_basic_tokenize False; expected True"),
        ({"never_split": ["cups"]}, "says never_split .'cups'.; expected None"),
        ([], "is no JSON object"),
    ],
)
def test_a_config_that_says_something_else(tmp_path, config, message):
    with pytest.raises(ValueError, match=message):
        vocabulary.read(write(tmp_path, CASED, config))


def test_other_files_beside_a_vocabulary(tmp_path):
    """Words in other rows than transformers would look them up in, and words of somebody's own."""
    path = write(tmp_path, CASED, {"do_lower_case": False})
    vocabulary.read(path)
    theirs = transformers.BertTokenizerFast(str(path))
    whole = json.loads(theirs.backend_tokenizer.to_str())
    (tmp_path / WHOLE).write_text(json.dumps(whole))
    vocabulary.read(path)
    rows = whole["model"]["vocab"]
    rows["[MASK]"], rows["[SEP]"] = rows["[SEP]"], rows["[MASK]"]
    (tmp_path / WHOLE).write_text(json.dumps(whole))
    with pytest.raises(ValueError, match=r"vocab.txt and .*tokenizer.json have other word pieces"):
        vocabulary.read(path)
    (tmp_path / WHOLE).unlink()
    (tmp_path / "added_tokens.json").write_text('{"[MASK]": 4, "<obj>": 99}')
    with pytest.raises(ValueError, match=r"added_tokens.json adds the token '<obj>' to BERT's"):
        vocabulary.read(path)


def test_empty_lines_at_the_end_are_no_pieces(tmp_path):
    path = write(tmp_path, CASED)
    size = vocabulary.read(path).size
    path.write_text(path.read_text(encoding="utf-8") + "\n\n", encoding="utf-8")
    assert vocabulary.read(path).size == size


def test_what_is_no_json(tmp_path):
    path = write(tmp_path, CASED)
    path.with_name(CONFIG).write_text("version https://git-lfs")
    with pytest.raises(ValueError, match="tokenizer_config.json is not JSON"):
        vocabulary.read(path)

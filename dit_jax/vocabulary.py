"""A WordPiece vocabulary on disk, as Hugging Face writes one, and how texts are spelled for it.

    vocab.txt               a word piece a line; its number is its row of the embedding table
    tokenizer_config.json   whether texts keep case and accents
    tokenizer.json          both of these, where there is no vocab.txt

Where no file says how to spell, the pieces do: a text keeps its case if they have capitals, and its
accents if they have some.
"""

import dataclasses
import json
import shutil
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

VOCAB, WHOLE, CONFIG = "vocab.txt", "tokenizer.json", "tokenizer_config.json"
ADDED = "added_tokens.json"  # as transformers writes it beside vocab.txt
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PADDED = 1024  # rows of a table without a word piece: some are filled up to a round number
NORMALIZER = {  # Hugging Face's two names for one fact: beside the tokenizer, and in it
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
    "clean_text": "clean_text",
}
# What a `tokenizer.json` has to say, as BERT's does.
WHOLE_MUST = {
    "model": {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
    },
    "normalizer": {"type": "BertNormalizer"},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
}
# What a `tokenizer_config.json` has to say, if it says it.
CONFIG_MUST = {
    **{f"{token.strip('[]').lower()}_token": (token, None) for token in SPECIAL[:4]},
    "do_basic_tokenize": (True,),
    "never_split": (None, []),
}
# Classes that cut words as BERT's does, without "Tokenizer" and "TokenizerFast".
SAME_CLASSES = ("Bert", "DistilBert", "Electra", "MobileBert", "PreTrained", "TokenizersBackend")


@dataclasses.dataclass(frozen=True)
class Spelling:
    """What happens to a text before its pieces are looked up, by the names of the config."""

    do_lower_case: bool = True
    strip_accents: bool | None = None  # None: where text is lower-cased
    tokenize_chinese_chars: bool = True  # each a word by itself
    clean_text: bool = True  # of control characters

    def normalizer(self) -> dict[str, bool | None]:
        """As arguments of `BertWordPieceTokenizer`."""
        return {NORMALIZER[name]: value for name, value in vars(self).items()}


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """`guessed`: no file says how to spell, only the pieces do."""

    pieces: dict[str, int]
    spelling: Spelling
    guessed: bool

    @property
    def size(self) -> int:
        """How many rows an embedding table needs: the largest number, and one more."""
        return 1 + max(self.pieces.values())


def find(source: Path) -> Path | None:
    """The vocabulary in a folder, or beside a file; None where there is none."""
    folder = source if source.is_dir() else source.parent
    return next((folder / n for n in (VOCAB, WHOLE) if (folder / n).is_file()), None)


def read(path: Path) -> Vocabulary:
    """A `vocab.txt` or `tokenizer.json`, with what lies beside it.

    Raises ValueError, in a sentence, for what is no vocabulary of BERT's, [PAD] first, or is used
    in another way than BERT's.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such vocabulary file; expected BERT's vocab.txt.")
    said = _config(path.with_name(CONFIG))
    whole = path if path.suffix == ".json" else path.with_name(WHOLE)
    pieces, inside = _whole(whole) if whole.is_file() else ({}, {})
    if path == whole or "do_lower_case" not in said:
        said = inside | said
    if path != whole:
        theirs, pieces = pieces, _lines(path)
        if theirs and theirs != pieces:
            raise ValueError(f"{path} and {whole} have other word pieces; keep the right one.")
    _check(path, pieces)
    guessed = "do_lower_case" not in said
    if guessed:
        said = _habits(pieces) | said
    return Vocabulary(pieces, Spelling(**said), guessed)


def fitting(path: Path, rows: int, *, source: object) -> Vocabulary:
    """`read`, for the text encoder of `source`, whose table has so many rows; raises as it does."""
    found = read(path)
    if not 0 <= rows - found.size <= PADDED:
        raise ValueError(
            f"{path} has {found.size} word pieces, and the text encoder of {source} has {rows}"
            " rows: it is another model's vocabulary."
        )
    return found


def write(path: Path, folder: Path) -> None:
    """The vocabulary `path` as `vocab.txt` and `tokenizer_config.json`; raises as `read` does."""
    found = read(path)
    if path.suffix == ".json":
        lines = "".join(f"{piece}\n" for piece in sorted(found.pieces, key=found.pieces.get))
        (folder / VOCAB).write_text(lines, encoding="utf-8", newline="\n")
    else:
        shutil.copyfile(path, folder / VOCAB)
    config = {"tokenizer_class": "BertTokenizer", **vars(found.spelling)}
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _lines(path: Path) -> dict[str, int]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text; expected one word piece per line.") from error
    # Not `splitlines`, which ends lines at U+2028 and others: bert-base-chinese has such pieces.
    return {piece: i for i, piece in enumerate(text.rstrip("\n").split("\n"))}


def _check(path: Path, pieces: dict[str, int]) -> None:
    if not any(pieces):
        raise ValueError(f"{path}: the vocabulary is empty; expected one word piece per line.")
    missing = [token for token in SPECIAL if token not in pieces]
    if missing:
        raise ValueError(
            f"{path}: the vocabulary lacks {', '.join(missing)}; expected BERT's vocab.txt."
        )
    if pieces["[PAD]"] != 0:  # padding is written as zeros
        first = min(pieces, key=pieces.get)
        raise ValueError(f"{path}: the first word piece is {first!r}, expected [PAD].")


def _habits(pieces: Iterable[str]) -> dict[str, bool]:
    """How the pieces are spelled; [UNK], <S> and their like say nothing."""
    plain = "".join(piece for piece in pieces if piece[:1] + piece[-1:] not in ("[]", "<>"))
    letters = unicodedata.normalize("NFD", plain)
    accents = any(unicodedata.category(letter) == "Mn" for letter in letters)
    found = {"do_lower_case": letters == letters.lower()}
    return found | ({"strip_accents": False} if accents else {})


def _whole(path: Path) -> tuple[dict[str, int], dict[str, Any]]:
    """Pieces and spelling of a `tokenizer.json`."""
    said, parts = _json(path), {}
    for name, must in WHOLE_MUST.items():
        part = parts[name] = said.get(name) if isinstance(said.get(name), dict) else {}
        for key, value in must.items():
            # Early files do not name the model's kind; its other keys do.
            if part.get(key, value if part and name == "model" else None) != value:
                raise ValueError(f"{path}: {name}.{key} is {part.get(key)!r}; expected {value!r}.")
    pieces = parts["model"].get("vocab")
    rows = list(pieces.values()) if isinstance(pieces, dict) else [None]
    if set(rows) != set(range(len(rows))):
        raise ValueError(f"{path} leaves rows without a word piece; expected one for each.")
    if broken := [piece for piece in pieces if "\n" in piece or "\r" in piece]:
        raise ValueError(f"{path} has the word piece {broken[0]!r}; expected no line end in one.")
    _check_added(path, (token["content"] for token in said.get("added_tokens") or ()))
    _check_ends(path, said.get("post_processor"))
    return pieces, _spelling(path, parts["normalizer"], {v: k for k, v in NORMALIZER.items()})


def _config(path: Path) -> dict[str, Any]:
    """What a `tokenizer_config.json` says of spelling; nothing where there is none."""
    if (beside := path.with_name(ADDED)).is_file():
        _check_added(beside, _json(beside))
    if not path.is_file():
        return {}
    said = _json(path)
    for key, allowed in CONFIG_MUST.items():
        value = said.get(key, allowed[0])
        if (value.get("content") if isinstance(value, dict) else value) not in allowed:
            raise ValueError(f"{path} says {key} {value!r}; expected {allowed[0]!r}.")
    kind = said.get("tokenizer_class") or "Bert"
    if kind.removesuffix("Fast").removesuffix("Tokenizer") not in SAME_CLASSES:
        raise ValueError(f"{path} says tokenizer_class {kind!r}; expected BertTokenizer.")
    added = said.get("added_tokens_decoder") or {}
    _check_added(path, (token["content"] for token in added.values()))
    return _spelling(path, said, {name: name for name in NORMALIZER})


def _check_ends(path: Path, said: Any) -> None:
    """Every text is read between [CLS] and [SEP], whatever a `tokenizer.json` adds."""
    if not isinstance(said, dict) or said.get("type") == "BertProcessing":
        return
    single = said.get("single") if isinstance(said.get("single"), list) else []
    parts = [one.get("id") for part in single if isinstance(part, dict) for one in part.values()]
    if said.get("type") != "TemplateProcessing" or parts != ["[CLS]", "A", "[SEP]"]:
        raise ValueError(f"{path}: its post_processor is not BERT's; expected [CLS] A [SEP].")


def _spelling(path: Path, said: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Fields of `Spelling`; `names`: what the file calls them → what we do."""
    for name in said.keys() & names.keys():
        if not isinstance(said[name], bool) and (name, said[name]) != ("strip_accents", None):
            raise ValueError(f"{path} says {name} {said[name]!r}; expected true or false.")
    return {ours: said[theirs] for theirs, ours in names.items() if theirs in said}


def _check_added(path: Path, tokens: Iterable[str]) -> None:
    """Words that are found before texts are cut into pieces; only BERT's own are."""
    if added := [token for token in tokens if token not in SPECIAL]:
        raise ValueError(
            f"{path} adds the token {added[0]!r} to BERT's; expected only {', '.join(SPECIAL)}."
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}.") from error
    if not isinstance(said, dict):
        raise ValueError(f"{path} is no JSON object; expected Hugging Face's.")
    return said

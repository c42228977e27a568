"""Segment a picture by words with the program beside this file.

    python run.py photo.jpg "the man on the left" "a red cup"

Writes photo-1.png, photo-2.png …, a mask for each expression, into the current folder. Needs

    pip install jax flatbuffers numpy tokenizers pillow  for segment.stablehlo
    pip install onnxruntime numpy tokenizers pillow      for segment.onnx

and Pillow only to read the picture (by `from_pillow.py`, as dit_jax does) and to write the masks.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import BertWordPieceTokenizer

# By the name in the program: the IoU that a model was trained to predict, or the mean probability
# inside the mask.
SCORES = {"predicted_iou": "predicted IoU", "confidence": "confidence"}
STEP = 256  # pixels: arrays whose sides are the same multiples of it share one compilation


class Segmenter:
    """`segmenter(image, texts)`: `mask` and `probability` [texts, H, W], and `score` [texts], which
    is there under the name of its kind too: a key of SCORES. Of a model that may say that nothing
    is meant, `presence` and `nothing` [texts]; the mask is left as it is.

    Lists beside them say what the model does not read: `cut`, the end of each text, beyond its
    tokens; `unknown`, the words before that which become [UNK].
    """

    def __init__(self, folder: Path):
        self.program = (Onnx if (folder / "segment.onnx").is_file() else StableHlo)(folder)
        self.words = words(folder)
        self.words.enable_truncation(self.program.length)
        self.words.enable_padding(length=self.program.length)

    def __call__(self, image: np.ndarray, texts: list[str]) -> dict[str, Any]:
        pieces = self.words.encode_batch(texts)
        ids = np.array([piece.ids for piece in pieces], np.int32)
        mask = np.array([piece.attention_mask for piece in pieces], np.int32)
        if mask.sum(1).min() < 3:  # [CLS], a word, [SEP]
            raise ValueError(f"an expression of {texts} is empty, expected at least one word.")
        left = unread(texts, pieces, unknown=self.words.token_to_id("[UNK]"))
        if any(left["cut"]) or any(left["unknown"]):
            logging.warning("the model does not read all words; `cut` and `unknown` say which.")
        said = self.program(image, ids, mask)
        return said | {"score": said[kind_of(said)]} | left


class StableHlo:
    def __init__(self, folder: Path):
        import jax
        from jax import export

        program = export.deserialize(bytearray((folder / "segment.stablehlo").read_bytes()))
        self.weights = jax.device_put(weights(folder / "weights.safetensors"))
        self.run, self.length = jax.jit(program.call), program.in_avals[-1].shape[1]

    def __call__(self, image: np.ndarray, ids: np.ndarray, mask: np.ndarray):
        (height, width), count = image.shape[:2], len(ids)
        padded = np.pad(image, ((0, -height % STEP), (0, -width % STEP), (0, 0)))
        pictures = np.broadcast_to(padded, (count, *padded.shape))
        sizes = np.full((count, 2), (height, width), np.int32)
        said = self.run(self.weights, pictures, sizes, ids, mask)
        arrays = {name: np.asarray(value) for name, value in said.items()}
        return {k: v[:, :height, :width] if v.ndim == 3 else v for k, v in arrays.items()}


class Onnx:
    def __init__(self, folder: Path):
        import onnxruntime

        self.session = onnxruntime.InferenceSession(
            str(folder / "segment.onnx"), providers=onnxruntime.get_available_providers()
        )
        inputs = {given.name: given.shape for given in self.session.get_inputs()}
        self.length = inputs["input_ids"][1]

    def __call__(self, image: np.ndarray, ids: np.ndarray, mask: np.ndarray):
        given = {"image": image, "input_ids": ids, "attention_mask": mask}
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, given), strict=True))


def words(folder: Path) -> BertWordPieceTokenizer:
    """Of vocab.txt, a piece a line; tokenizer_config.json says whether texts keep their case."""
    lines = (folder / "vocab.txt").read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    how = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    return BertWordPieceTokenizer(
        {piece: i for i, piece in enumerate(lines)},
        lowercase=how["do_lower_case"],
        strip_accents=how["strip_accents"],
        handle_chinese_chars=how["tokenize_chinese_chars"],
        clean_text=how["clean_text"],
    )


def read(path: Path) -> np.ndarray:
    """Upright RGB pixels of a picture, uint8 [H, W, 3]; says what is not evident of deep ones."""
    from from_pillow import rgb
    from PIL import Image

    with Image.open(path) as image:
        pixels, remark = rgb(image)
    if remark:
        print(f"{path} {remark}", file=sys.stderr)
    return pixels


def unread(texts: list[str], pieces: list[Any], *, unknown: int) -> dict[str, list]:
    """`cut` and `unknown` of each text; raises ValueError where not one word is known."""
    said: dict[str, list] = {"cut": [], "unknown": []}
    for text, piece in zip(texts, pieces, strict=True):
        places = [at for i, at in zip(piece.ids, piece.offsets, strict=True) if i == unknown]
        if len(places) == sum(piece.attention_mask) - 2:
            raise ValueError(f"the model knows no word of the expression {text!r}.")
        rest = piece.overflowing[0].offsets[1][0] if piece.overflowing else len(text)
        said["cut"].append(text[rest:].strip())
        said["unknown"].append(tuple(dict.fromkeys(text[start:end] for start, end in places)))
    return said


def kind_of(said: dict[str, np.ndarray]) -> str:
    return next(kind for kind in SCORES if kind in said)


def weights(path: Path) -> dict[str, np.ndarray]:
    """Float32 parameters (safetensors) of a program that is too large to hold them."""
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        rows = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = np.memmap(path, np.uint8, "r", offset=file.tell())
    rows.pop("__metadata__", None)
    part = {name: data[slice(*row["data_offsets"])].view(np.float32) for name, row in rows.items()}
    return {name: part[name].reshape(row["shape"]) for name, row in rows.items()}


if __name__ == "__main__":
    from PIL import Image

    if len(sys.argv) < 3:
        sys.exit(__doc__)
    picture, texts = Path(sys.argv[1]), sys.argv[2:]
    try:
        said = Segmenter(Path(__file__).resolve().parent)(read(picture), texts)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    called = SCORES[kind_of(said)]
    for i, text in enumerate(texts):
        Image.fromarray(said["mask"][i]).save(f"{picture.stem}-{i + 1}.png")
        print(f"{picture.stem}-{i + 1}.png: {text}, {called} {said['score'][i]:.2f}")
        if "nothing" in said and said["nothing"][i]:
            print(f"  so: nothing is meant, presence {said['presence'][i]:.2f}")
        if said["unknown"][i]:
            print(f"  unknown words: {', '.join(said['unknown'][i])}")
        if said["cut"][i]:
            print(f"  beyond what the model reads: {said['cut'][i]}")

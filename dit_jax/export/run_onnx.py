"""Segment a picture by words with the ONNX model beside this file.

    python run.py photo.jpg "the man on the left" "a red cup"

Writes photo-1.png, photo-2.png …, a mask for each expression, into the current folder. Needs
onnxruntime, numpy and tokenizers; and Pillow, but only to read the picture and to write the masks.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps
from tokenizers import BertWordPieceTokenizer


class Segmenter:
    """`segmenter(image, texts)`: `mask` and `probability` [texts, H, W], and `score` [texts]."""

    def __init__(self, folder: Path):
        self.session = onnxruntime.InferenceSession(
            str(folder / "segment.onnx"), providers=onnxruntime.get_available_providers()
        )
        length = next(i for i in self.session.get_inputs() if i.name == "input_ids").shape[1]
        self.words = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)
        self.words.enable_truncation(length)
        self.words.enable_padding(length=length)

    def __call__(self, image: np.ndarray, texts: list[str]) -> dict[str, np.ndarray]:
        pieces = self.words.encode_batch(texts)
        ids = np.array([piece.ids for piece in pieces], np.int32)
        mask = np.array([piece.attention_mask for piece in pieces], np.int32)
        if mask.sum(1).min() < 3:  # [CLS], a word, [SEP]
            raise ValueError(f"an expression of {texts} is empty, expected at least one word.")
        given = {"image": image, "input_ids": ids, "attention_mask": mask}
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, given), strict=True))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    picture, texts = Path(sys.argv[1]), sys.argv[2:]
    image = np.asarray(ImageOps.exif_transpose(Image.open(picture)).convert("RGB"))
    said = Segmenter(Path(__file__).resolve().parent)(image, texts)
    for i, text in enumerate(texts):
        Image.fromarray(said["mask"][i]).save(f"{picture.stem}-{i + 1}.png")
        print(f"{picture.stem}-{i + 1}.png: {text}, predicted IoU {said['score'][i]:.2f}")

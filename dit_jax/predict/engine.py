"""From opened questions to logits: batches, and what is remembered between them.

JAX returns before the device is done, so `start` of the next batch comes before `finish` of this
one, and the host opens pictures and resizes masks while the device works.
"""

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Float32

from dit_jax.data.tokenizer import Tokenizer, Unread
from dit_jax.models.architecture import Architecture
from dit_jax.models.dit_sam import Prediction
from dit_jax.models.params import Params
from dit_jax.models.word_attention import WordAttention
from dit_jax.predict.picture import Letterbox, Picture
from dit_jax.predict.programs import Rows, bucket, pad_rows, programs_of
from dit_jax.predict.prompts import POINT_COUNTS, Prompt, on_canvas
from dit_jax.predict.text_features import TextFeatureCache, TextFeatures

CACHE_SIZE = 16  # embeddings: 1 MB each at 512 pixels, 4 MB at 1024

Computed = tuple[jax.Array, int]  # what was computed together, and which of it
Memory = OrderedDict[Any, Computed]


@dataclass(frozen=True)
class Request:
    """A question whose picture is open and whose prompt is checked."""

    picture: Picture
    text: str | None
    prompt: Prompt
    unread: Unread  # of the text


@dataclass(frozen=True)
class Answer:
    """On the canvas; m is 3 with `multimask`, else 1."""

    logits: Float32[np.ndarray, "m S S"]
    iou: Float32[np.ndarray, " m"]
    presence: float | None  # logit
    low_res: Float32[np.ndarray, "m S4 S4"]  # the logits at a quarter of the side


@dataclass(frozen=True)
class PendingBatch:
    """What the device is working on: predictions, each for some of the questions."""

    asked: Sequence[Request]
    parts: list[tuple[list[int], Prediction]]


class Engine:
    """One model on one device; may be used by several threads."""

    def __init__(
        self,
        arch: Architecture,
        params: Params,
        tokenizer: Tokenizer | None,
        *,
        letterbox: Letterbox,
        batch_size: int,
    ):
        self.batch_size = batch_size
        self.text_cache = None if tokenizer is None else TextFeatureCache(tokenizer, self._features)
        devices = jax.device_put(jax.tree.leaves(params)[0]).devices()
        one = min(devices, key=lambda device: device.id)
        # Of parameters that are spread over several, JAX says where the rest belongs.
        self._put = functools.partial(jax.device_put, device=one if len(devices) == 1 else None)
        self._params, self._letterbox = self._put(params), letterbox
        self.programs = programs_of(arch, one)
        self._recent: Memory = OrderedDict()  # embeddings, by picture and injected text
        self._before: Memory = OrderedDict()  # pictures as they are before text enters
        self._lock = threading.Lock()

    def replace(self, params: Params) -> None:
        """Other parameters of the same architecture: nothing compiles again."""
        with self._lock:
            self._params = self._put(params)
            self._recent.clear()
            self._before.clear()
            if self.text_cache is not None:
                self.text_cache.clear()

    def start(self, asked: Sequence[Request], *, multimask: bool) -> PendingBatch:
        """Hand at most `batch_size` questions to the device."""
        with self._lock:
            texts = [one.text for one in asked if one.text is not None]
            words = self.text_cache.look_up(texts) if texts else {}
            places = self._places(asked, words)
            groups: dict[tuple, list[int]] = {}
            for row, one in enumerate(asked):
                of = one.prompt
                alike = one.text is None, bool(of.points), of.box is None, of.mask is None
                groups.setdefault(alike, []).append(row)
            parts = []
            for rows in groups.values():
                count = bucket(len(rows), most=self.batch_size)
                embedding = self._put(_gathered([places[row] for row in rows], count=count))
                question = self._question([asked[row] for row in rows], words)
                said = self.programs.decode(
                    *(self._params, embedding, self._put(pad_rows(question, count))),
                    multimask=multimask,
                )
                parts.append((rows, said))
            return PendingBatch(asked, parts)

    def finish(self, started: PendingBatch) -> list[Answer]:
        """The answers, in the order of the questions; waits for the device."""
        answers: dict[int, Answer] = {}
        for rows, said in started.parts:
            read = jax.device_get((said.logits, said.iou, said.presence, said.low_res_logits))
            logits, iou, presence, low_res = jax.tree.map(np.float32, read)
            for i, row in enumerate(rows):
                there = None if presence is None else float(presence[i])
                answers[row] = Answer(logits[i], iou[i], there, low_res[i])
        return [answers[row] for row in range(len(started.asked))]

    def at_points(
        self, picture: Picture, points: Float[np.ndarray, "n 2"], *, count: int
    ) -> tuple[Float32[np.ndarray, "n 3 h w"], Float32[np.ndarray, "n 3"]]:
        """Plain SAM's three answers to each of at most `count` points of one picture, at a quarter
        of the canvas, and their predicted IoU; the picture is embedded once."""
        prompts = [Prompt(((x, y, 1),)) for x, y in points.tolist()]
        about = dict(letterbox=self._letterbox, count=1)
        placed = on_canvas(prompts, [picture] * len(prompts), **about)
        rows = vars(placed) | {"features": None, "attention_mask": None}
        with self._lock:
            places = self._places([Request(picture, None, prompts[0], Unread())], {})
            embedding = self._put(_gathered(places, count=1))
            said = self.programs.at_points(
                self._params, embedding, self._put(pad_rows(rows, count))
            )
        return jax.tree.map(lambda x: np.float32(x)[: len(points)], jax.device_get(said))

    def attention(self, picture: Picture, text: str) -> WordAttention:
        """Where the patches of one picture look in one text; NumPy arrays, with b = 1."""
        with self._lock:
            rows = _rows([picture]) | _text([self.text_cache.look_up([text])[text]])
            return jax.device_get(self.programs.attention(self._params, self._put(rows)))

    def _features(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        rows = {"input_ids": input_ids, "attention_mask": attention_mask}
        rows = pad_rows(rows, bucket(len(input_ids), most=self.batch_size))
        said = self.programs.features(self._params, **self._put(rows))
        return jax.device_get(said)[: len(input_ids)]

    def _places(self, asked: Sequence[Request], words: dict[str, TextFeatures]) -> list[Computed]:
        """The embedding of each question's picture, with its text where the model injects it."""
        injects = self.programs.injects
        keys = [(one.picture.key, one.text if injects else None) for one in asked]
        embed = functools.partial(self._embed, words=words)
        return _remembered(self._recent, keys, asked, embed)

    def _embed(self, asked: Sequence[Request], words: dict[str, TextFeatures]) -> jax.Array:
        count, pictures = bucket(len(asked), most=self.batch_size), [one.picture for one in asked]
        rows: Rows = {}
        if self.programs.injects:
            rows = pad_rows(_text([words[one.text] for one in asked]), count)
        if self.programs.late:
            keys = [picture.key for picture in pictures]
            places = _remembered(self._before, keys, pictures, self._before_text)
            rows["before"] = _gathered(places, count=count)
        else:
            rows |= pad_rows(_rows(pictures), count)
        return self.programs.embed(self._params, self._put(rows))

    def _before_text(self, pictures: Sequence[Picture]) -> jax.Array:
        rows = pad_rows(_rows(pictures), bucket(len(pictures), most=self.batch_size))
        return self.programs.before_text(self._params, self._put(rows))

    def _question(self, asked: Sequence[Request], words: dict[str, TextFeatures]) -> Rows:
        """What the decoder is told of rows that are alike in what they have."""
        prompts = [one.prompt for one in asked]
        longest = max(len(prompt.points) for prompt in prompts)
        placed = on_canvas(
            prompts,
            [one.picture for one in asked],
            letterbox=self._letterbox,
            count=next(n for n in POINT_COUNTS if n >= longest) if longest else 0,
        )
        texts = {"features": None, "attention_mask": None}
        if asked[0].text is not None:
            texts = _text([words[one.text] for one in asked])
        return vars(placed) | texts


def _remembered(
    memory: Memory, keys: Sequence[Any], items: Sequence[Any], compute: Callable
) -> list[Computed]:
    """What `compute` makes of each item; items whose key is remembered are not computed again."""
    new = {key: item for key, item in zip(keys, items, strict=True) if key not in memory}
    if new:
        source = compute(list(new.values()))
        memory |= {key: (source, row) for row, key in enumerate(new)}
    places = [memory[key] for key in keys]
    for key in keys:
        memory.move_to_end(key)
    while len(memory) > CACHE_SIZE:
        memory.popitem(last=False)
    return places


def _gathered(places: Sequence[Computed], *, count: int) -> jax.Array | np.ndarray:
    """The embedding of each row, filled up to `count`.

    Rows that were computed together stay on the device, and nobody waits for them. Others pass
    through the host, which costs less than a program for each way of picking them.
    """
    source = places[0][0]
    together = all(place[0] is source for place in places) and len(source) == count
    if together and [row for _, row in places] == list(range(len(places))):
        return source
    return pad_rows(np.stack([jax.device_get(source)[row] for source, row in places]), count)


def _rows(pictures: Sequence[Picture]) -> Rows:
    return {
        "image": np.stack([picture.canvas for picture in pictures]),
        "content": np.array([picture.content for picture in pictures], np.int32),
    }


def _text(words: Sequence[TextFeatures]) -> Rows:
    return {
        "features": np.stack([one.features for one in words]),
        "attention_mask": np.stack([one.attention_mask for one in words]),
    }

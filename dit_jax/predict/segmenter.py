"""`Segmenter`: words, points, boxes and masks to masks, in one call.

segmenter = Segmenter.from_pretrained("models/ldit")
(result,) = segmenter("street.jpg", "the man in red")
result.mask  # bool [H, W], at the picture's own size
"""

import dataclasses
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from tqdm import tqdm

from dit_jax.data.pixels import inside, pictures
from dit_jax.data.tokenizer import Tokenizer, Unread
from dit_jax.eval.protocols import PRESENCE_THRESHOLD, logit
from dit_jax.models import params as parameters
from dit_jax.models.architecture import Architecture
from dit_jax.models.params import Params
from dit_jax.models.word_attention import WordAttention
from dit_jax.predict.apart import Apart
from dit_jax.predict.engine import Answer, Engine, PendingBatch, Request
from dit_jax.predict.everything import Everything, Found
from dit_jax.predict.opened import Opened
from dit_jax.predict.picture import DIT, SAM, Picture
from dit_jax.predict.prompts import Prompt
from dit_jax.predict.requests import (
    ONE_PICTURE,
    Question,
    check_text,
    name_of,
    of_pair,
    questions,
)
from dit_jax.predict.segmentation import Segmentation
from dit_jax.predict.text_features import shortened, tokenizer_of
from dit_jax.predict.tiles import Asker, Tiling
from dit_jax.strict import differences
from dit_jax.weights import directory, hub, manifest

CANVASES = 8 * 512 * 512  # pixels that run together where nobody says how many rows
ABSENT = 4.0  # of a logit below the threshold's: where a tile says that nothing is meant there
LONG = 4  # batches, from which on a call shows its progress


class Segmenter:
    """A model to ask; see `from_pretrained` and `__call__`. Threads may share it."""

    def __init__(
        self,
        arch: Architecture,
        params: Params,
        tokenizer: Tokenizer | None,
        *,
        threshold: float | None = None,
        presence_threshold: float = PRESENCE_THRESHOLD,
        batch_size: int | None = None,
        provenance: Mapping[str, Any] | None = None,
    ):
        """`tokenizer` is None exactly of plain SAM; for the rest see `from_pretrained`."""
        self.arch, self.tokenizer, self.provenance = arch, tokenizer, provenance or {}
        self._letterbox = SAM if arch.bert is None else DIT
        self.threshold = self._letterbox.threshold if threshold is None else threshold
        self.presence_threshold = presence_threshold
        logit(self.threshold), logit(presence_threshold)  # refuse what is no probability
        if batch_size is None:
            batch_size = max(1, CANVASES // arch.image_size**2)
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; expected 1 or more.")
        how = dict(letterbox=self._letterbox, batch_size=batch_size)
        self._engine, self.batch_size = Engine(arch, params, tokenizer, **how), batch_size

    @staticmethod
    def from_pretrained(
        model_dir: str | os.PathLike,
        *,
        threshold: float | None = None,
        presence_threshold: float | None = None,
        batch_size: int | None = None,
    ) -> "Segmenter":
        """The model of a directory, trained or converted, or of `hf://org/name` on the hub.

        Args:
          threshold: on the probability of a pixel; 0.35 of a text model (the released code's), 0.5
            of plain SAM (Meta's).
          presence_threshold: on the probability that anything is meant, for `nothing`; by default
            what the directory was calibrated to, else 0.5.
          batch_size: masks that are computed together; by default 8 at 512 pixels, 2 at 1024.

        Raises FileNotFoundError or ValueError, in a sentence, where it is no whole model directory.
        """
        model_dir = hub.local(model_dir)
        arch, params = directory.read(model_dir)
        tokenizer = None if arch.bert is None else tokenizer_of(model_dir, arch)
        if presence_threshold is None:
            presence_threshold = manifest.presence_threshold(model_dir) or PRESENCE_THRESHOLD
        how = dict(presence_threshold=presence_threshold, batch_size=batch_size)
        how |= dict(threshold=threshold, provenance=directory.read_provenance(model_dir))
        return Segmenter(arch, params, tokenizer, **how)

    def __call__(
        self,
        image: Any,
        texts: Any = None,
        *,
        points: Any = None,
        box: Any = None,
        mask: Any = None,
        multimask: bool = False,
        instances: bool = False,
        tile: int | None = None,
        overlap: int | None = None,
        progress: bool | None = None,
    ) -> list[Segmentation]:
        """One mask a text and picture, in the order of the question.

        Args:
          image: a path, encoded bytes, PIL picture, uint8 array `[H, W]` or `[H, W, 1|3|4]`, a
            `Picture` that was opened, or a list or generator of these. EXIF orientation is applied.
          texts: an expression, or a list of them: all about the one picture, or one a picture.
          points: `[(x, y, label), …]` in pixels of the upright picture, (0, 0) the top left one;
            label 1 (object, may be left out) or 0 (not the object). With a list of pictures, one
            such list, or None, a picture.
          box: corners `(x0, y0, x1, y1)`, or a list of boxes, a mask each; with a list of pictures,
            one box, or None, a picture.
          mask: what the answer starts from: an earlier answer, a bool or uint8 array `[H, W]`, the
            path of a mask picture, run lengths; with a list of pictures, one, or None, a picture.
          multimask: three masks for an ambiguous prompt, without text; three a picture.
          instances: a mask an object instead, see `Segmentation.instances`.
          tile: of a large picture the pixels of a side that are asked about at once, by words, see
            `tiles`; `overlap` is what tiles have in common, by default a quarter of that.
          progress: show a bar; by default for long lists on a terminal.

        A text that the model does not read whole is named in a warning, the first of a call.

        Raises FileNotFoundError or ValueError, in a sentence, for what cannot be answered; texts
        and the files' existence are checked before anything is computed.
        """
        if isinstance(image, Iterator) and not isinstance(image, ONE_PICTURE):
            # It may hand out one buffer, or one file, again and again.
            numbered = enumerate(image, start=1)
            if tile is None:
                image = [self.open(one, name=name_of(one, n)) for n, one in numbered]
            else:
                image = [pictures.rgb(one, name=name_of(one, n)).copy() for n, one in numbered]
        asked = questions(image, texts, points, box, mask)
        for question in asked:
            self.check(question, multimask=multimask)
            if isinstance(question.image, (str, os.PathLike)):
                pictures.check_file(question.image)
        long = tile is not None or len(asked) > LONG * self.batch_size
        hidden = (None if long else True) if progress is None else not progress
        if tile is None:
            how = dict(multimask=multimask, instances=instances)
            answers = self._answers(asked, Opened(self.open, still=True), **how)
            total = len(asked) * (3 if multimask else 1)
            found = tqdm(answers, total=total, unit="mask", disable=hidden, leave=False)
        else:
            found = self.tiled(tile, overlap)(asked, hidden=hidden)
        return [one for answer in found for one in (answer.instances() if instances else [answer])]

    def tiled(self, tile: int, overlap: int | None = None) -> Asker:
        """What asks questions about large pictures in tiles; see `__call__`."""
        how = dict(opened=self.open, stream=self.stream, resized=self._letterbox.resize)
        overlap = tile // 4 if overlap is None else overlap
        tiling = Tiling(tile, overlap, canvas=self.arch.image_size)
        return Asker(tiling, **how, low=logit(self.threshold) - ABSENT)

    def stream(
        self,
        asked: Iterable[tuple | Question],
        *,
        multimask: bool = False,
        instances: bool = False,
    ) -> Iterator[Segmentation]:
        """Masks for pairs (picture, text), or for `Question`s, as they come: for endless lists.

        With `instances` an answer's `instances()` can ask the model about objects that touch.

        An array or PIL picture may be another one each time it comes, as a camera's buffer is.
        What was asked before a mistake is answered before that is raised.
        """
        how = dict(multimask=multimask, instances=instances)
        yield from self._answers(asked, Opened(self.open, still=False), **how)

    def _answers(
        self,
        asked: Iterable[tuple | Question],
        opened: "Opened",
        *,
        multimask: bool,
        instances: bool,
    ) -> Iterator[Segmentation]:
        ready = _told(self._asked(question, opened, multimask=multimask) for question in asked)
        started: deque[PendingBatch] = deque()
        wrong: Exception | None = None
        while wrong is None:
            chunk = []
            try:
                for request in itertools.islice(ready, self.batch_size):
                    chunk.append(request)
            except Exception as error:  # raised when what was asked before it is answered
                wrong = error
            if not chunk:
                break
            started.append(self._engine.start(chunk, multimask=multimask))
            if len(started) > 1:
                yield from self._finished(started.popleft(), instances=instances)
        while started:
            yield from self._finished(started.popleft(), instances=instances)
        if wrong is not None:
            raise wrong

    def open(self, image: Any, *, name: str | None = None) -> Picture:
        """A picture to ask several things about: it is decoded once, and a text model computes its
        embedding once for each text, another model once. `name` is for messages."""
        if isinstance(image, Picture):
            if image.canvas.shape[0] != self.arch.image_size:
                raise ValueError(
                    f"{image.name} was opened for a canvas of {image.canvas.shape[0]} pixels;"
                    f" expected {self.arch.image_size}: open it with this segmenter."
                )
            return image
        name = name_of(image) if name is None else name
        return self._letterbox.open(image, size=self.arch.image_size, name=name)

    def everything(
        self, image: Any, *, before_batch: Callable[[], None] = lambda: None, **settings: Any
    ) -> list[Found]:
        """All masks of a picture, by plain SAM, as dicts under the names of Meta's automatic mask
        generator; so are `settings`, the fields of `everything.Everything`.

        `before_batch` is called before each batch of points; what it raises ends the work.
        """
        if self.arch.bert is not None:
            raise ValueError(
                "everything is asked by points alone, and this model reads text; expected plain"
                " SAM: a converted one, `mini_sam`, or what model.task=prompts trains."
            )
        rules = Everything(**settings)

        def answers(picture: Picture, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            before_batch()
            return self._engine.at_points(picture, points, count=rules.points_per_batch)

        pixels = pictures.rgb(image, name=name_of(image))
        return rules(pixels, self.open, answers, middle=logit(self.threshold))

    def attention(self, picture: Picture, text: str) -> WordAttention:
        """How strongly each patch of an opened picture attends to each text token, layer by layer;
        NumPy arrays, with b = 1. For words instead of tokens see `explain`."""
        self.check(Question(picture, picture.name, text))
        return self._engine.attention(picture, text)

    def token_places(self, text: str) -> dict[int, tuple[int, int]]:
        """Where in `text` each text token that the model reads starts and ends."""
        return self._engine.text_cache.token_places(text)

    def replace_params(self, params: Params, arch: Architecture | None = None) -> None:
        """Answer with other parameters of the same architecture from now on, without compiling.

        `arch` is what they are said to be of; without it shapes alone are compared, and the size of
        the picture, the layer of BERT that is read and more leave no trace there. Thresholds stay;
        what a presence threshold was calibrated to holds for its own parameters.

        Raises ValueError, and goes on as before, where they are those of another architecture.
        """
        expected = parameters.flatten(parameters.structure(self.arch)[1])
        directory.check(parameters.flatten(params), expected, source="what is given")
        if arch not in (None, self.arch):
            raise ValueError(
                "what is given is of another architecture (its own ≠ this segmenter's):"
                f" {differences(arch, self.arch)}."
            )
        self._engine.replace(params)

    def check(self, question: Question, *, multimask: bool = False) -> None:
        """Raise ValueError for a question that this kind of model cannot be asked."""
        name, text = question.name, question.text
        if text is not None:
            check_text(text)
            if self._engine.text_cache is None:
                raise ValueError(
                    f"this model is plain SAM, which reads no text ({text[:80]!r}); give points or"
                    " a box."
                )
            if multimask:
                raise ValueError(
                    "multimask is for points, boxes and masks alone; a text model gives one mask an"
                    " expression."
                )
            self._engine.text_cache.check([text])
        elif self._engine.programs.injects:
            raise ValueError(
                f"no text is given for {name}; this model reads words together with the picture,"
                " and points or a box only refine them."
            )
        elif not question.points_at_something:
            also = "" if self._engine.text_cache is None else "a text, "
            raise ValueError(
                f"nothing is asked about {name}; expected {also}points, a box or a mask."
            )

    def prepare(self, question: Question) -> Request:
        """An opened picture's question, checked, for `answer`; raises ValueError as a call does."""
        return self._asked(question, lambda asked: self.open(asked.image), multimask=False)

    def answer(self, asked: Sequence[Request], *, multimask: bool = False) -> list[Segmentation]:
        """One mask each, or three, of at most `batch_size` questions, computed together."""
        return list(self._finished(self._engine.start(asked, multimask=multimask)))

    def _asked(
        self, question: tuple | Question, opened: Callable[..., Picture], *, multimask: bool
    ) -> Request:
        question = of_pair(question)
        self.check(question, multimask=multimask)
        picture = opened(question)
        pointed = dict(points=question.points, box=question.box, units=question.units)
        prompt = Prompt.of(**pointed, mask=question.mask, picture=picture)
        text = question.text
        unread = Unread() if text is None else self.tokenizer.unread(text)
        return Request(picture, text, prompt, unread)

    def _finished(self, started: PendingBatch, instances: bool = False) -> Iterator[Segmentation]:
        for asked, answer in zip(started.asked, self._engine.finish(started), strict=True):
            apart = Apart(self.answer, asked, self.batch_size) if instances else None
            for one in self._segmentations(asked, answer):
                yield dataclasses.replace(one, apart=apart)

    def _segmentations(self, asked: Request, answer: Answer) -> Iterator[Segmentation]:
        there = 0.0 if answer.presence is None else answer.presence
        judged = self.arch.iou_trained
        said = (answer.logits, there, answer.iou if judged else 0.0)
        if not all(np.isfinite(x).all() for x in said):
            raise ValueError(
                f"the model's logits for {asked.picture.name} are not finite; its weights are"
                " damaged or do not belong to its architecture."
            )
        for logits, iou, low in zip(answer.logits, answer.iou, answer.low_res, strict=True):
            yield Segmentation(
                name=asked.picture.name,
                text=asked.text,
                height=asked.picture.height,
                width=asked.picture.width,
                logits=inside(logits, asked.picture.content).copy(),
                predicted_iou=float(iou) if judged else None,
                presence=None if answer.presence is None else 0.5 + 0.5 * float(np.tanh(there / 2)),
                nothing=None if answer.presence is None else there < logit(self.presence_threshold),
                threshold=self.threshold,
                low_res=low.copy(),
                **vars(asked.unread),
            )


def _told(asked: Iterable[Request]) -> Iterator[Request]:
    """The same; the first text that is not read whole is named in a warning."""
    told = False
    for one in asked:
        if one.unread and not told:
            logging.warning(
                "the model does not read all of %s (%s); `cut` and `unknown` of an answer say it.",
                *(shortened(one.text), shortened(str(one.unread))),
            )
            told = True
        yield one

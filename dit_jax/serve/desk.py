"""Who works on what: pictures are opened and masks written by a few threads, the model is asked by
one (`batcher`), and what takes long waits for a thread of its own.

At most `most` questions are inside; the next one is refused, with a guess when to come again.
"""

import asyncio
import base64
import dataclasses
import os
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from fastapi import Request
from pydantic import BaseModel

from dit_jax import predict, viz
from dit_jax.data import shapes
from dit_jax.models.architecture import Injection
from dit_jax.predict import Picture, Question, Segmenter
from dit_jax.predict.explain import explain
from dit_jax.serve import masks, schema
from dit_jax.serve.batcher import Batcher
from dit_jax.serve.door import Metrics, Refused
from dit_jax.serve.sessions import LruCache, OpenPicture, pixels_of, show
from dit_jax.serve.warm import warm
from dit_jax.weights import hub

PICTURES = 32  # kept open: 1 MB each at 512 pixels, 4 MB at 1024
SMALL = 1_000_000  # pixels of a picture all of whose masks are asked for: there may be a thousand
SCENES = 1_000_000  # that an example is drawn from
HANDS = min(4, os.cpu_count() or 1)  # threads that need memory for a whole picture each


@dataclasses.dataclass(frozen=True, eq=False)
class Served:
    """One model, and whether what is asked of it is compiled."""

    name: str
    segmenter: Segmenter
    ready: threading.Event = dataclasses.field(default_factory=threading.Event)


class Desk:
    """One method a request; all are coroutines of one event loop."""

    def __init__(self, served: Served, *, most: int, metrics: Metrics):
        self.served, self._most, self._metrics = served, most, metrics
        closed = "this picture is no longer open; choose it again."
        self.pictures = LruCache(PICTURES, sentence=closed)
        self._batcher = Batcher(count=metrics.rows.observe)
        self._hands = ThreadPoolExecutor(HANDS, "hands")
        self._slow = ThreadPoolExecutor(1, "slow")
        self._tasks = ThreadPoolExecutor(HANDS, "tasks")  # which wait for many answers each
        self._inside, self._lasted = 0, 1.0  # questions; seconds of one, lately

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """Raises Refused where too many are inside."""
        if self._inside >= self._most:
            self._metrics.refused.inc()
            soon = {"Retry-After": str(max(1, round(self._lasted)))}
            sentence = f"{self._most} questions are being answered; ask again later."
            raise Refused(429, sentence, soon)
        start = time.monotonic()
        self._inside += 1
        self._metrics.inside.set(self._inside)
        try:
            yield
        finally:
            self._inside -= 1
            self._metrics.inside.set(self._inside)
            self._lasted += (time.monotonic() - start - self._lasted) / 8

    async def answered(self, request: Request, work: Coroutine) -> Any:
        """What the work gives; it is dropped at the deadline, and where the client has gone."""
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(request.receive())  # the body is read: nothing else comes
        left = request.scope["end"] - time.monotonic()
        try:
            await asyncio.wait({task, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        finally:
            gone.cancel()
            task.cancel()
        if gone.done() and not gone.cancelled():
            raise Refused(499, "the client has gone.")
        raise Refused(504, "the question was not answered in time.")

    def model(self) -> schema.Model:
        served = self.served
        arch, words = served.segmenter.arch, served.segmenter.tokenizer
        size = 0 if words is None else words.size
        return schema.Model(
            name=served.name,
            size=arch.image_size,
            reads=arch.bert is not None,
            needs_text=arch.injection != Injection.NONE,
            vocabulary=size,
            words=words.words if 0 < size < schema.FEW else [],
            presence=arch.presence,
            threshold=served.segmenter.threshold,
            batch=served.segmenter.batch_size,
            ready=served.ready.is_set(),
            trained=trained_on(served.segmenter.provenance),
            colours=[list(colour) for colour in viz.COLOURS],
            largest=schema.LARGEST_PICTURE,
            longest=schema.LONGEST_TEXT,
            points=schema.MOST_POINTS,
        )

    async def swap(self, asked: schema.ModelQuestion) -> schema.Model:
        """Questions inside are still answered by the model that they met."""
        batch = self.served.segmenter.batch_size

        def load() -> Served:
            segmenter = Segmenter.from_pretrained(asked.model, batch_size=batch)
            served = Served(asked.model, segmenter)
            warm(segmenter, served.ready)
            return served

        self.served = await self._by(self._slow, load)
        self.pictures.clear()  # they lie on the other model's canvas
        return self.model()

    async def open(self, data: bytes) -> schema.Opened:
        segmenter = self.served.segmenter
        shown = await self._by(self._hands, lambda: show(pixels_of(data), segmenter))
        return self._kept(shown)

    async def example(self) -> schema.Opened:
        segmenter = self.served.segmenter

        def draw() -> tuple[OpenPicture, list[str]]:
            size = max(segmenter.arch.image_size, shapes.SMALLEST_SIZE)
            drawn = shapes.scene("val", secrets.randbelow(SCENES), size=size)
            texts = [target.expressions[0].text for target in drawn.targets]
            return show(drawn.image(), segmenter, drawn=True), texts

        shown, texts = await self._by(self._hands, draw)
        return self._kept(shown, texts=texts)

    async def segment(self, asked: schema.Question, data: bytes | None) -> bytes:
        segmenter = self.served.segmenter
        opened = await self._picture(segmenter, asked, data)

        def rows() -> list[predict.Request]:
            said = (prompt.model_dump() for prompt in asked.prompts)
            return [segmenter.prepare(Question(opened, opened.name, **one)) for one in said]

        waiting = self._batcher.ask(segmenter, await self._by(self._hands, rows))
        found = await asyncio.gather(*map(asyncio.wrap_future, waiting))

        def write() -> bytes:
            changed = {} if asked.threshold is None else {"threshold": asked.threshold}
            answers = [
                masks.of_answer(dataclasses.replace(one, **changed), asked.output) for one in found
            ]
            size = [opened.height, opened.width]
            return json_of(schema.Answers(size=size, answers=answers))

        return await self._by(self._hands, write)

    async def everything(self, asked: schema.EverythingQuestion, data: bytes | None) -> bytes:
        segmenter = self.served.segmenter
        settings = asked.model_dump(exclude={"image", "picture", "output"})

        def find() -> bytes:
            pixels = pixels_of(_given(asked, data), most=SMALL)
            found = segmenter.everything(pixels, before_batch=check, **settings)
            told = [masks.of_found(one, asked.output) for one in found]
            return json_of(schema.AllFound(size=list(pixels.shape[:2]), masks=told))

        with waited_for() as check:
            return await self._by(self._slow, find)

    async def words(self, asked: schema.WordsQuestion, data: bytes | None) -> bytes:
        segmenter = self.served.segmenter
        opened = await self._picture(segmenter, asked, data)
        how = dict(points=asked.points, box=asked.box)
        return await self._by(
            self._slow,
            lambda: json_of(masks.of_words(explain(segmenter, opened, asked.text, **how))),
        )

    async def read(self, asked: schema.ReadQuestion, data: None) -> bytes:
        words = self.served.segmenter.tokenizer
        if words is None:
            raise ValueError("the model takes no text.")
        unread, letters = words.unread(asked.text), words.letters(asked.text)
        read = schema.Read(cut=unread.cut, unknown=list(unread.unknown), letters=list(letters))
        return json_of(read)

    async def with_model(self, work: Callable[[Callable], Any]) -> Any:
        """What `work` makes of a function that answers questions, a mask each."""
        segmenter = self.served.segmenter

        def ask(questions: Sequence[Question]) -> list[predict.Segmentation]:
            check()
            opened: dict[int, Picture] = {}
            rows = []
            for one in questions:
                key = id(one.image)
                if key not in opened:
                    opened[key] = segmenter.open(one.image, name=one.name)
                rows.append(segmenter.prepare(dataclasses.replace(one, image=opened[key])))
            return [one.result() for one in self._batcher.ask(segmenter, rows)]

        with waited_for() as check:
            return await self._by(self._tasks, lambda: work(ask))

    async def _picture(
        self, segmenter: Segmenter, asked: schema.About, data: bytes | None
    ) -> Picture:
        if asked.picture is not None and asked.image is None and data is None:
            return self.pictures[asked.picture].picture
        return await self._by(
            self._hands,
            lambda: segmenter.open(pixels_of(_given(asked, data)), name="the picture"),
        )

    def _kept(self, shown: OpenPicture, *, texts: Sequence[str] = ()) -> schema.Opened:
        return schema.Opened(
            id=self.pictures.add(shown),
            width=shown.picture.width,
            height=shown.picture.height,
            view=list(shown.view),
            texts=list(texts),
            drawn=shown.drawn is not None,
        )

    async def _by(self, pool: ThreadPoolExecutor, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, work)


@contextmanager
def waited_for() -> Iterator[Callable[[], None]]:
    """What raises TimeoutError once this is left: at the deadline, or where the client has gone."""
    left = threading.Event()

    def check() -> None:
        if left.is_set():
            raise TimeoutError("nobody waits for the answer any more.")

    try:
        yield check
    finally:
        left.set()


def trained_on(provenance: Mapping[str, Any]) -> str:
    """In a sentence for who sees a model for the first time; empty where nobody noted it."""
    dataset, settings = provenance.get("dataset"), provenance.get("config") or {}
    begun = settings.get("model.init.model") or settings.get("model.init.sam")
    first = f", beginning with {Path(begun).name}" if begun else ""
    if dataset == "shapes":
        drawn = f"{len(shapes.SHAPES)} shapes in {len(shapes.COLOURS)} colours"
        if not begun or begun in os.listdir(hub.SHIPPED):  # they know nothing else
            first = ", and on no photographs"
        return f"It was trained on drawings of {drawn}{first}."
    if dataset:
        return f"It was trained on {dataset}{first}."
    source = provenance.get("source") or {}
    files = source.values() if isinstance(source, Mapping) else [source]
    named = " and ".join(Path(str(file)).name for file in files)
    return f"Its weights are those of {named}." if named else ""


def json_of(said: BaseModel) -> bytes:
    return said.model_dump_json().encode()


def _given(asked: schema.Sent, data: bytes | None) -> bytes:
    """A picture's bytes; raises ValueError unless there is one picture."""
    named = getattr(asked, "picture", None)
    if (data is not None) + (asked.image is not None) + (named is not None) != 1:
        raise ValueError("expected one picture: a file, `image`, or `picture` where that is a key.")
    if data is not None:
        return data
    try:
        return base64.b64decode(asked.image, validate=True)
    except ValueError as error:
        raise ValueError("`image` is no base64; expected that of a picture's bytes.") from error

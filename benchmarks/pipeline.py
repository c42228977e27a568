"""How many pictures a second does one core prepare at 512 px, beside bare OpenCV and PyTorch?

    python -m benchmarks.pipeline [--pictures DIR] [--rounds N]

All of them read the same JPEG files from memory, in one process, taking turns; rates are medians
over rounds, ratios are medians of the rounds' own ratios. A rate is pictures per second of
processor time, which other work on the machine disturbs less than wall clock. Without --pictures,
32 pictures are drawn that cost a JPEG decoder what a photograph does. Needs requirements-dev.txt.

- OpenCV, bare: decode, resize to the letterbox; nothing else. What an input pipeline cannot avoid.
- OpenCV, batch: the same, put on the canvases of a batch.
- dit_jax: picture and mask decoded, augmented like the released code, tokenised, batched.
- PyTorch: the same work in a Dataset and its DataLoader (no workers), with PIL and pycocotools.
"""

import argparse
import io
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import cv2
import grain
import numpy as np
import torch
from PIL import Image, ImageEnhance
from pycocotools import mask as rle
from torch.utils.data import DataLoader, Dataset

import dit_jax
from benchmarks.page import Page
from dit_jax.data.pipeline import train_batches
from dit_jax.data.pipeline.items import Collate, Reader, TrainingRow
from dit_jax.data.pixels import (
    UNCHANGED,
    Augmentation,
    Stored,
    content_box,
    decode_image,
    inside,
    swap_left_right,
)
from dit_jax.data.referent import Truth
from dit_jax.data.tokenizer import Tokenizer

SIZE, BATCH = 512, 16
BATCHES = 6  # of each contestant in a round
REFERENTS = 42_404  # RefCOCO's; the pictures repeat
TEXTS = ("the small red square on the left", "large circle")


@dataclass(frozen=True)
class Pictures:
    """A Source: JPEG files in memory, each with a blob as its mask."""

    files: tuple[bytes, ...]
    sizes: tuple[tuple[int, int], ...]
    masks: tuple[bytes, ...]

    def __len__(self) -> int:
        return REFERENTS

    def __getitem__(self, index: int) -> Stored:
        which = index % len(self.files)
        about = dict(expressions=TEXTS, id=f"picture {index}", image_id=index)
        return Stored(self.files[which], self.masks[which], size=self.sizes[which], **about)

    def truth(self, index: int) -> Truth:
        return self[index].truth()

    def expression_counts(self) -> np.ndarray:
        return np.full(len(self), len(TEXTS))

    def image_ids(self) -> np.ndarray:
        return np.arange(len(self))

    @staticmethod
    def of(files: Sequence[bytes]) -> "Pictures":
        sizes = [decode_image(data, name="picture").shape[:2] for data in files]
        masks = [blob(i, height=h, width=w) for i, (h, w) in enumerate(sizes)]
        return Pictures(tuple(files), tuple(sizes), tuple(masks))


def draw(seed: int) -> bytes:
    """A 480x640 JPEG of soft blobs, edges and grain, of about the size of one of COCO's."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((480, 640, 3), np.float32)
    for cells, strength in ((4, 70), (12, 35), (40, 20), (160, 12), (640, 7)):
        noise = rng.normal(size=(max(2, cells * 3 // 4), cells, 3)).astype(np.float32)
        picture += strength * cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        x, y, radius = rng.integers((0, 0, 10), (640, 480, 90))
        colour = rng.normal(0, 60, 3).tolist()
        layer = cv2.circle(np.zeros_like(picture), (int(x), int(y)), int(radius), colour, -1)
        picture += layer
    picture = np.clip(picture + 120, 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def blob(seed: int, *, height: int, width: int) -> bytes:
    """Run lengths of an uneven disc on a fifth to two fifths of each side."""
    rng = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    radius = rng.uniform(0.2, 0.4) * (1 + 0.2 * rng.random(60))
    x, y = rng.uniform(0.3, 0.7, 2)
    outline = np.stack([x + radius / 2 * np.cos(angle), y + radius / 2 * np.sin(angle)], axis=1)
    polygon = (outline * [width, height]).ravel().tolist()
    return rle.merge(rle.frPyObjects([polygon], height, width))["counts"]


def bare(source: Pictures) -> Callable[[], None]:
    numbers = count()

    def run() -> None:
        for _ in range(BATCHES * BATCH):
            letterboxed(source, next(numbers))

    return run


def batched(source: Pictures) -> Callable[[], None]:
    numbers = count()

    def run() -> None:
        for _ in range(BATCHES):
            batch = np.zeros((BATCH, SIZE, SIZE, 3), np.uint8)
            for canvas in batch:
                picture, content = letterboxed(source, next(numbers))
                inside(canvas, content)[...] = picture

    return run


def letterboxed(source: Pictures, index: int):
    data = np.frombuffer(source.files[index % len(source.files)], np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    content = content_box(*picture.shape[:2], SIZE)
    return cv2.resize(picture, content[:1:-1]), content


def ours(source: Pictures, tokenizer: Tokenizer, augmentation: Augmentation):
    """The batches of `train_batches`, made in this thread when they are asked for."""
    reader = Reader(source, tokenizer, SIZE)
    row = TrainingRow(reader, augmentation, parts=(len(source),), tries=1)
    order = grain.MapDataset.range(len(source)).seed(0).shuffle().repeat()
    batches = order.random_map(row).batch(BATCH, batch_fn=Collate(SIZE))
    numbers = count()

    def run() -> None:
        for _ in range(BATCHES):
            batches[next(numbers)]

    return run


class Torch(Dataset):
    """One training example the way most PyTorch code prepares it."""

    def __init__(self, source: Pictures, tokenizer: Tokenizer, augmentation: Augmentation):
        self.source, self.tokenizer, self.augmentation = source, tokenizer, augmentation
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        which = index % len(self.source.files)
        height, width = self.source.sizes[which]
        picture = Image.open(io.BytesIO(self.source.files[which])).convert("RGB")
        stored = {"size": [height, width], "counts": self.source.masks[which]}
        mask = Image.fromarray(rle.decode(stored) * np.uint8(255))
        text = TEXTS[self.rng.integers(len(TEXTS))]
        scale = self.augmentation.scales[self.rng.integers(len(self.augmentation.scales))]
        top, left, h, w = content_box(height, width, SIZE, scale=scale)
        picture = picture.resize((w, h), Image.Resampling.BILINEAR)
        mask = mask.resize((w, h), Image.Resampling.BILINEAR)
        if self.rng.random() < self.augmentation.jitter_p:
            picture = self.jitter(picture)
        if self.rng.random() < self.augmentation.flip_p:
            flip = Image.Transpose.FLIP_LEFT_RIGHT
            picture, mask = picture.transpose(flip), mask.transpose(flip)
            text = swap_left_right(text)
        canvas, soft = Image.new("RGB", (SIZE, SIZE)), Image.new("L", (SIZE, SIZE))
        canvas.paste(picture, (left, top))
        soft.paste(mask, (left, top))
        ids, attention = self.tokenizer([text])
        arrays = np.array(canvas), np.array(soft), ids[0], attention[0]
        return tuple(torch.from_numpy(array) for array in arrays)

    def jitter(self, picture: Image.Image) -> Image.Image:
        changes = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
        strength = self.augmentation.jitter
        for change in self.rng.permutation(len(changes)):
            factor = self.rng.uniform(1 - strength, 1 + strength)
            picture = changes[change](picture).enhance(factor)
        return picture


def pytorch(source: Pictures, tokenizer: Tokenizer) -> Callable[[], None]:
    loader = DataLoader(Torch(source, tokenizer, Augmentation()), batch_size=BATCH, shuffle=True)
    batches = iter(loader)

    def run() -> None:
        for _ in range(BATCHES):
            next(batches)

    return run


def prefetched(source: Pictures, tokenizer: Tokenizer, *, workers: int) -> tuple[float, float]:
    """Pictures from `train_batches` once it is running, per second of processor and wall time."""
    settings = dict(size=SIZE, batch_size=BATCH, augmentation=Augmentation(), seed=0)
    batches = train_batches(source, tokenizer, workers=workers, **settings)
    for _ in range(2 * BATCHES):
        next(batches)
    processor, wall = processor_time(), time.perf_counter()
    for _ in range(6 * BATCHES):
        next(batches)
    processor, wall = processor_time() - processor, time.perf_counter() - wall
    batches.close()
    return 6 * BATCHES * BATCH / processor, 6 * BATCHES * BATCH / wall


def processor_time() -> float:
    """Seconds of this process, its threads and its worker processes (Linux)."""
    seconds = time.process_time()
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def compare(contestants: dict[str, Callable[[], None]], *, rounds: int) -> dict[str, list[float]]:
    """Pictures per second of processor time in each round, after one round of warming up."""
    rates = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, run in contestants.items():
            start = time.process_time()
            run()
            if number:
                rates[name].append(BATCHES * BATCH / (time.process_time() - start))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=Path, help="folder of JPEG files")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    if options.pictures:
        paths = sorted(options.pictures.glob("*.jpg"))
        if not paths:
            parser.error(f"{options.pictures}: no *.jpg files there.")
        files = [path.read_bytes() for path in paths]
    else:
        files = [draw(seed) for seed in range(32)]
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    source = Pictures.of(files)
    vocabulary = Path(dit_jax.__file__).parent / "data/shapes/vocab.txt"
    tokenizer = Tokenizer(vocabulary)
    rates = compare(
        {
            "OpenCV, bare": bare(source),
            "OpenCV, batch": batched(source),
            "dit_jax": ours(source, tokenizer, Augmentation()),
            "dit_jax, no augmentation": ours(source, tokenizer, UNCHANGED),
            "PyTorch": pytorch(source, tokenizer),
        },
        rounds=options.rounds,
    )
    kilobytes = statistics.mean(map(len, files)) / 1000
    with Page("pipeline", f"Input pipeline: pictures per second and core at {SIZE} px") as page:
        page.add(
            f"{len(files)} pictures of {kilobytes:.0f} kB, batches of {BATCH}, medians of"
            f" {options.rounds} rounds."
        )
        page.add("\n| one core | pictures/s | of bare OpenCV | of PyTorch |\n|---|---|---|---|")
        for name, mine in rates.items():
            ratios = (
                statistics.median(a / b for a, b in zip(mine, rates[other], strict=True))
                for other in ("OpenCV, bare", "PyTorch")
            )
            cells = f"{statistics.median(mine):.0f}", *(f"{ratio:.2f}" for ratio in ratios)
            page.add(f"| {name} | {' | '.join(cells)} |")
        page.add("\n| `train_batches` | pictures/s of processor time | of wall clock |")
        page.add("|---|---|---|")
        for workers in (0, 1, 2):
            name = f"{workers} worker processes" if workers else "threads"
            processor, wall = prefetched(source, tokenizer, workers=workers)
            page.add(f"| {name} | {processor:.0f} | {wall:.0f} |")


if __name__ == "__main__":
    main()

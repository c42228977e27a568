"""A server under load, on loopback: what it sustains, how long answers take, what it refuses.

    python -m benchmarks.serving [--model NAME|DIR] [--seconds N] [--pictures N]

1. A server that computes one mask at a time, and one that computes up to eight together, in turns:
   answers a second to one client that asks again and again, and to 32.
2. The latter under requests that come at random times, whether or not others are answered (an open
   loop), at 0.5, 1 and 2 times what it sustains, with its memory.

Each request brings one of `--pictures` drawn pictures and a point ("pictures"), or a point in a
picture that is open at the server ("clicks"). Every mask is compared, bit for bit, with those that
`Segmenter` gives: programs for 1, 2, 4 and 8 rows differ in their last bits, so there may be more
than one, and it is counted how many are not that of a single row. The load is bounded: by time,
and by 256 requests on their way. The page is benchmarks/results/serving.md.
"""

import argparse
import asyncio
import base64
import contextlib
import itertools
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2

from benchmarks.page import Page
from dit_jax import Segmenter
from dit_jax.data import shapes
from dit_jax.eval.prediction_files import encoded
from dit_jax.predict import Picture, Question

ROOT = Path(__file__).resolve().parents[1]
CLIENTS, ON_THEIR_WAY, ROUNDS = 32, 256, 6
SECONDS = 24  # of a row of servers in turns
POINTS, ROWS = 4, 8  # of each picture; computed together
FAULTS = (
    ("a client goes while it uploads, or while it waits", "its place is free, its mask dropped"),
    ("half an upload, and then nothing", "408 at the deadline"),
    ("a client that sends no byte", "it keeps a connection, others are answered"),
    ("a client that does not read its answer", "the connection is dropped after the deadline"),
    ("a picture that the decoder refuses, or a bomb", "400 in a sentence, nothing is decoded"),
    ("more bytes than are taken", "413"),
    ("more questions than fit", "429 with Retry-After, read also by who still sends"),
    ("one row of a batch fails", "the others are answered one by one"),
    ("SIGTERM while questions are inside", "they are answered, exit status 0"),
    ("kill -9, and started again", "it serves on the same port"),
)


@dataclass
class Tally:
    """What came of one row's requests."""

    seconds: list[float] = field(default_factory=list)  # of those that were answered
    statuses: Counter = field(default_factory=Counter)
    other: int = 0  # masks that are Segmenter's for more rows, and not for one
    wrong: int = 0
    lasted: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.seconds) / self.lasted

    def percentiles(self) -> str:
        if len(self.seconds) < 2:
            return "– | –"
        cuts = statistics.quantiles(self.seconds, n=100)
        return f"{1000 * cuts[49]:.0f} | {1000 * cuts[98]:.0f}"


@dataclass
class Asked:
    """A request as bytes, and the run lengths that may answer it, the first in a single row."""

    request: bytes
    expected: list[str]


class Server:
    """The command, its port and its process."""

    def __init__(self, model: str, *, batch: int):
        command = [sys.executable, "launch.py", "--mode=serve", f"--model={model}", "--port=0"]
        self.process = subprocess.Popen(
            [*command, f"--batch={batch}"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        self.port = int(re.search(r":(\d+)", self.process.stdout.readline())[1])
        while asyncio.run(told(self.port, posted("/readyz", None)))[0] != 200:
            time.sleep(0.5)

    def megabytes(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait()


@contextlib.contextmanager
def serving(model: str, *, batch: int) -> Iterator[Server]:
    server = Server(model, batch=batch)
    try:
        yield server
    finally:
        status = server.stop()
    assert status == 0, status


def posted(path: str, question: dict | None) -> bytes:
    body = b"" if question is None else json.dumps(question).encode()
    head = f"{'GET' if question is None else 'POST'} {path} HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body


async def told(port: int, request: bytes) -> tuple[int, bytes]:
    """Status and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    said = await reader.read()
    writer.close()
    head, _, body = said.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body


def answered(segmenter: Segmenter, asked: list[Question], requests: list[bytes]) -> list[Asked]:
    """What `Segmenter` answers, asked by 1, 2, 4 and 8 rows."""
    rows, sizes = [segmenter.prepare(question) for question in asked], (1, 2, 4, ROWS)
    found = [
        [one for start in range(0, len(rows), n) for one in segmenter.answer(rows[start:][:n])]
        for n in sizes
    ]
    masks = ([encoded(one.mask)["counts"] for one in each] for each in zip(*found, strict=True))
    return [Asked(*pair) for pair in zip(requests, masks, strict=True)]


def a_point(picture: Picture, dice: random.Random) -> list[list[int]]:
    return [[dice.randrange(picture.width), dice.randrange(picture.height), 1]]


def of_pictures(segmenter: Segmenter, *, count: int) -> list[Asked]:
    """Each picture, with each of its points, by base64."""
    dice, asked, requests = random.Random(0), [], []
    for number in random.Random(1).sample(range(count), count) * POINTS:
        file = cv2.imencode(".jpg", shapes.scene("val", number, size=256).image()[..., ::-1])[1]
        opened = segmenter.open(file.tobytes())
        points = a_point(opened, dice)
        asked.append(Question(opened, "", points=points))
        question = {"image": base64.b64encode(file).decode(), "prompts": [{"points": points}]}
        requests.append(posted("/v1/segment", question))
    return answered(segmenter, asked, requests)


def clicks(server: Server, segmenter: Segmenter, *, count: int = 64) -> list[Asked]:
    """Points of one picture that is open at the server."""
    dice, pixels = random.Random(2), shapes.scene("val", 0, size=256).image()
    opened = segmenter.open(pixels)
    file = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
    head = f"POST /v1/pictures HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(file)}\r\n"
    sent = f"{head}Connection: close\r\n\r\n".encode() + file
    picture = json.loads(asyncio.run(told(server.port, sent))[1])["id"]
    asked = [Question(opened, "", points=a_point(opened, dice)) for _ in range(count)]
    questions = ({"picture": picture, "prompts": [{"points": one.points}]} for one in asked)
    return answered(segmenter, asked, [posted("/v1/segment", one) for one in questions])


async def one(server: Server, asked: Asked, tally: Tally) -> None:
    start = time.perf_counter()
    try:
        status, body = await told(server.port, asked.request)
    except (OSError, IndexError) as error:
        tally.statuses[type(error).__name__] += 1
        return
    tally.statuses[status] += 1
    if status == 200:
        tally.seconds.append(time.perf_counter() - start)
        counts = json.loads(body)["answers"][0]["mask"]["counts"]
        tally.wrong += counts not in asked.expected
        tally.other += counts in asked.expected[1:] and counts != asked.expected[0]


async def closed(
    server: Server, asked: list[Asked], tally: Tally, *, clients: int, seconds: float
) -> None:
    """Clients that ask again when they are answered."""
    start, turns = time.perf_counter(), itertools.count()

    async def client() -> None:
        while time.perf_counter() - start < seconds:
            await one(server, asked[next(turns) % len(asked)], tally)

    await asyncio.gather(*(client() for _ in range(clients)))
    tally.lasted += time.perf_counter() - start


async def opened(server: Server, asked: list[Asked], *, rate: float, seconds: float) -> Tally:
    """Requests at random times, `rate` a second; at most `ON_THEIR_WAY` at once."""
    dice, tally, running = random.Random(2), Tally(), set()
    start = due = time.perf_counter()
    number = 0
    while due - start < seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if len(running) < ON_THEIR_WAY:
            task = asyncio.ensure_future(one(server, asked[number % len(asked)], tally))
            running.add(task)
            task.add_done_callback(running.discard)
        else:
            tally.statuses["not sent"] += 1
        number += 1
        due += dice.expovariate(rate)
    await asyncio.gather(*running)
    tally.lasted = time.perf_counter() - start
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="mini_sam")
    parser.add_argument("--seconds", type=float, default=200.0, help="of each share")
    parser.add_argument("--pictures", type=int, default=64, help="a multiple of 8")
    arguments = parser.parse_args()
    segmenter = Segmenter.from_pretrained(arguments.model, batch_size=ROWS)
    asked = of_pictures(segmenter, count=arguments.pictures)
    with Page("serving", "Serving") as page:
        report(page, arguments, segmenter, asked)


def report(page: Page, arguments, segmenter: Segmenter, asked: list[Asked]) -> None:
    page.add(
        f"{arguments.model}, {segmenter.arch.image_size} px, {arguments.pictures} pictures of 256 ×"
        " 192 pixels with a point each time; server and clients share the cores."
    )
    page.add()
    page.add("| | load | answers/s | p50, ms | p99, ms | other bits | wrong |")
    page.add("|---|---|---|---|---|---|---|")
    with contextlib.ExitStack() as stack:
        servers = {n: stack.enter_context(serving(arguments.model, batch=n)) for n in (1, ROWS)}
        gains, sustained = {}, 0.0
        for what in ("pictures", "clicks"):
            some = dict.fromkeys(servers, asked)
            if what == "clicks":
                some = {n: clicks(server, segmenter) for n, server in servers.items()}
            for clients in (1, CLIENTS):
                rates = in_turns(servers, some, clients=clients)
                for n, tally in rates.items():
                    load = "one client" if clients == 1 else f"{clients} clients"
                    said = f"{tally.rate:.1f} | {tally.percentiles()} | {tally.other}"
                    page.add(f"| {n} at a time, {what} | {load} | {said} | {tally.wrong} |")
            gains[what] = rates[ROWS].rate / rates[1].rate
            sustained = sustained or rates[ROWS].rate
        page.add()
        for what, gain in gains.items():
            page.add(f"{CLIENTS} clients, {what}: {gain:.2f} times as many answers together.")
        under_load(page, servers[ROWS], asked, rate=sustained, seconds=arguments.seconds)
    page.add()
    page.add("| what goes wrong | what happens |")
    page.add("|---|---|")
    for wrong, happens in FAULTS:
        page.add(f"| {wrong} | {happens} |")
    page.add()
    page.add("Each row is a test: tests/serve/test_batcher.py, test_refusals.py, test_faults.py.")


def in_turns(
    servers: dict[int, Server], asked: dict[int, list[Asked]], *, clients: int
) -> dict[int, Tally]:
    """Each server's tally; they take turns, because the machine is not the same all the time."""
    tallies = {n: Tally() for n in servers}
    for _ in range(ROUNDS):
        for n, server in servers.items():
            how = dict(clients=clients, seconds=SECONDS / ROUNDS / len(servers))
            asyncio.run(closed(server, asked[n], tallies[n], **how))
            assert set(tallies[n].statuses) == {200}, tallies[n].statuses
    return tallies


def under_load(
    page: Page, server: Server, asked: list[Asked], *, rate: float, seconds: float
) -> None:
    page.add()
    page.add(f"Pictures at random times, at shares of what {CLIENTS} clients got:")
    page.add()
    page.add("| share | sent/s | answers/s | p50, ms | p99, ms | 429 | other bits | wrong | MB |")
    page.add("|---|---|---|---|---|---|---|---|---|")
    for share in (0.5, 1.0, 2.0):
        before = server.megabytes()
        tally = asyncio.run(opened(server, asked, rate=share * rate, seconds=seconds))
        counts = tally.statuses
        memory = f"{before:.0f} → {server.megabytes():.0f}"
        sent = sum(counts.values()) / tally.lasted
        page.add(
            f"| {share:g} | {sent:.1f} | {tally.rate:.1f} | {tally.percentiles()} | {counts[429]}"
            f" | {tally.other} | {tally.wrong} | {memory} |"
        )
        assert set(counts) <= {200, 429, "not sent"}, counts


if __name__ == "__main__":
    main()

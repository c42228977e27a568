"""What several expressions on one picture cost, together and one by one.

    python -m benchmarks.expressions [--row ROW] [--count N] [--rounds N]
    python -m benchmarks.expressions --late

`DitSam.segment` on one picture and N expressions, beside N calls of the model; both compiled,
float32, 512 px, taking turns. The ratio is the median of the rounds' own ratios. `--late` is about
L-DIT whose text enters from block k on (`model.inject_from`): what one more expression costs, and a
training step of one picture with a frozen image encoder, whose first k blocks are computed, or read
from `data.cache_features`. The pages are benchmarks/results/expressions.md and late_text.md.
"""

import argparse
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import synthetic
from benchmarks.page import Page
from dit_jax.allocator import keep_freed_memory
from dit_jax.models import params as parameters
from dit_jax.train import optim
from dit_jax.train.step import loss_and_grads

ROWS = ("ldit_vit_b", "default_vit_b")
FROM, COUNTS = (0, 4, 8), (1, 10, 50)


def together(model: synthetic.Model, *, size: int, count: int) -> Callable[[], jax.Array]:
    """`count` expressions on one picture."""
    picture = synthetic.batch(size=size, count=1, tokens=20)["images"]
    many = synthetic.batch(size=16, count=count, tokens=20)
    same = jnp.zeros(count, jnp.int32)

    @jax.jit
    def segment(params, images, ids, mask):
        merged = parameters.merge(model.graph, params)
        return merged.segment(images, ids, mask, picture_of=same).logits

    return lambda: segment(model.params, picture, many["ids"], many["mask"])


def compare(row: str, *, count: int, rounds: int) -> tuple[float, float, float]:
    """Seconds together, seconds one by one, and how many times less the first is."""
    arch = synthetic.architecture(row)
    model, size = synthetic.Model(arch), arch.image_size
    batch = synthetic.batch(size=size, count=1, tokens=20)
    many = synthetic.batch(size=16, count=count, tokens=20)

    def one_by_one():
        calls = []
        for i in range(count):
            one = batch | {"ids": many["ids"][i : i + 1], "mask": many["mask"][i : i + 1]}
            calls.append(model.forward(model.params, one))
        return calls

    seconds = taking_turns((together(model, size=size, count=count), one_by_one), rounds=rounds)
    first, second = (statistics.median(x) for x in zip(*seconds, strict=True))
    return first, second, statistics.median(b / a for a, b in seconds)


def taking_turns(runs: Sequence[Callable], *, rounds: int) -> list[list[float]]:
    """Seconds of each run in each round; before the first, everything is compiled."""
    seconds = []
    for number in range(rounds + 1):
        times = []
        for run in runs:
            start = time.perf_counter()
            jax.block_until_ready(run())
            times.append(time.perf_counter() - start)
        if number:
            seconds.append(times)
    return seconds


def training(model: synthetic.Model, *, size: int) -> list[tuple[Callable, Any]]:
    """Gradients of all but the image encoder, from pixels and from what its first blocks made."""
    trainable, frozen = optim.partition(model.params, ("image_encoder",))
    batch = synthetic.batch(size=size, count=1, tokens=20)
    about = {"input_ids": batch["ids"], "attention_mask": batch["mask"]} | batch
    about |= {"content": jnp.array([[size, size]]), "present": jnp.ones(1, jnp.int32)}
    images = about.pop("images")
    merged = parameters.merge(model.graph, model.params)
    before = merged.image_encoder.before_text(images)
    known = (about | {"images": images}, about | {"before": before})

    @jax.jit
    def step(trainable, frozen, inputs):
        return loss_and_grads(model.graph, trainable, frozen, inputs, None)

    programs = [step.lower(trainable, frozen, inputs).compile() for inputs in known]
    return [
        (functools.partial(program, trainable, frozen, inputs), program.memory_analysis())
        for program, inputs in zip(programs, known, strict=True)
    ]


def late(page: Page, *, rounds: int) -> None:
    """A row a block that text enters from."""
    counts = " | ".join(f"{count} at once, s" for count in COUNTS)
    page.add(f"| text from block | {counts} | one more, of the first |")
    page.add("|---" * (len(COUNTS) + 2) + "|")
    steps = {}
    for block in FROM:
        arch = dataclasses.replace(synthetic.architecture("ldit_vit_b"), inject_from=block)
        model = synthetic.Model(arch)
        runs = [together(model, size=arch.image_size, count=count) for count in COUNTS]
        times = taking_turns(runs, rounds=rounds)
        middle = [statistics.median(x) for x in zip(*times, strict=True)]
        more = statistics.median((t[1] - t[0]) / (COUNTS[1] - 1) / t[0] for t in times)
        page.add(f"| {block} | " + " | ".join(f"{x:.2f}" for x in middle) + f" | {more:.2f} |")
        if block:
            steps[block] = training(model, size=arch.image_size)
    page.add()
    page.add("| text from block | frozen blocks | a step's gradients, s | memory, GB |")
    page.add("|---|---|---|---|")
    for block, pair in steps.items():
        times = zip(*taking_turns([run for run, _ in pair], rounds=2 * rounds), strict=True)
        for how, (_, used), own in zip(("computed", "read"), pair, times, strict=True):
            row = f"{statistics.median(own):.2f} | {used.temp_size_in_bytes / 1e9:.2f}"
            page.add(f"| {block} | {how} | {row} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--row", choices=ROWS)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--late", action="store_true", help="text that enters from block k on")
    options = parser.parse_args()
    keep_freed_memory()
    if options.late:
        with Page("late_text", "What one more expression costs where text enters late") as page:
            late(page, rounds=options.rounds)
        return
    with Page("expressions", "Several expressions on one picture") as page:
        page.add(f"| {options.count} expressions | together, s | one by one, s | times |")
        page.add("|---|---|---|---|")
        for row in (options.row,) if options.row else ROWS:
            times = compare(row, count=options.count, rounds=options.rounds)
            page.add(f"| {row} | " + " | ".join(f"{x:.2f}" for x in times) + " |")


if __name__ == "__main__":
    main()

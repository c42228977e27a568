"""What several expressions on one picture cost, together and one by one.

    python -m benchmarks.expressions [--row ROW] [--count N] [--rounds N]

`DitSam.segment` on one picture and N expressions, beside N calls of the model; both compiled,
float32, 512 px, taking turns. The ratio is the median of the rounds' own ratios. The page is
benchmarks/results/expressions.md.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp

from benchmarks import synthetic
from benchmarks.page import Page
from dit_jax.allocator import keep_freed_memory
from dit_jax.models import params as parameters

ROWS = ("ldit_vit_b", "default_vit_b")


def compare(row: str, *, count: int, rounds: int) -> tuple[float, float, float]:
    """Seconds together, seconds one by one, and how many times less the first is."""
    arch = synthetic.architecture(row)
    model, size = synthetic.Model(arch), arch.image_size
    batch = synthetic.batch(size=size, count=1, tokens=20)
    many = synthetic.batch(size=16, count=count, tokens=20)
    same = jnp.zeros(count, jnp.int32)

    @jax.jit
    def segment(params, images, ids, mask):
        merged = parameters.merge(model.graph, params)
        return merged.segment(images, ids, mask, picture_of=same).logits

    def together():
        return segment(model.params, batch["images"], many["ids"], many["mask"])

    def one_by_one():
        calls = []
        for i in range(count):
            one = batch | {"ids": many["ids"][i : i + 1], "mask": many["mask"][i : i + 1]}
            calls.append(model.forward(model.params, one))
        return calls

    seconds = []
    for number in range(rounds + 1):
        times = []
        for run in (together, one_by_one):
            start = time.perf_counter()
            jax.block_until_ready(run())
            times.append(time.perf_counter() - start)
        if number:
            seconds.append(times)
    first, second = (statistics.median(x) for x in zip(*seconds, strict=True))
    return first, second, statistics.median(b / a for a, b in seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--row", choices=ROWS)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    keep_freed_memory()
    with Page("expressions", "Several expressions on one picture") as page:
        page.add(f"| {options.count} expressions | together, s | one by one, s | times |")
        page.add("|---|---|---|---|")
        for row in (options.row,) if options.row else ROWS:
            times = compare(row, count=options.count, rounds=options.rounds)
            page.add(f"| {row} | " + " | ".join(f"{x:.2f}" for x in times) + " |")


if __name__ == "__main__":
    main()

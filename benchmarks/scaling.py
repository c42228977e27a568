"""Do time and memory grow with the arithmetic: by batch, side, text length and depth?

    python -m benchmarks.scaling [--row ROW] [--depth N] [--rounds N] [--training]

One of them varies at a time, from L-DIT ViT-B with two blocks, 512 px, 20 tokens, batch 1, float32.
GFLOP counts products (`dit_jax.models.flops`), s is a median, both also as multiples of the first
row of their table; "temporary" is what XLA sets aside besides parameters and inputs. The page is
benchmarks/results/scaling_*.md.
"""

import argparse

from benchmarks import synthetic
from benchmarks.page import Page
from dit_jax.allocator import keep_freed_memory
from dit_jax.models import flops

BASE = dict(batch=1, size=512, tokens=20, depth=2)
SWEEPS = {
    "batch": (1, 2, 4),
    "size": (256, 512, 768, 1024),
    "tokens": (20, 40, 80),
    "depth": (1, 2, 4),
}


def measure(setting: dict, *, row: str, rounds: int, training: bool) -> tuple[float, float, float]:
    """GFLOP, seconds and temporary MiB of one step."""
    size, tokens = setting["size"], setting["tokens"]
    arch = synthetic.architecture(row, depth=setting["depth"], image_size=size, text_tokens=tokens)
    model = synthetic.Model(arch)
    batch = synthetic.batch(size=size, count=setting["batch"], tokens=tokens)
    count = flops.training(arch) if training else flops.forward(arch)
    if not training:
        program = model.forward.lower(model.params, batch).compile()
        seconds = synthetic.median_seconds(lambda: program(model.params, batch), rounds=rounds)
    else:
        state = model.start()
        program = model.training().lower(state, batch).compile()

        def step():
            nonlocal state
            state, loss = program(state, batch)
            return loss

        seconds = synthetic.median_seconds(step, rounds=rounds)
    temporary = program.memory_analysis().temp_size_in_bytes
    return setting["batch"] * count / 1e9, seconds, temporary / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--row", default="ldit_vit_b")
    parser.add_argument("--depth", type=int, default=BASE["depth"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--training", action="store_true")
    options = parser.parse_args()
    keep_freed_memory()
    base = BASE | {"depth": options.depth}
    what = "training" if options.training else "forward"
    about = dict(row=options.row, rounds=options.rounds, training=options.training)
    with Page(
        f"scaling_{what}", f"Time and memory against arithmetic: {options.row}, {what}"
    ) as page:
        for name, values in SWEEPS.items():
            page.add(f"| {name} | GFLOP | × | s | × | GFLOP/s | temporary MiB | × |")
            page.add("|---" * 8 + "|")
            first = None
            for value in values:
                found = measure(base | {name: value}, **about)
                first = first or found
                page.add(line(value, found, first))
            page.add()


def line(value: int, found: tuple[float, ...], first: tuple[float, ...]) -> str:
    """A row of a table: each figure, and how many times the first row's it is."""
    work, seconds, memory = found
    more = [f"{a / b:.2f}" for a, b in zip(found, first, strict=True)]
    cells = [value, f"{work:.0f}", more[0], f"{seconds:.3f}", more[1], f"{work / seconds:.0f}"]
    return "| " + " | ".join(map(str, [*cells, f"{memory:.0f}", more[2]])) + " |"


if __name__ == "__main__":
    main()

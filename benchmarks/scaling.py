"""Do time and memory grow with the arithmetic: by batch, side, text length and depth?

    python -m benchmarks.scaling [--row ROW] [--depth N] [--rounds N] [--training]

One of them varies at a time, from L-DIT ViT-B with two blocks, 512 px, 20 tokens, batch 1, float32.
GFLOP counts products (`benchmarks/arithmetic.py`), s is a median, both also as multiples of the
first row of their table; "temporary" is what XLA sets aside besides parameters and inputs.
"""

import argparse
import platform

import jax

from benchmarks import synthetic
from benchmarks.arithmetic import forward_flops
from dit_jax.train.allocator import keep_freed_memory

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
    flops = setting["batch"] * forward_flops(arch, size=size, tokens=tokens) * (1 + 2 * training)
    if not training:
        program = model.forward.lower(model.params, batch).compile()
        seconds = synthetic.median_seconds(lambda: program(model.params, batch), rounds=rounds)
    else:
        state = model.start()
        program = model.training.lower(state, batch).compile()

        def step():
            nonlocal state
            state, loss = program(state, batch)
            return loss

        seconds = synthetic.median_seconds(step, rounds=rounds)
    temporary = program.memory_analysis().temp_size_in_bytes
    return flops / 1e9, seconds, temporary / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--row", default="ldit_vit_b")
    parser.add_argument("--depth", type=int, default=BASE["depth"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--training", action="store_true")
    options = parser.parse_args()
    keep_freed_memory()
    base = BASE | {"depth": options.depth}
    what = "training step" if options.training else "forward"
    print(f"{options.row}, {what}, {jax.default_backend()} ({platform.machine()})\n")
    for name, values in SWEEPS.items():
        print(f"| {name} | GFLOP | × | s | × | GFLOP/s | temporary MiB | × |")
        print("|---|---|---|---|---|---|---|---|")
        first = None
        for value in values:
            about = dict(row=options.row, rounds=options.rounds, training=options.training)
            flops, seconds, memory = measure(base | {name: value}, **about)
            first = first or (flops, seconds, memory)
            print(
                f"| {value} | {flops:.0f} | {flops / first[0]:.2f} | {seconds:.3f} |"
                f" {seconds / first[1]:.2f} | {flops / seconds:.0f} | {memory:.0f} |"
                f" {memory / first[2]:.2f} |",
                flush=True,
            )
        print()


if __name__ == "__main__":
    main()

"""L-DIT on a CPU in float32: dit_jax beside PyTorch with explicit and with fused attention.

    python -m benchmarks.cpu_peers [--what forward|training] [--row ROW] [--size N] [--batch N]
        [--depth N] [--rounds N] [--cores N] [--allocator kept|default] [--bfloat16]

Every contestant lives in a process of its own with the same threads and the same allocator
settings; they take turns, one step a round. Times are medians over the rounds, ratios are medians
of the rounds' own ratios, memory is the most that the process ever held (VmHWM), weights, libraries
and compilation included. Processor seconds count all threads: other work on the machine disturbs
them less than it does the wall clock, most of all with `--cores 1`. A training step is forward,
mean cross-entropy, backward, clipping and Adam; dropout and moving average are off in all of them.
Beside them both libraries compute nothing but the products with the encoder's weights: what is left
is all that a better program could save. `--bfloat16` compares products of numbers rounded to
bfloat16 (`model.products`, PyTorch's autocast), for CPUs with AVX512-BF16 or AMX.
Needs requirements-dev.txt. The page is benchmarks/results/cpu_peers_*.md.
"""

import argparse
import dataclasses
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

CONTESTANTS = ("dit_jax", "PyTorch, explicit", "PyTorch, fused")
ROUNDED = "dit_jax, bfloat16 products", "PyTorch, fused, autocast"
TOKENS = 20
Step = Callable[[], float]
Times = tuple[float, float]  # wall clock and processor


@dataclasses.dataclass(frozen=True)
class Setting:
    """What every contestant is asked to do."""

    row: str
    size: int
    batch: int
    training: bool
    kept: bool  # freed memory stays with the process
    cores: int
    depth: int | None  # blocks of the image encoder, instead of the row's


def architecture(setting: Setting):
    """The row with one layer of BERT, the released code's; the others would only fill memory."""
    from dit_jax import variants

    row = variants.VARIANTS[setting.row]
    arch = variants.architecture(row, image_size=setting.size, text_layer=1)
    arch = dataclasses.replace(arch, bert=dataclasses.replace(arch.bert, depth=1))
    if setting.depth is None:
        return arch
    deep = tuple(i for i in arch.vit.global_blocks if i < setting.depth)
    vit = dataclasses.replace(arch.vit, depth=setting.depth, global_blocks=deep)
    return dataclasses.replace(arch, vit=vit)


def example(setting: Setting) -> tuple[np.ndarray, ...]:
    """Images, ids, mask and target, the same for everybody."""
    rng = np.random.default_rng(0)
    shape = (setting.batch, setting.size, setting.size)
    images = rng.standard_normal((*shape, 3), np.float32)
    ids = rng.integers(1, 200, (setting.batch, TOKENS)).astype(np.int32)
    target = (rng.random(shape) < 0.2).astype(np.float32)
    return images, ids, np.ones_like(ids), target


def jax_step(setting: Setting, products: str | None = None) -> Step:
    import jax
    import jax.numpy as jnp

    from dit_jax.models import params as parameters
    from dit_jax.train import optim

    arch = dataclasses.replace(architecture(setting), products=products)
    graph, _ = parameters.structure(arch)
    params = jax.tree.map(jnp.asarray, parameters.init(arch))
    images, ids, mask, target = map(jnp.asarray, example(setting))
    if not setting.training:
        run = jax.jit(lambda params: parameters.merge(graph, params)(images, ids, mask).logits)
        return lambda: float(run(params)[0, 0, 0])
    trainable, frozen = optim.partition(params, ())
    state = trainable, optim.direction(rules()).init(trainable)
    step = jax.jit(jax_update(graph, rules()), donate_argnums=0)

    def run() -> float:
        nonlocal state
        state, loss = step(state, frozen, (images, ids, mask, target))
        return float(loss)

    return run


def rules():
    """Of an update: the quickstart's for PyTorch's Adam."""
    from dit_jax.config import Config
    from dit_jax.configs import quickstart

    optim = Config.from_dict(quickstart.get_config()).optim
    return dataclasses.replace(optim, name="adam", lr=1e-4, betas=(0.9, 0.999), clip=1.0)


def jax_update(graph, rules):
    import jax

    from dit_jax.train import optim, step

    def update(state, frozen, batch):
        trainable, moments = state
        names = ("images", "input_ids", "attention_mask", "target")
        inputs = dict(zip(names, batch, strict=True))
        metrics, grads = step.loss_and_grads(graph, trainable, frozen, inputs, None)
        grads, _ = optim.clip(grads, rules.clip)
        direction, moments = optim.direction(rules).update(grads, moments)
        trainable = jax.tree.map(lambda p, d: p - rules.lr * d, trainable, direction)
        return (trainable, moments), metrics["loss"]

    return update


def torch_step(setting: Setting, attention: str) -> Step:
    import torch
    import torch.nn.functional as F

    from benchmarks.torch_ldit import LDit
    from dit_jax.models import params as parameters

    arch, how = architecture(setting), rules()
    model = LDit(arch, attention=attention).load(parameters.init(arch))
    images, ids, mask, target = map(torch.from_numpy, example(setting))
    images = images.permute(0, 3, 1, 2).contiguous()
    if not setting.training:

        def forward() -> float:
            with torch.inference_mode():
                return float(model(images, ids, mask)[0, 0, 0])

        return forward
    adam = torch.optim.Adam(model.parameters(), lr=how.lr, betas=how.betas, eps=how.eps)

    def update() -> float:
        adam.zero_grad(set_to_none=True)
        loss = F.binary_cross_entropy_with_logits(model(images, ids, mask), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), how.clip)
        adam.step()
        return loss.item()

    return update


def in_bfloat16(step: Step) -> Step:
    """A step of PyTorch's, with its autocast."""
    import torch

    def run() -> float:
        with torch.autocast("cpu", torch.bfloat16):
            return step()

    return run


def products(setting: Setting) -> Iterator[tuple[np.ndarray, ...]]:
    """Input, weight and output of every product with a weight of a block of the image encoder."""
    from dit_jax.models.architecture import PATCH

    vit = architecture(setting).vit
    rng, rows, d = np.random.default_rng(0), setting.batch * (setting.size // PATCH) ** 2, vit.width
    for n, out in ((d, 3 * d), (d, d), (d, 4 * d), (4 * d, d)):
        yield tuple(rng.random(shape, np.float32) for shape in ((rows, n), (n, out), (rows, out)))


def jax_products(setting: Setting) -> Step:
    import jax
    import jax.numpy as jnp

    depth = architecture(setting).vit.depth
    arguments = [tuple(map(jnp.asarray, arrays)) for arrays in products(setting)]

    @jax.jit
    def compute(x, w, y):
        return (x @ w, y @ w.T, x.T @ y) if setting.training else x @ w

    def run() -> float:
        for _ in range(depth):
            jax.block_until_ready([compute(*arrays) for arrays in arguments])
        return 0.0

    return run


def torch_products(setting: Setting) -> Step:
    import torch

    depth = architecture(setting).vit.depth
    arguments = [tuple(map(torch.from_numpy, arrays)) for arrays in products(setting)]

    def compute(x, w, y):
        return (x @ w, y @ w.T, x.T @ y) if setting.training else x @ w

    def run() -> float:
        with torch.inference_mode():
            for _ in range(depth):
                for arrays in arguments:
                    compute(*arrays)
        return 0.0

    return run


MAKERS: dict[str, Callable[[Setting], Step]] = {
    "dit_jax": jax_step,
    "PyTorch, explicit": lambda setting: torch_step(setting, "explicit"),
    "PyTorch, fused": lambda setting: torch_step(setting, "fused"),
    "JAX, products alone": jax_products,
    "PyTorch, products alone": torch_products,
    ROUNDED[0]: lambda setting: jax_step(setting, "bfloat16"),
    ROUNDED[1]: lambda setting: in_bfloat16(torch_step(setting, "fused")),
}


def work(name: str, setting: Setting, pipe: Connection) -> None:
    """A contestant's process: one step for every message, until told to end."""
    from dit_jax.allocator import keep_freed_memory

    if setting.kept and not keep_freed_memory():
        raise OSError("this C library is not glibc; use --allocator=default.")
    cores = sorted(os.sched_getaffinity(0))[: setting.cores]
    os.sched_setaffinity(0, cores)  # before either library counts them for its threads
    step = MAKERS[name](setting)
    value = step()
    pipe.send(value)
    while pipe.recv():
        start = time.perf_counter(), time.process_time()
        step()
        pipe.send((time.perf_counter() - start[0], time.process_time() - start[1]))
    pipe.send(peak())


def peak() -> float:
    """GiB that this process held at most (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**20


def compare(
    setting: Setting, names: Sequence[str], *, rounds: int
) -> tuple[dict[str, list[Times]], dict[str, float]]:
    """Seconds of every round and peak GiB of these of `MAKERS`; those of `CONTESTANTS` must agree
    in their first steps."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for name in names:
        pipes[name], theirs = context.Pipe()
        processes.append(context.Process(target=work, args=(name, setting, theirs), daemon=True))
        processes[-1].start()
        theirs.close()
    values = {name: pipe.recv() for name, pipe in pipes.items()}
    found = [values[name] for name in CONTESTANTS if name in values]
    if np.ptp(found) > 1e-3 * max(map(abs, found)):
        raise ValueError(f"the contestants do not compute the same: {values}")
    seconds = {name: [] for name in names}
    for number in range(rounds + 1):
        for name, pipe in pipes.items():
            pipe.send(True)
            elapsed = pipe.recv()
            if number:  # the first round warms up
                seconds[name].append(elapsed)
    memory = {}
    for name, pipe in pipes.items():
        pipe.send(False)
        memory[name] = pipe.recv()
    for process in processes:
        process.join()
    return seconds, memory


def report(seconds: dict[str, list[Times]], memory: dict[str, float]) -> str:
    lines = [
        "| | s | fastest | dit_jax is faster, times | processor s | times | peak GiB |",
        "|---|---|---|---|---|---|---|",
    ]
    ours = tuple(zip(*seconds["dit_jax"], strict=True))
    for name, rows in seconds.items():
        theirs = tuple(zip(*rows, strict=True))
        wall, processor = (
            (statistics.median(b), statistics.median(y / x for x, y in zip(a, b, strict=True)))
            for a, b in zip(ours, theirs, strict=True)
        )
        shown = f"{wall[0]:.2f} | {min(theirs[0]):.2f} | {wall[1]:.2f} | {processor[0]:.2f}"
        lines.append(f"| {name} | {shown} | {processor[1]:.2f} | {memory[name]:.2f} |")
    return "\n".join(lines)


def main() -> None:
    from benchmarks.page import Page  # JAX does not belong into PyTorch's processes

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", choices=("forward", "training"), default="forward")
    parser.add_argument("--row", default="ldit_vit_b")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--depth", type=int)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--allocator", choices=("kept", "default"), default="kept")
    parser.add_argument("--bfloat16", action="store_true")
    options = parser.parse_args()
    training, kept = options.what == "training", options.allocator == "kept"
    setting = Setting(
        options.row, options.size, options.batch, training, kept, options.cores, options.depth
    )
    about = f"{options.row}, {options.what}, float32, {options.size} px, batch {options.batch}"
    names, name = [name for name in MAKERS if name not in ROUNDED], f"cpu_peers_{options.what}"
    if options.bfloat16:
        names, name = ["dit_jax", ROUNDED[0], "PyTorch, explicit", ROUNDED[1]], f"{name}_bfloat16"
    with Page(name, f"Beside PyTorch on a CPU: {about}") as page:
        kind = "that keep freed memory" if kept else "of the C library"
        page.add(f"Medians of {options.rounds} rounds; {setting.cores} cores, allocators {kind}.\n")
        page.add(report(*compare(setting, names, rounds=options.rounds)))


if __name__ == "__main__":
    main()

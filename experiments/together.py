"""Train several seeds of a config as one program on one device: for models too small to fill one.

    python -m experiments.together --config=configs/miniature.py:ldit_vit_b --seeds=0,1,2 \\
        --workdir=runs/ldit

A seed's run is that of `launch.py --config.seed=SEED --workdir=WORKDIR-SEED`, but for the order of
sums: same data, same first weights, same updates. The seeds' states lie side by side, and one
program makes as many steps as lie between two lines of the log, so that a GPU does not wait for its
host. It leaves metrics.jsonl, the last parameters as `model/`, and areas.json: the intersection and
union of every picture of each split. It takes minutes, saves nothing in between, and stops where a
loss is no number.
"""

import contextlib
import dataclasses
import fcntl
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jaxtyping import Array, Int
from ml_collections import config_flags

from dit_jax.config import Config
from dit_jax.data.pipeline import eval_batches, expression_table
from dit_jax.eval.protocols import logit
from dit_jax.models import params as parameters
from dit_jax.models.params import Params
from dit_jax.ops.mesh import use_mesh
from dit_jax.ops.pixels import inside, normalize
from dit_jax.train import state as states
from dit_jax.train.logs import provenance
from dit_jax.train.placement import compile_cache
from dit_jax.train.run import Run
from dit_jax.train.sources import Scored
from dit_jax.train.state import TrainState
from dit_jax.train.step import USED, Batch
from dit_jax.weights import directory

AREAS = "areas.json"

Lines = list[dict[str, float]]  # of metrics.jsonl


def main(_: list[str]) -> None:
    options = flags.FLAGS
    config = Config.from_dict(options.config)
    compile_cache.keep_compiled(config.compile_cache, Path(options.workdir))
    seeds = {int(seed): Path(f"{options.workdir}-{seed}") for seed in options.seeds}
    train(config, seeds, streams=Path(options.streams) if options.streams else None)


def train(config: Config, seeds: dict[int, Path], *, streams: Path | None = None) -> None:
    """Train and score; `seeds` says where each one's run is."""
    configs = [dataclasses.replace(config, seed=seed) for seed in seeds]
    runs = [Run.of(one, at) for one, at in zip(configs, seeds.values(), strict=True)]
    state, lines = trained(runs, streams)
    params = states.evaluated(state)
    on_host = jax.device_get(params)
    for number, run in enumerate(runs):
        own = jax.tree.map(lambda leaf, n=number: leaf[n], on_host)
        write(run, own, lines[number])
    count = counting(runs[0])
    found = {split.name: areas(runs[0], count, params, split) for split in runs[0].datasets.splits}
    for number, run in enumerate(runs):
        table = {name: listed(pairs[number]) for name, pairs in found.items()}
        (run.workdir / AREAS).write_text(json.dumps(table) + "\n")


def trained(runs: list[Run], streams: Path | None) -> tuple[TrainState, list[Lines]]:
    """The last states, stacked, and each run's lines."""
    first, every = runs[0], runs[0].config.train.log_every
    placement = jax.tree.map(lambda leaf: leaf.sharding, first.abstract_state())
    state = stack([jax.device_get(run.first_state(placement)) for run in runs])
    keys = jnp.stack([jax.random.key(run.config.seed) for run in runs])
    update = first.update()

    def each(state: TrainState, batch: Batch):
        if len(runs) > 1:
            return jax.vmap(update)(state, batch, keys)
        # What a step leaves out stays left out: vmap would compute both branches of a condition.
        one = update(
            jax.tree.map(lambda x: x[0], state), {k: x[0] for k, x in batch.items()}, keys[0]
        )
        return jax.tree.map(lambda x: x[None], one)

    several = jax.jit(lambda state, batches: jax.lax.scan(each, state, batches), donate_argnums=0)
    chunks = stacked(runs, every, streams)
    chunk = next(chunks)
    whole, count = several.lower(state, chunk).compile(), len(chunk["mask"])
    lines, waiting, done = [[] for _ in runs], [], 0
    with turn(streams):
        clock = time.monotonic()
        for batches in itertools.chain([chunk], chunks):
            program = whole if len(batches["mask"]) == count else several
            state, metrics = program(state, batches)
            done += len(batches["mask"])
            # The device works on these steps while the host makes the next ones.
            waiting.append((done, metrics))
            if len(waiting) > 1:
                clock = note(lines, *waiting.pop(0), since=clock)
        note(lines, *waiting.pop(), since=clock)
    return state, lines


@contextlib.contextmanager
def turn(streams: Path | None) -> Iterator[None]:
    """Alone on the device, of those with the same folder: in turns, each step of two programs takes
    longer than both one after the other."""
    if streams is None:
        yield
        return
    with (streams / "turn").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def stacked(runs: list[Run], every: int, streams: Path | None) -> Iterator[Batch]:
    """[steps, runs, b, …] of at most `every` steps at a time."""
    for chunks in zip(*(stream(run, every, streams) for run in runs), strict=True):
        yield {key: np.stack([chunk[key] for chunk in chunks], axis=1) for key in USED}


def note(lines: list[Lines], step: int, metrics: dict[str, Array], *, since: float) -> float:
    """Add a line to each run's, and return when; raises ValueError where a loss is no number."""
    values = jax.device_get(metrics)
    now = time.monotonic()
    each = (now - since) / len(values["loss"])
    for number, own in enumerate(lines):
        mean = {f"train/{key}": float(value[:, number].mean()) for key, value in values.items()}
        if not np.isfinite(mean["train/loss"]):
            raise ValueError(f"a loss of the steps up to {step} is no number; expected all finite.")
        own.append({"step": step, **mean, "train/lr": float(values["lr"][-1, number])})
    shown = ", ".join(f"{own[-1]['train/loss']:.4f}" for own in lines)
    print(f"step {step}: loss {shown}; {1e3 * each:.1f} ms a step", flush=True)
    return now


def stream(run: Run, every: int, streams: Path | None) -> Iterator[Batch]:
    """What a run's steps read, [steps, b, …] of at most `every` steps at a time."""
    if streams is not None:
        kept = keep(run, streams)
    for start in range(0, run.total, every):
        stop = min(start + every, run.total)
        if streams is not None:
            yield {key: values[start:stop] for key, values in kept.items()}
        else:
            batches = [next(run.batches) for _ in range(start, stop)]
            yield {key: np.stack([batch[key] for batch in batches]) for key in USED}
    run.batches.close()


def keep(run: Run, streams: Path) -> dict[str, np.ndarray]:
    """A run's batches as files, [steps, b, …] each; one process makes them, others wait."""
    folder = streams / str(run.config.seed)
    folder.mkdir(parents=True, exist_ok=True)
    told = json.dumps({**run.batches.get_state(), "next_batch": 0, "steps": run.total})
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "stream.json"
        if not done.is_file() or done.read_text() != told:
            files: dict[str, np.ndarray] = {}
            for step in range(run.total):
                batch = next(run.batches)
                for key in USED:
                    if not step:
                        shape = (run.total, *batch[key].shape)
                        about = dict(mode="w+", dtype=batch[key].dtype, shape=shape)
                        files[key] = np.lib.format.open_memmap(folder / f"{key}.npy", **about)
                    files[key][step] = batch[key]
            done.write_text(told)
    return {key: np.load(folder / f"{key}.npy", mmap_mode="r") for key in USED}


def stack(trees: list):
    """On the host: there is a program for each shape else."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def write(run: Run, params: Params, lines: Lines) -> None:
    run.workdir.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run.workdir / "metrics.jsonl").write_text(text)
    origin = provenance.record(run.settings(), run.model.mesh)
    directory.save(
        run.workdir / "model",
        run.model.arch,
        params,
        vocab=run.model.tokenizer.vocab_path,
        provenance={"step": run.total, **run.meta(), **origin},
        overwrite=True,
    )


def counting(run: Run) -> Callable[[Params, Batch], Int[Array, "runs b 2"]]:
    """The program that counts each answer's intersection and union, by stacked parameters."""
    model, threshold = run.model, logit(run.config.eval.threshold)

    def of(params: Params, batch: Batch) -> Int[Array, "b 2"]:
        images = normalize(batch["image"], batch["content"])
        words = batch["input_ids"], batch["attention_mask"]
        with use_mesh(model.mesh):
            said = parameters.merge(model.graph, params)(images, *words)
        within = inside(batch["content"], model.arch.image_size)
        found, truth = within & (said.logits > threshold), within & (batch["mask"] > 127)
        return jnp.stack([(found & truth).sum((1, 2)), (found | truth).sum((1, 2))], axis=-1)

    return jax.jit(jax.vmap(of, in_axes=(0, None)))


def areas(
    run: Run, count: Callable[[Params, Batch], Array], params: Params, split: Scored
) -> Int[np.ndarray, "runs pictures 2"]:
    """Intersection and union, summed over each picture's expressions, of pictures as large as
    their canvas; pictures in their order."""
    source, size = split.open(), run.model.arch.image_size
    referents = expression_table(source)[:, 0]
    pictures = np.unique(source.image_ids()[referents], return_inverse=True)[1]
    about = dict(size=size, batch_size=run.config.eval.batch_size)
    total = 0
    for batch in eval_batches(source, run.model.tokenizer, **about):
        if not (batch["content"][:, 2:].max(axis=1) == size).all():
            raise ValueError(f"pictures of {split.key} are scaled; expected a long side of {size}.")
        pairs = np.asarray(count(params, {key: batch[key] for key in USED}))[:, batch["valid"]]
        rows = np.zeros((len(pairs), pictures.max() + 1, 2), int)
        np.add.at(rows, (slice(None), pictures[batch["index"][batch["valid"]]]), pairs)
        total = total + rows
    return total


def listed(pairs: Int[np.ndarray, "pictures 2"]) -> dict[str, list[int]]:
    return {"intersection": pairs[:, 0].tolist(), "union": pairs[:, 1].tolist()}


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "FILE[:ARGS]")
    flags.DEFINE_list("seeds", ["0"], "Trained side by side.")
    flags.DEFINE_string("workdir", None, "A seed's run is in WORKDIR-SEED.")
    flags.DEFINE_string("streams", None, "Keeps each seed's batches, for others of the same data.")
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)

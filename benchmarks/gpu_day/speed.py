"""Milliseconds and memory of forward passes and training steps: a worker of `benchmarks.gpu_day`.

    python -m benchmarks.gpu_day.speed --only "ldit_vit_b training none" "ldit_vit_b forward none"

A key is a row, what is timed, and what is rematerialised, or `fp8`: products of 8 bits. Synthetic
batches of 64 at 512 px, 20 tokens, bfloat16, one layer of BERT, no dropout; `tiny` is for CPUs. The
programs of a row are compiled side by side, then timed one by one: steps that follow one another.
"""

import concurrent.futures
import dataclasses
import functools
import itertools
import os
import threading

import jax

from benchmarks import synthetic
from benchmarks.gpu_day import worker


def compiled(model: synthetic.Model, batch: synthetic.Batch, key: str, lock: threading.Lock):
    """The program of a key; kernels are compared while it is traced, one at a time."""
    _, what, how = key.split()
    with lock:
        if what == "forward":
            lowered = model.forward.lower(model.params, batch)
        else:
            remat = "none" if how == "fp8" else how
            lowered = model.training(remat=remat).lower(jax.eval_shape(model.start), batch)
    return lowered.compile()


def measured(program, model: synthetic.Model, batch: synthetic.Batch, *, what: str, steps: int):
    about = program.memory_analysis()
    set_aside = about and (about.temp_size_in_bytes + about.argument_size_in_bytes) / 2**30
    found = {"batch": len(batch["images"]), "GiB": set_aside}
    try:
        return found | {"ms": 1e3 * timed(program, model, batch, what=what, steps=steps)}
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return found | {"error": "out of memory"}


def timed(program, model: synthetic.Model, batch: synthetic.Batch, *, what: str, steps: int):
    if what == "forward":
        return synthetic.seconds(lambda: program(model.params, batch), steps)
    state = model.start()

    def step():
        nonlocal state
        state, loss = program(state, batch)
        return loss

    return synthetic.seconds(step, steps)


def main() -> None:
    for row, keys in itertools.groupby(worker.parsed(__doc__).only, lambda key: key.split()[0]):
        answer(row, list(keys), **worker.sizes(row))


def answer(row: str, keys: list[str], *, size: int, batch: int, steps: int) -> None:
    dtype = "float32" if row == "tiny" else "bfloat16"
    arch = synthetic.architecture(row, image_size=size, dtype=dtype)
    model = synthetic.Model(arch)
    in_fp8 = synthetic.Model(dataclasses.replace(arch, products="fp8"), model.params)
    models = {key: in_fp8 if key.endswith(" fp8") else model for key in keys}
    arrays = synthetic.batch(size=size, count=batch, tokens=worker.TOKENS)
    lock = threading.Lock()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        programs = {key: pool.submit(compiled, models[key], arrays, key, lock) for key in keys}

    def of(key: str) -> dict:
        program = programs.pop(key).result()
        return measured(program, models[key], arrays, what=key.split()[1], steps=steps)

    # Only now: while it compiles, XLA tries kernels on the device.
    for key in keys:
        worker.answer(key, functools.partial(of, key))


if __name__ == "__main__":
    main()

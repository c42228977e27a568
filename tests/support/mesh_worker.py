"""Three training steps of a small model on meshes of several devices; run as a program.

    python tests/support/mesh_worker.py OUT CASES [PORT PROCESSES RANK]

CASES is JSON: a list of [name, injection, [data, fsdp, tensor]], and perhaps a policy of
rematerialisation, for a model of four blocks instead of two. For each, OUT/NAME.npz holds loss,
gradient norm, first gradients, parameters and moments, and OUT/NAME.json the share of every array
that one device holds. The state after the first step of the case that is called "stopped" is saved
in OUT/stopped, from where `go_on` makes the other two.
"""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

STOPPED = "stopped"


def main(out: str, cases: str, port: str = "", count: str = "1", rank: str = "0") -> None:
    if int(count) > 1:
        from dit_jax.train.placement import cluster

        cluster.join(
            coordinator=f"localhost:{port}", num_processes=int(count), process_id=int(rank)
        )
    for name, injection, shape, *remat in json.loads(cases):
        with small(depth=4 if remat else 2):
            run = run_of(injection, shape, *remat)
            values, shares = three_steps(run, save_in=Path(out, name) if name == STOPPED else None)
        if int(rank) == 0:
            np.savez(Path(out, f"{name}.npz"), **values)
            Path(out, f"{name}.json").write_text(json.dumps(shares))


@contextlib.contextmanager
def small(*, depth: int = 2) -> Iterator[None]:
    from runs import shrink

    from dit_jax.models import initial
    from dit_jax.train.placement import sharding

    with pytest.MonkeyPatch.context() as patch:
        # Projections start at zero, cross_attention's at one: words whose channels are all equal,
        # which norms divide by little more than ε. With cross_attention's, 1e-6, parameters that
        # differ by 1e-9 then change the loss by 1e-5. So start where rounding stays rounding.
        patch.setattr(initial, "zeros", near(0.0))
        patch.setattr(initial, "ones", near(1.0))
        patch.setattr(sharding, "SMALLEST_SHARDED", 2**10)  # the test's parameters are small
        shrink(patch, depth=depth)
        yield


def near(value: float):
    """As an entry of `initial.table`."""
    return lambda rng, shape: np.float32(value + 0.02 * rng.standard_normal(shape))


def run_of(injection: str, shape: tuple[int, int, int], remat: str = "none"):
    """A `Run` over all devices, or over one."""
    from runs import config_of

    from dit_jax.train.run import Run

    mesh = dict(zip(("mesh__data", "mesh__fsdp", "mesh__tensor"), shape, strict=True))
    # A key's bias has no gradient; with Adam's usual ε, rounding noise would take full steps.
    settings = dict(optim__eps=1e-4, model__presence=True, model__injection=injection)
    settings |= dict(model__dropout=True)  # drawn by a row's place in the global batch
    settings |= dict(model__remat=remat)
    devices = jax.devices()[:1] if tuple(shape) == (1, 1, 1) else jax.devices()
    return Run.of(config_of(**mesh, **settings), Path("unused"), devices=devices)


def three_steps(run, *, save_in: Path | None = None) -> tuple[dict, dict]:
    """(values, shares) by name."""
    from runs import train_step_of

    from dit_jax.train.checkpoint import Checkpoints
    from dit_jax.train.placement import sharding

    # One program for all arrays, where `hosts.allgather` has one for each.
    everywhere = jax.jit(lambda arrays: arrays, out_shardings=sharding.replicated(run.model.mesh))
    placement, train_step = train_step_of(run)
    state, _, _ = made = step(run, run.first_state(placement), train_step)
    # The first moment after one step is the gradient, times 1 - β₁; the state is donated.
    gradients = jax.device_get(everywhere(named("grads", state.opt_state.mu)))
    if save_in is not None:
        with Checkpoints(save_in, run.config.checkpoint) as checkpoints:
            checkpoints.save(state, step=1, data=run.batches.get_state(), meta={})
    for _ in range(2):
        made = step(run, made[0], train_step)
    run.batches.close()
    arrays = results(*made[:2])
    shares = {key: share(value) for key, value in arrays.items()}
    values = gradients | jax.device_get(everywhere(arrays))
    return values, shares | {"batch": share(made[2]["image"])}


def go_on(run, folder: Path) -> dict:
    """The values after two more steps from the state that was saved after the first."""
    from runs import train_step_of

    from dit_jax.train.checkpoint import Checkpoints

    _, train_step = train_step_of(run)
    with Checkpoints(folder, run.config.checkpoint) as checkpoints:
        state, data = checkpoints.restore(1, run.abstract_state())
    run.batches.set_state(data)
    for _ in range(2):
        state, metrics, _ = step(run, state, train_step)
    run.batches.close()
    return jax.device_get(results(state, metrics))


def step(run, state, train_step) -> tuple:
    """(state, metrics, batch) of the next step."""
    from dit_jax.train import step as steps

    batch = steps.place_batch(next(run.batches), run.model.mesh)
    return *train_step(state, batch, jax.random.key(0)), batch


def results(state, metrics) -> dict[str, jax.Array]:
    arrays = {key: metrics[key] for key in ("loss", "grad_norm", "presence_loss")}
    trees = {"params": state.trainable, "mu": state.opt_state.mu, "ema": state.ema}
    for tree, leaves in trees.items():
        arrays |= named(tree, leaves)
    return arrays


def named(tree: str, arrays) -> dict[str, jax.Array]:
    from dit_jax.models import params as parameters

    return {f"{tree}.{key}": value for key, value in parameters.flatten(arrays).items()}


def share(array: jax.Array) -> float:
    return array.addressable_shards[0].data.size / array.size


if __name__ == "__main__":
    main(*sys.argv[1:])

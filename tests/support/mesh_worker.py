"""Three training steps of a small model on meshes of several devices; run as a program.

    python tests/support/mesh_worker.py OUT CASES [PORT PROCESSES RANK]

CASES is JSON: a list of [name, injection, [data, fsdp, tensor]], and perhaps a policy of
rematerialisation, for a model of four blocks instead of two. For each, OUT/NAME.npz holds loss,
gradient norm, first gradients, parameters and moments, and OUT/NAME.json the share of every array
that one device holds.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest


def main(out: str, cases: str, port: str = "", count: str = "1", rank: str = "0") -> None:
    if int(count) > 1:
        from dit_jax.train.placement import cluster

        cluster.join(
            coordinator=f"localhost:{port}", num_processes=int(count), process_id=int(rank)
        )
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
        for name, injection, shape, *remat in json.loads(cases):
            shrink(patch, depth=4 if remat else 2)
            values, shares = three_steps(injection, shape, *remat)
            if int(rank) == 0:
                np.savez(Path(out, f"{name}.npz"), **values)
                Path(out, f"{name}.json").write_text(json.dumps(shares))


def near(value: float):
    """As an entry of `initial.table`."""
    return lambda rng, shape: np.float32(value + 0.02 * rng.standard_normal(shape))


def three_steps(
    injection: str, shape: tuple[int, int, int], remat: str = "none"
) -> tuple[dict, dict]:
    from runs import config_of, train_step_of

    from dit_jax.train import step as steps
    from dit_jax.train.placement import hosts
    from dit_jax.train.run import Run

    mesh = dict(zip(("mesh__data", "mesh__fsdp", "mesh__tensor"), shape, strict=True))
    # A key's bias has no gradient; with Adam's usual ε, rounding noise would take full steps.
    settings = dict(optim__eps=1e-4, model__presence=True, model__injection=injection)
    settings |= dict(model__dropout=True)  # drawn by a row's place in the global batch
    settings |= dict(model__remat=remat)
    config = config_of(**mesh, **settings)
    devices = jax.devices()[:1] if shape == [1, 1, 1] else jax.devices()
    run = Run.of(config, Path("unused"), devices=devices)
    placement, train_step = train_step_of(run)
    state = run.first_state(placement)
    gradients = {}
    for number in range(3):
        batch = steps.place_batch(next(run.batches), run.model.mesh)
        state, metrics = train_step(state, batch, jax.random.key(0))
        if number == 0:  # the first moment after one step is the gradient, times 1 - β₁
            gradients = hosts.allgather(named("grads", state.opt_state.mu))  # the state is donated
    run.batches.close()
    arrays = {key: metrics[key] for key in ("loss", "grad_norm", "presence_loss")}
    trees = {"params": state.trainable, "mu": state.opt_state.mu, "ema": state.ema}
    for tree, leaves in trees.items():
        arrays |= named(tree, leaves)
    shares = {key: share(value) for key, value in arrays.items()} | {"batch": share(batch["image"])}
    return gradients | hosts.allgather(arrays), shares


def named(tree: str, arrays) -> dict[str, jax.Array]:
    from dit_jax.models import params as parameters

    return {f"{tree}.{key}": value for key, value in parameters.flatten(arrays).items()}


def share(array: jax.Array) -> float:
    return array.addressable_shards[0].data.size / array.size


if __name__ == "__main__":
    main(*sys.argv[1:])

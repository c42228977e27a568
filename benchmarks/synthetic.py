"""Models and batches that need no data: rows of the variant table, random pictures and words."""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dit_jax import variants
from dit_jax.models import params as parameters
from dit_jax.models.architecture import Architecture
from dit_jax.ops.platform import compiler_options

Batch = dict[str, jax.Array]


def architecture(row: str, *, depth: int | None = None, **settings) -> Architecture:
    """A row with one layer of BERT (the released code's), and `depth` blocks where it is given."""
    arch = variants.architecture(variants.VARIANTS[row], text_layer=1, **settings)
    vit, bert = arch.vit, dataclasses.replace(arch.bert, depth=1)
    if depth is not None:
        deep = tuple(i for i in vit.global_blocks if i < depth)
        vit = dataclasses.replace(vit, depth=depth, global_blocks=deep)
    return dataclasses.replace(arch, vit=vit, bert=bert)


def batch(*, size: int, count: int, tokens: int) -> Batch:
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 200, (count, tokens)).astype(np.int32)
    return {
        "images": jnp.asarray(rng.standard_normal((count, size, size, 3), np.float32)),
        "ids": jnp.asarray(ids),
        "mask": jnp.ones_like(ids),
        "target": jnp.asarray((rng.random((count, size, size)) < 0.2).astype(np.float32)),
    }


class Model:
    """Parameters, fresh or given, and an architecture's two programs, compiled for a batch."""

    def __init__(self, arch: Architecture, params: parameters.Params | None = None):
        self.graph, _ = parameters.structure(arch)
        self.params = params or jax.tree.map(jnp.asarray, parameters.init(arch))
        self.adam = optax.adam(1e-4)

    def logits(self, params, batch: Batch, remat: str = "none"):
        model = parameters.merge(self.graph, params)
        return model(batch["images"], batch["ids"], batch["mask"], remat=remat).logits

    @functools.cached_property
    def forward(self):
        return jax.jit(self.logits, compiler_options=compiler_options())

    def training(self, *, remat: str = "none"):
        """(params, moments), batch → the same after one step of Adam; donated."""

        def loss(params, batch):
            logits = self.logits(params, batch, remat)
            return optax.sigmoid_binary_cross_entropy(logits, batch["target"]).mean()

        def step(state, batch):
            params, moments = state
            value, grads = jax.value_and_grad(loss)(params, batch)
            updates, moments = self.adam.update(grads, moments)
            return (optax.apply_updates(params, updates), moments), value

        return jax.jit(step, donate_argnums=0, compiler_options=compiler_options())

    def start(self):
        return jax.tree.map(jnp.copy, self.params), self.adam.init(self.params)


def seconds(run: Callable[[], object], steps: int) -> float:
    """A call's, of `steps` calls that follow one another, after three to warm up."""
    for _ in range(3):
        jax.block_until_ready(run())
    start = time.perf_counter()
    for _ in range(steps):
        last = run()
    jax.block_until_ready(last)
    return (time.perf_counter() - start) / steps


def median_seconds(run: Callable[[], object], *, rounds: int) -> float:
    """Of `rounds` calls after one to warm up; `run` returns what has to be ready."""
    jax.block_until_ready(run())
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)

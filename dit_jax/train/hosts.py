"""Several processes that share one run: what each has of an array, and what all have together."""

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Int64

from dit_jax.train import sharding


def own_rows(array: jax.Array, mesh: Mesh) -> jax.Array:
    """This process's rows of an array that is sharded as batches are."""
    if jax.process_count() == 1:
        return array
    return multihost_utils.global_array_to_host_local_array(array, mesh, sharding.BATCH)


def gather(table: Int64[np.ndarray, "n k"]) -> Int64[np.ndarray, "m k"]:
    """The rows of all processes, which bring equally many each.

    JAX computes in 32 bits, so each number travels as two halves.
    """
    halves = np.ascontiguousarray(table).view(np.int32)
    everything = np.asarray(multihost_utils.process_allgather(halves))
    return everything.reshape(-1, halves.shape[1]).view(np.int64)

"""Processes and devices: who takes part in a run, and what lies where.

In: a config's mesh, batches of this process. Out: arrays on devices. Read `sharding`, the mesh and
the table of where every parameter lives; `cluster` joins the other processes, `watch` ends them
together; `hosts` says which rows a process brings and what all have together; `feed` puts batches
on the devices ahead of time; `compile_cache` is a setting of this process.
"""

from dit_jax.train.placement import cluster, compile_cache, hosts, sharding, watch
from dit_jax.train.placement.feed import Feed

__all__ = ["Feed", "cluster", "compile_cache", "hosts", "sharding", "watch"]

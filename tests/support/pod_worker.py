"""One of several processes that work together, and what goes wrong with it; run by test_pod.py.

python tests/support/pod_worker.py PORT PROCESSES RANK TROUBLE…
"""

import os
import signal
import sys
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

from dit_jax import cli
from dit_jax.train.placement import cluster, watch

TURNS = 10  # until the trouble; without one, all end


def main(port: str, count: str, rank: str, *trouble: str) -> int:
    if "late" in trouble:
        time.sleep(float(os.environ["LATE"]))
    if "clock" in trouble:
        now = time.time
        time.time = lambda: now() - 7200
    jax.config.update("jax_platforms", "cpu")
    where = dict(num_processes=int(count), process_id=int(rank))
    cluster.join(coordinator=f"localhost:{port}", **where)
    with watch.together(cli.sentence):
        watch.same(lambda: {"--config.optim.lr": "2" if "other" in trouble else "1", "same": "x"})
        for _ in range(TURNS):
            multihost_utils.process_allgather(np.ones(3))
        if "killed" in trouble:
            os.kill(os.getpid(), signal.SIGKILL)
        if "full" in trouble:
            raise OSError(28, os.strerror(28), "/disk")
        if "stuck" in trouble:
            os.kill(os.getpid(), signal.SIGSTOP)
        multihost_utils.process_allgather(np.ones(3))
    return 0


if __name__ == "__main__":
    sys.exit(cli._sentences(lambda: main(*sys.argv[1:])))

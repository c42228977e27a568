"""One of several processes that score a fresh model together; run by test_hosts.py.

python tests/support/host_worker.py PORT PROCESSES RANK WORKDIR
"""

import sys
from pathlib import Path

import jax
import pytest


def main(port: str, count: str, rank: str, workdir: str) -> None:
    if int(count) > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"localhost:{port}", int(count), int(rank))
    from runs import config_of, shrink

    from dit_jax.data.shapes.dataset import VOCAB
    from dit_jax.models import params as parameters
    from dit_jax.train.model import Model
    from dit_jax.train.placement import sharding
    from dit_jax.train.scoring import Scorer
    from dit_jax.train.sources import Datasets

    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        # 14 expressions in batches of 4: the last batch of either process is not full.
        shapes = dict(length=8, eval_length=7, absent=0.3, seed=0)
        config = config_of(
            data__shapes=shapes, eval__batch_size=4, eval__protocols=("dit", "gres", "lavt")
        )
        model = Model.of(config.architecture(), VOCAB, sharding.make_mesh(config.mesh))
        params = jax.device_put(parameters.init(model.arch, seed=3), model.placement)
        datasets = Datasets.of(config.data, size=config.model.image_size)
        Scorer.of(config, Path(workdir), model=model, datasets=datasets).all(params, about=None)


if __name__ == "__main__":
    main(*sys.argv[1:])

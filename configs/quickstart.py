"""Tune L-DIT from `mini_sam` and `mini_bert` on drawn shapes, at 128 px: no download, no GPU.

    python launch.py --config=configs/quickstart.py --workdir=runs/quickstart

Under ten minutes on two CPU cores. Compare another way of injecting text under the same budget:
`--config.model.injection=none` (the paper's default fusion) or `e2e` (E-DIT), with its own workdir.
"""

from ml_collections import ConfigDict

from dit_jax.configs import scratch


def get_config() -> ConfigDict:
    config = scratch.get_config()
    config.model.update(variant="ldit_vit_b", backbone="mini", text_layer=4, presence=True)
    config.model.init.update(sam="mini_sam", bert="mini_bert")
    config.data.shapes.update(absent=0.15)
    config.optim.update(max_steps=2000, ema=0.995)
    config.eval.update(protocols=("original", "gres"), best="original", every_steps=1000)
    return config

"""Train the model that comes with the package, `mini`: the quickstart's, for 6,000 steps, with
clicks and with expressions of what is not there.

    python launch.py --config=configs/mini.py --workdir=runs/mini

An hour on one core. Afterwards it is put into the package by

    python -m experiments.ship mini runs/mini/model --scores=runs/mini
"""

from ml_collections import ConfigDict

from dit_jax.configs import quickstart


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    config.model.update(task="text+clicks", presence=True)
    config.data.shapes.update(length=500_000, absent=0.1)
    config.optim.update(max_steps=6000, rounds=3, click_share=0.1, ema=0.999)
    config.eval.update(
        protocols=("original", "gres", "click1", "click3", "click5"),
        best="original",
        every_steps=0,
    )
    return config

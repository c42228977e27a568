"""Train the model that comes with the package, `mini`: the quickstart's, for hours, with clicks.

    python launch.py --config=configs/mini.py --workdir=runs/mini

Afterwards `python -m experiments.ship mini runs/mini/model --scores=runs/mini` puts it there.
"""

from ml_collections import ConfigDict

from dit_jax.configs import quickstart


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    config.model.task = "text+clicks"
    config.data.shapes.length = 500_000
    config.optim.update(max_steps=20_000, rounds=3, click_share=0.25, ema=0.999)
    config.eval.update(
        protocols=("original", "gres", "click1", "click3", "click5"), every_steps=4000
    )
    return config

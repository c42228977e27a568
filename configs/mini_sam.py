"""Train a small SAM on points and boxes of the embedded data set, as SAM was trained.

    python launch.py --config=configs/mini_sam.py --workdir=runs/mini_sam

It learns what an object is, never what it is called.
"""

from ml_collections import ConfigDict

from dit_jax.configs import quickstart


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    config.model.update(task="prompts", backbone="mini")
    config.data.shapes.length = 200_000
    config.optim.update(name="adam", lr=7e-4, batch_size=16, warmup_epochs=0.016)
    config.optim.update(rounds=3, max_steps=4000, ema=0.999)
    config.eval.update(
        protocols=("box", "click1", "click1_oracle", "click3", "click5"),
        best="click3",
        every_steps=2000,
    )
    config.data.eval_splits = ("val",)
    return config

"""Train the model that comes with the package, `mini`: L-DIT from `mini_sam` and the first layer of
`mini_bert`, 7,000 steps, with clicks and with expressions of what is not there.

    python launch.py --config=configs/mini.py --workdir=runs/mini

Two hours on one core. Afterwards it is put into the package by

    python -m experiments.ship mini runs/mini/model --scores=runs/mini
"""

from ml_collections import ConfigDict

from dit_jax.configs import miniature


def get_config() -> ConfigDict:
    config = miniature.get_config("ldit_vit_b")
    # Nothing above the layer that is read: a quarter of the text encoder, and the same model.
    config.model.update(text_encoder="mini_first", task="text+clicks", presence=True)
    config.data.shapes.update(length=500_000, eval_length=256, absent=0.1)
    config.optim.update(max_steps=7000, rounds=3, click_share=0.1, ema=0.999, iou_weight=0.1)
    config.eval.update(
        protocols=("original", "gres", "click1", "click3", "click5"),
        best="original",
        every_steps=0,
    )
    config.train.update(log_every=100, pictures=12)
    return config

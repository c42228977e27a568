"""Train `tiny` L-DIT from scratch on the embedded data set, at 128 px: no download, no GPU.

    python launch.py --config=configs/quickstart.py --workdir=runs/quickstart

Under ten minutes on two CPU cores. Compare another way of injecting text under the same budget:
`--config.model.injection=none` (the paper's default fusion) or `e2e` (E-DIT), with its own workdir.
"""

from ml_collections import ConfigDict

from dit_jax.configs import base


def get_config() -> ConfigDict:
    config = base.recipe("ldit_vit_b", "official")
    config.model = base.model("tiny", text_layer=2, image_size=128)
    # From scratch and in minutes: attention learns faster if it need not find out what padding is,
    # and data without end need neither dropout nor augmentation.
    config.model.update(mask_padding=True, dropout=False)
    with config.unlocked():
        config.data.update(dataset="shapes", split_by="", source="", cache_dir="")
    config.data.eval_splits = ("val", "testA", "testB", "heldout")
    config.data.augmentation.update(scales=False, jitter_p=0.0, flip_p=0.0)
    config.data.shapes.update(length=100_000)
    config.optim.update(
        name="muon",  # half of Adam's steps, half as long again
        lr=1.5e-3,
        betas=(0.9, 0.98),
        eps=1e-8,
        schedule="cosine",
        warmup_epochs=0.016,  # 50 steps
        warmup_lr=1e-6,
        min_lr=1e-5,
        clip=10.0,
        ema=0.998,
        iou_weight=0.1,
        batch_size=32,
        max_steps=1750,
    )
    config.eval.update(batch_size=64, every_epochs=0.0, every_steps=875)
    config.checkpoint.update(every_steps=250)
    config.train.update(log_every=50, minutes=0.0)
    return config

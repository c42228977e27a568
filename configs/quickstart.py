"""Train `tiny` from scratch on the embedded data set, at 128 px: no download, no GPU.

python launch.py --config=configs/quickstart.py --workdir=runs/quickstart
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.recipe("ldit_vit_b", "official")
    config.model = base.model("tiny", text_layer=2, image_size=128)
    with config.unlocked():
        config.data.update(dataset="shapes", split_by="", source="", cache_dir="")
    config.data.eval_splits = ("val", "testA", "testB", "heldout")
    config.data.augmentation.update(scales=False, jitter=0.2)
    config.optim.update(
        lr=1e-3,
        betas=(0.9, 0.98),
        eps=1e-8,
        schedule="cosine",
        warmup_epochs=0.3,
        warmup_lr=1e-5,
        min_lr=1e-5,
        clip=1.0,
        ema=0.999,
        max_steps=1500,
    )
    config.eval.update(batch_size=64, every_epochs=0.0, every_steps=300)
    config.checkpoint.update(every_steps=300)
    config.train.update(log_every=10, minutes=0.0)
    return config

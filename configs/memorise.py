"""Can the pipeline learn at all? `tiny` memorises 16 expressions of a REFER folder, on two cores.

    python launch.py --config=configs/memorise.py --workdir=runs/memorise \\
        --config.data.source=REFER_FOLDER --config.model.vocab=vocab.txt --allow-leak

Trains and scores on the same first expressions of RefCOCO's val split: a check of data, model and
loss before a long run, not a result (`--allow-leak` says that this is known). Expect mIoU above 90
in a few minutes.
"""

from ml_collections import ConfigDict

from dit_jax.configs import base, quickstart


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    config.data = ConfigDict(base.refcoco(scales=False, blur_p=0.0))
    config.data.update(train_split="val", train_limit=6, eval_splits=("val",), eval_limit=16)
    config.data.leaks = "keep"
    config.data.augmentation.update(jitter_p=0.0, flip_p=0.0)
    config.model.update(vocab_size=30522)
    config.optim.update(name="adam", lr=7e-4, batch_size=16, max_steps=400, warmup_epochs=20.0)
    config.eval.update(every_steps=200)
    return config

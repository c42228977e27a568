"""Fine-tune on your own folder of pictures and annotations; the format is in docs/own-data.md.

    python launch.py --config=configs/own_data.py --workdir=runs/own \\
        --config.data.source=FOLDER --config.model.init.model=mini

`configs/own_data.py` fits `mini`, which comes with the package, `configs/own_data.py:tiny` the
quickstart's model. `configs/own_data.py:ROW` (ldit_vit_b, …) fits one that was converted from the
released code's, or trained in the `official` recipe: they read BERT's layer 1; for a model of the
`paper` recipe, add `--config.model.text_layer=12`. The rates are a fraction of the recipes',
because weights are improved here and not found.

From scratch, with data for thousands of steps: `--config.optim.lr=7e-4` and
`--config.model.vocab=dit_jax/data/shapes/vocab.txt`.
"""

from ml_collections import ConfigDict

from dit_jax import variants
from dit_jax.configs import base, mini, quickstart
from dit_jax.strict import one_of


def get_config(variant: str = "mini") -> ConfigDict:
    one_of("the row of configs/own_data.py", variant, ("mini", *variants.VARIANTS))
    small = variant in variants.SMALL
    config = quickstart.get_config() if small else base.recipe(variant, "official")
    if variant == "mini":
        config.model = mini.get_config().model
        config.model.task = "text"
        config.model.init.update(sam="", bert="")
    config.data = ConfigDict(base.refcoco(scales=True, blur_p=0.0))
    config.data.update(dataset="folder", split_by="", source="", eval_splits=("val",))
    config.model.presence = small  # as `mini` has it
    config.optim.update(
        name="adam",
        lr=3e-4 if small else 5e-5,
        warmup_lr=1e-6,
        min_lr=1e-6,
        warmup_epochs=1.0,
        epochs=20.0,
        ema=0.998,  # the last 500 steps or so: own folders are small
        iou_weight=0.1,
        batch_size=16,
        max_steps=0,
    )
    # "gres" also says how often the model sees that nothing is meant.
    config.eval.update(
        protocols=("original", "gres"), best="original", every_epochs=5.0, every_steps=0
    )
    config.checkpoint.update(every_steps=500)
    return config

"""A row of the paper's tables in miniature: tuned on the embedded data set from pre-trained parts.

    python launch.py --config=configs/miniature.py:ldit_vit_b_frozen --workdir=runs/ldit_frozen

Every row of ViT-B in `dit_jax/variants.py`, at 128 px, from `mini_sam` and `mini_bert` as
the paper's start from SAM and BERT; budget, data order and recipe are the same for all of them.
`python -m experiments.miniature` runs them all; docs/miniature.md has what came out.
"""

from ml_collections import ConfigDict

from dit_jax import variants
from dit_jax.configs import quickstart
from dit_jax.strict import one_of

ROWS = tuple(name for name, row in variants.VARIANTS.items() if row.backbone == "vit_b")


def get_config(row: str = "ldit_vit_b") -> ConfigDict:
    one_of("the row of configs/miniature.py", row, ROWS)
    config = quickstart.get_config()
    # As the released code: with BERT's last layer no row gets to know colors and shapes.
    config.model.update(variant=row, backbone="mini", text_layer=1)
    config.model.init.update(sam="mini_sam", bert="mini_bert")
    config.optim.update(max_steps=1250, iou_weight=0.0)
    config.data.shapes.eval_length = 600
    config.eval.update(protocols=("original",), best="original", every_steps=0)
    config.train.update(pictures=0, log_every=25)
    return config

"""One model on RefCOCO, RefCOCO+ and RefCOCOg together: `configs/mix.py:row` or `:row,recipe`.

    python launch.py --config=configs/mix.py:ldit_vit_b,official --workdir=runs/mix \\
        --config.data.source=data/refer --config.model.init.sam=SAM.pth \\
        --config.model.init.bert=BERT --config.model.vocab=vocab.txt

Trains on the three train splits without the pictures of any val or test split, and scores all of
those. The paper trains one model a data set: its scores are not comparable with these. Hardware: as
`ldit_vit_b`.
"""

from ml_collections import ConfigDict

from dit_jax.configs import base, paper

PARTS = ("refcoco(unc)", "refcoco+(unc)", "refcocog(umd)")
SPLITS = {"refcocog(umd)": ("val", "test")}


def get_config(arguments: str = "ldit_vit_b,official") -> ConfigDict:
    config = paper.get_config(arguments)
    config.data.update(dataset="+".join(PARTS), split_by="")
    config.data.eval_splits = tuple(
        f"{part}/{split}" for part in PARTS for split in SPLITS.get(part, base.REFCOCO_SPLITS)
    )
    return config

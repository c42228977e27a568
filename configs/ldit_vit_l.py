"""L-DIT on ViT-L, RefCOCO-unc.

    python launch.py --config=configs/ldit_vit_l.py:paper --workdir=runs/ldit_vit_l \\
        --config.model.init.sam=SAM.pth --config.model.init.bert=BERT --config.model.vocab=vocab.txt

Recipe `paper` or `official` (released code).
Expected oIoU on RefCOCO val / testA / testB, as the paper reports: none reported.
Hardware: activations at batch 64 are 55 GiB in bfloat16; `--config.model.remat=true` or
`--config.optim.accumulate=4` for less.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(recipe: str = "paper") -> ConfigDict:
    return base.recipe("ldit_vit_l", recipe)

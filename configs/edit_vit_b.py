"""E-DIT on ViT-B, RefCOCO-unc.

    python launch.py --config=configs/edit_vit_b.py:paper --workdir=runs/edit_vit_b \\
        --config.model.init.sam=SAM.pth --config.model.init.bert=BERT --config.model.vocab=vocab.txt

Recipe `paper` or `official` (released code).
Expected oIoU on RefCOCO val / testA / testB, as the paper reports: 68.07 / 70.81 / 65.58.
Hardware: as `ldit_vit_b`.
"""

from ml_collections import ConfigDict

from dit_jax.configs import base


def get_config(recipe: str = "paper") -> ConfigDict:
    return base.recipe("edit_vit_b", recipe)

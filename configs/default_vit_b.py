"""Default SAM on ViT-B: text meets the picture only in the decoder, RefCOCO-unc.

    python launch.py --config=configs/default_vit_b.py:paper --workdir=runs/default_vit_b \\
        --config.model.init.sam=SAM.pth --config.model.init.bert=BERT --config.model.vocab=vocab.txt

Recipe `paper` or `official` (released code).
Expected oIoU on RefCOCO val / testA / testB, as the paper reports: 60.74 / 62.95 / 56.69.
Hardware: as `ldit_vit_b`.
"""

from ml_collections import ConfigDict

from dit_jax.configs import base


def get_config(recipe: str = "paper") -> ConfigDict:
    return base.recipe("default_vit_b", recipe)

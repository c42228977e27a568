"""L-DIT on ViT-B: the paper's main model (Table 1), RefCOCO-unc.

    python launch.py --config=configs/ldit_vit_b.py:paper --workdir=runs/ldit_vit_b \\
        --config.model.init.sam=SAM.pth --config.model.init.bert=BERT --config.model.vocab=vocab.txt

Recipe `paper` or `official` (released code).
Expected oIoU on RefCOCO val / testA / testB, as the paper reports: 71.98 / 74.51 / 68.77.
Hardware: its activations at batch 64 are 21 GiB in bfloat16, so one 40 GB GPU or a TPU v5e-8
holds a step; smaller devices take `--config.optim.accumulate=8`.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(recipe: str = "paper") -> ConfigDict:
    return base.recipe("ldit_vit_b", recipe)

"""L-DIT on ViT-L, RefCOCO-unc.

    python launch.py --config=configs/ldit_vit_l.py:paper --workdir=runs/ldit_vit_l \\
        --config.model.init.sam=SAM.pth --config.model.init.bert=BERT --config.model.vocab=vocab.txt

Recipe `paper` or `official` (released code).
Expected oIoU on RefCOCO val / testA / testB, as the paper reports: none reported.
Hardware, counted in docs/memory.md, recipe `paper`: a step at batch 64 takes 65 GB in
bfloat16, 14 GB with `--config.model.remat=full`.
"""

from ml_collections import ConfigDict

from dit_jax.configs import base


def get_config(recipe: str = "paper") -> ConfigDict:
    return base.recipe("ldit_vit_l", recipe)

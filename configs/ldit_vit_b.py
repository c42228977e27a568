"""L-DIT on ViT-B: the paper's main model (Table 1), RefCOCO-unc.

    python launch.py --config=configs/ldit_vit_b.py:paper --workdir=runs/ldit_vit_b \\
        --config.model.init.sam=SAM.pth --config.model.init.bert=BERT --config.model.vocab=vocab.txt

Recipe `paper` or `official` (released code).
Expected oIoU on RefCOCO val / testA / testB, as the paper reports: 71.98 / 74.51 / 68.77.
Hardware, counted in docs/memory.md, recipe `paper`: a step at batch 64 takes 27 GB in bfloat16
(`--config.model.dtype=bfloat16`), 9 GB with `--config.model.remat=full`; devices share the batch.
"""

from ml_collections import ConfigDict

from dit_jax.configs import base


def get_config(recipe: str = "paper") -> ConfigDict:
    return base.recipe("ldit_vit_b", recipe)

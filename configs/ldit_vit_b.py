"""L-DIT on ViT-B: the paper's main model (Table 1), RefCOCO-unc.

    python launch.py --config=configs/ldit_vit_b.py:paper --workdir=runs/ldit_vit_b \\
        --config.model.init.sam=SAM.pth --config.model.init.bert=BERT --config.model.vocab=vocab.txt

Recipe `paper` or `official` (released code).
Expected oIoU on RefCOCO val / testA / testB, as the paper reports: 71.98 / 74.51 / 68.77.
Hardware, estimated from what the backward pass keeps, not measured: in bfloat16
(`--config.model.dtype=bfloat16`), with attention scores kept whole, a step at batch 64 needs about
100 GiB, or 25 GiB with `--config.model.remat=full`. `--config.optim.accumulate=8` as well brings
that to about 8 GiB; without remat, to about 18 GiB. Several devices share the batch.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(recipe: str = "paper") -> ConfigDict:
    return base.recipe("ldit_vit_b", recipe)

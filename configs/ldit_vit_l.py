"""L-DIT on ViT-L, RefCOCO-unc.

    python launch.py --config=configs/ldit_vit_l.py:paper --workdir=runs/ldit_vit_l \\
        --config.model.init.sam=SAM.pth --config.model.init.bert=BERT --config.model.vocab=vocab.txt

Recipe `paper` or `official` (released code).
Expected oIoU on RefCOCO val / testA / testB, as the paper reports: none reported.
Hardware, estimated as in `ldit_vit_b`: about 250 GiB at batch 64 in bfloat16, or 35 GiB with
`--config.model.remat=full`; `--config.optim.accumulate=8` as well brings that to about 13 GiB.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(recipe: str = "paper") -> ConfigDict:
    return base.recipe("ldit_vit_l", recipe)

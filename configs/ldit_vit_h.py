"""L-DIT on ViT-H: the paper's best model, RefCOCO-unc.

    python launch.py --config=configs/ldit_vit_h.py:paper --workdir=runs/ldit_vit_h \\
        --config.model.init.sam=SAM.pth --config.model.init.bert=BERT --config.model.vocab=vocab.txt

Recipe `paper` or `official` (released code).
Expected oIoU on RefCOCO val / testA / testB, as the paper reports: 76.18 / 78.13 / 73.27.
Hardware: activations at batch 64 are 90 GiB in bfloat16; `--config.model.remat=true`, and
`--config.mesh.fsdp=8` where a chip has less than 32 GB.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(recipe: str = "paper") -> ConfigDict:
    return base.recipe("ldit_vit_h", recipe)

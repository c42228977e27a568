"""L-DIT on ViT-H: the paper's best model, RefCOCO-unc.

    python launch.py --config=configs/ldit_vit_h.py:paper --workdir=runs/ldit_vit_h \\
        --config.model.init.sam=SAM.pth --config.model.init.bert=BERT --config.model.vocab=vocab.txt

Recipe `paper` or `official` (released code).
Expected oIoU on RefCOCO val / testA / testB, as the paper reports: 76.18 / 78.13 / 73.27.
Hardware, recipe `paper`: at batch 64 in bfloat16 with `--config.model.remat=scan`, one device of
80 GB (25 GB), or eight of 16 GB with `--config.mesh.fsdp=8` (4.1 GB each), by H100's compiler; see
docs/memory.md.
"""

from ml_collections import ConfigDict

from dit_jax.configs import base


def get_config(recipe: str = "paper") -> ConfigDict:
    return base.recipe("ldit_vit_h", recipe)

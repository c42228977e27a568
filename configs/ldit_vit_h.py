"""L-DIT on ViT-H: the paper's best model, RefCOCO-unc.

    python launch.py --config=configs/ldit_vit_h.py:paper --workdir=runs/ldit_vit_h \\
        --config.model.init.sam=SAM.pth --config.model.init.bert=BERT --config.model.vocab=vocab.txt

Recipe `paper` or `official` (released code).
Expected oIoU on RefCOCO val / testA / testB, as the paper reports: 76.18 / 78.13 / 73.27.
Hardware, estimated as in `ldit_vit_b`: about 360 GiB at batch 64 in bfloat16, or 45 GiB with
`--config.model.remat=full`; `--config.optim.accumulate=8` as well brings that to about 21 GiB, most
of it parameters, gradients and Adam's moments, which `--config.mesh.fsdp=8` spreads over devices.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(recipe: str = "paper") -> ConfigDict:
    return base.recipe("ldit_vit_h", recipe)

"""gRefCOCO: expressions of several objects, or of none: `configs/grefcoco.py:row[,recipe]`.

    python launch.py --config=configs/grefcoco.py:ldit_vit_b,official --workdir=runs/grefcoco \\
        --config.data.source=data/refer --config.model.init.sam=SAM.pth \\
        --config.model.init.bert=BERT --config.model.vocab=vocab.txt

The model also learns to say that nothing is meant. The paper has no scores on this data set.
Hardware: as `ldit_vit_b`.
"""

from ml_collections import ConfigDict

from dit_jax.configs import base, paper


def get_config(arguments: str = "ldit_vit_b,official") -> ConfigDict:
    config = paper.get_config(arguments)
    config.model.presence = True
    config.data.update(dataset="grefcoco", split_by="unc", eval_splits=base.REFCOCO_SPLITS)
    config.eval.update(protocols=("gres", "lisa"), best="gres")
    return config

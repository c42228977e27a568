"""Any row of the paper's tables: `configs/paper.py:row` or `configs/paper.py:row,recipe`.

    python launch.py --config=configs/paper.py:ldit_vit_b_frozen,official --workdir=runs/frozen \\
        --config.model.init.sam=SAM.pth --config.model.init.bert=BERT --config.model.vocab=vocab.txt

The rows and the oIoU that the paper reports for each are in `dit_jax/variants.py`; recipes are
`paper` (the default) and `official` (released code). Hardware: as `ldit_vit_b` or `ldit_vit_h`.
"""

from ml_collections import ConfigDict

from dit_jax import variants
from dit_jax.configs import base
from dit_jax.strict import one_of

ROWS = tuple(row for row in variants.VARIANTS if row != "tiny")  # that one is quickstart's


def get_config(arguments: str = "") -> ConfigDict:
    row, _, recipe = arguments.partition(",")
    if not row:
        raise ValueError(
            f"no row is named; expected configs/paper.py:ROW with one of {', '.join(ROWS)}."
        )
    one_of("the row of configs/paper.py", row, ROWS)
    return base.recipe(row, recipe or "paper")

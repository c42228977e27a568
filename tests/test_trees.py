"""Golden parameter trees: every row of the variant table at its real size, through `eval_shape`.

`python tests/test_trees.py` rewrites the files after an intended change; read the diff.
"""

from pathlib import Path

import pytest

from dit_jax import variants
from dit_jax.models import params as params_lib
from dit_jax.train import optim

FOLDER = Path(__file__).with_name("trees")


def tree(row: str) -> str:
    """`path shape dtype trainable`, a line a parameter, after a line with their sum."""
    variant = variants.VARIANTS[row]
    _, params = params_lib.structure(variants.architecture(variant))
    flat = params_lib.flatten(params)
    kept = {p for p in flat if optim.group(p) in (optim.BUFFER, *variant.freeze)}
    lines = [
        f"{path} {'×'.join(map(str, leaf.shape))} {leaf.dtype} "
        f"{'frozen' if path in kept else 'trained'}"
        for path, leaf in flat.items()
    ]
    total = sum(leaf.size for leaf in flat.values())
    trained = sum(leaf.size for path, leaf in flat.items() if path not in kept)
    return "\n".join([f"{total} parameters, {trained} trained", *lines]) + "\n"


@pytest.mark.parametrize("row", variants.VARIANTS)
def test_tree(row):
    assert tree(row) == (FOLDER / f"{row}.txt").read_text()


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in variants.VARIANTS:
        (FOLDER / f"{name}.txt").write_text(tree(name))

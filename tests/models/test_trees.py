"""Golden parameter trees: every row of the variant table at its real size, through `eval_shape`;
and one with a presence head, which adds the same to every row.

`PYTHONPATH=.:tests/support python tests/models/test_trees.py` rewrites the files after an intended
change; read the diff.
"""

import jax
import numpy as np
import places
import pytest

from dit_jax import variants
from dit_jax.models import params as params_lib
from dit_jax.train import optim

# file → row of the table, and what else is chosen
TREES = {row: (row, {}) for row in variants.VARIANTS}
TREES["ldit_vit_b_frozen_presence"] = ("ldit_vit_b_frozen", {"presence": True})


def tree(name: str) -> str:
    """`path shape dtype trainable`, a line a parameter, after a line with their sum."""
    row, settings = TREES[name]
    variant = variants.VARIANTS[row]
    _, params = params_lib.structure(variants.architecture(variant, **settings))
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


SLOW = ("frozen", "plus", "vit_l", "vit_h")  # other rows' parameters, or more of the same blocks


def quick(name: str) -> bool:
    return name in ("tiny", "ldit_vit_h") or not any(part in name for part in SLOW)


@pytest.mark.parametrize(
    "name", [n if quick(n) else pytest.param(n, marks=pytest.mark.proof) for n in TREES]
)
def test_tree(name):
    assert tree(name) == (places.TREES / f"{name}.txt").read_text()


def test_presence_adds_its_head_and_nothing_else():
    plain, more = (
        (places.TREES / f"ldit_vit_b_frozen{name}.txt").read_text().splitlines()[1:]
        for name in ("", "_presence")
    )
    assert [line for line in more if ".presence_head." not in line] == plain
    assert len(more) == len(plain) + 6


@pytest.mark.parametrize("name", ["tiny", "ldit_static_vit_b", "edit_static_vit_b"])
def test_a_process_that_computes_in_64_bits_has_the_same_parameters(name):
    arch = variants.architecture(variants.VARIANTS[name])
    with jax.enable_x64(True):
        graph, params = params_lib.structure.__wrapped__(arch)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
    assert graph == params_lib.structure(arch)[0]


if __name__ == "__main__":
    places.TREES.mkdir(exist_ok=True)
    for name in TREES:
        (places.TREES / f"{name}.txt").write_text(tree(name))

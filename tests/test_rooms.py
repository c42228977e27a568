"""Arrows point one way: ops ← models ← train, eval ← predict ← figures, demo, export ← cli.

Only `convert` knows PyTorch.
"""

import ast

import pytest
from places import ROOT

# Those that stand on models and data, each beside the others; the command line stands on them.
USES = (
    *("dit_jax.predict", "dit_jax.export", "dit_jax.weights.packs"),
    *("dit_jax.figures", "dit_jax.demo", "dit_jax.cli"),
)
# part of the project → what its modules never import
FORBIDDEN = {
    "dit_jax/ops": (
        "dit_jax.models",
        "dit_jax.data",
        "dit_jax.train",
        "dit_jax.eval",
        "flax",
        "optax",
    ),
    "dit_jax/models": ("dit_jax.data", "dit_jax.train", "dit_jax.eval", "dit_jax.config", "optax"),
    "dit_jax/data": ("dit_jax.models", "dit_jax.train", "dit_jax.eval", "jax", "flax", "optax"),
    "dit_jax/eval": ("dit_jax.train", "dit_jax.models", "dit_jax.convert", "optax"),
    "dit_jax/train": USES,
    "dit_jax/predict": (
        *("dit_jax.cli", "dit_jax.convert", "dit_jax.train", "dit_jax.config"),
        *("dit_jax.export", "dit_jax.figures", "dit_jax.demo", "optax"),
    ),
    "dit_jax/figures": (
        *("dit_jax.cli", "dit_jax.convert", "dit_jax.train", "dit_jax.config"),
        *("dit_jax.export", "dit_jax.demo", "optax"),
    ),
    "dit_jax/demo": (
        *("dit_jax.cli", "dit_jax.convert", "dit_jax.train", "dit_jax.config"),
        *("dit_jax.export", "dit_jax.figures", "optax"),
    ),
    "dit_jax/export": ("dit_jax.cli", "dit_jax.convert", "dit_jax.train", "optax"),
    "convert": ("dit_jax.data", "dit_jax.train", "dit_jax.eval", "optax"),
}
for low in ("dit_jax/ops", "dit_jax/models", "dit_jax/data", "dit_jax/eval", "convert"):
    FORBIDDEN[low] += USES
EVERYWHERE = ("tensorflow", "clu")
NOT_IN_THE_PACKAGE = ("torch", "transformers")


def imports(path):
    """Absolute names that a module imports, lazily or not."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name, package):
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("part", FORBIDDEN)
def test_arrows(part):
    files = sorted((ROOT / part).rglob("*.py"))
    assert files
    banned = FORBIDDEN[part] + EVERYWHERE + (() if part == "convert" else NOT_IN_THE_PACKAGE)
    crossed = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imports(path)
        if any(within(name, package) for package in banned)
    }
    assert not crossed


def test_the_slow_transforms_stay_unused():
    """`nnx.jit` and its kin cost 12-14 times more a step than `jax.jit` over plain dicts."""
    slow = ("jit", "grad", "value_and_grad", "Optimizer", "scan")
    for path in sorted(ROOT.glob("dit_jax/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert not (node.value.id == "nnx" and node.attr in slow), (
                    f"{path}: nnx.{node.attr}"
                )

"""The rooms of the project: who may import whom, and through which door."""

import ast
from pathlib import Path

import pytest
from places import ROOT

from docs import architecture

# Room → rooms that its files import. Arrows point down this table; a new one is a decision.
ARROWS = {
    "ops": set(),
    "ops.attention": {"ops", "strict"},
    "models": {"ops", "ops.attention", "strict"},
    "variants": {"models"},
    "weights": {"models", "strict", "version"},
    "data": {"data.annotations", "data.check", "data.records"},
    "data.annotations": {"data"},
    "data.pixels": {"data"},
    "data.check": {"data", "data.annotations", "data.pixels"},
    "data.records": {"data", "data.pixels"},
    "data.shapes": {"data"},
    "data.pipeline": {"data", "data.pixels"},
    "eval": {"data", "data.pipeline", "data.pixels", "data.records"},
    "eval.probe": {"data", "data.pipeline", "data.pixels", "eval"},
    "viz": {"eval"},
    "config": {"data", "eval", "models", "ops", "strict", "variants"},
    "convert": {"models", "strict", "variants", "weights"},
    "train.placement": {"config", "data.pipeline", "ops"},
    "train.logs": {"eval", "models"},
    "train": {
        # To read PyTorch's files, where a config names some.
        *("config", "convert", "data", "data.pipeline", "data.pixels", "data.records"),
        *("data.shapes", "eval", "eval.probe", "lease", "models", "ops", "strict", "train.logs"),
        *("train.placement", "viz", "weights"),
    },
    "plan": {"config", "models", "ops", "ops.attention", "strict", "train", "train.placement"},
    "predict": {
        *("data", "data.annotations", "data.pixels", "eval", "models", "ops", "viz", "weights"),
    },
    "figures": {
        *("data", "data.pipeline", "data.pixels", "data.records", "data.shapes"),
        *("eval", "models", "predict", "viz"),
    },
    "demo": {"data.annotations", "data.pixels", "data.shapes", "models", "predict", "viz"},
    "export": {"eval", "lease", "models", "ops", "ops.attention", "strict", "weights"},
    "cli": {
        *("allocator", "config", "configs", "demo", "export", "plan", "predict", "strict"),
        *("train", "train.logs", "train.placement"),
    },
}
# Room → what none of its files imports; the rest of the table follows from `ARROWS`.
FOREIGN = {
    "": ("tensorflow", "clu", "torch", "transformers"),
    "ops": ("flax", "optax"),
    "models": ("optax",),
    "data": ("jax", "flax", "optax"),
    "eval": ("jax", "flax", "optax"),
    "predict": ("optax",),
    "figures": ("optax",),
    "demo": ("optax",),
    "export": ("optax",),
}
FILES = sorted(ROOT.glob("dit_jax/**/*.py"))


def within(name, package):
    return name == package or name.startswith(package + ".")


def test_arrows():
    found = architecture.arrows()
    found.pop("dit_jax", None)  # the names that the package itself exports
    crossed = {room: found[room] ^ ARROWS.get(room, set()) for room in found}
    assert not {room: names for room, names in crossed.items() if names}
    assert found.keys() == {room for room, others in ARROWS.items() if others}


def test_the_table_has_no_circle():
    """But for a folder and the rooms in it, which are one."""
    order = list(ARROWS)
    for room, others in ARROWS.items():
        for other in others & ARROWS.keys():
            of_one = room.split(".")[0] == other.split(".")[0]
            assert order.index(other) < order.index(room) or of_one, f"{room} imports {other}"


@pytest.mark.parametrize("room", FOREIGN)
def test_what_a_room_does_not_know(room):
    files = [path for path in FILES if path.is_relative_to(ROOT / "dit_jax" / room)]
    assert files
    crossed = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name, _ in architecture.imports(path)
        if any(within(name, package) for package in FOREIGN[room])
    }
    assert not crossed


def test_a_room_is_entered_by_its_door():
    """Rooms with an `__all__` are imported through it: `from dit_jax.data.records import build`."""
    folders = architecture.packages()
    doors = {name: exported(name) for name in folders if exported(name)}
    assert len(doors) >= 12
    users = [*FILES, *ROOT.glob("convert/*.py"), *ROOT.glob("examples/*.py")]
    wrong = []
    for path in users:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for name, item in architecture.imports(path):
            room = next((one for one in doors if within(name, one)), None)
            if room in (None, "dit_jax", "dit_jax.predict") or within(module, room):
                continue
            if name != room or item not in doors[room]:
                wrong.append(f"{module}: from {name} import {item}")
    assert not wrong


def exported(package: str) -> list[str]:
    tree = ast.parse(Path(ROOT, *package.split("."), "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
            return ast.literal_eval(node.value)
    return []


def test_the_drawing_is_of_today():
    assert architecture.SVG.read_text(encoding="utf-8") == architecture.drawing(), (
        "run python -m docs.architecture"
    )


def test_the_slow_transforms_stay_unused():
    """`nnx.jit` and its kin cost 12-14 times more a step than `jax.jit` over plain dicts."""
    slow = ("jit", "grad", "value_and_grad", "Optimizer", "scan")
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert not (node.value.id == "nnx" and node.attr in slow), (
                    f"{path}: nnx.{node.attr}"
                )

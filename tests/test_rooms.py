"""The rooms of the project: who may import whom, and through which door."""

import ast
import graphlib
import re
from pathlib import Path

import pytest
from places import ROOT

from docs import architecture

# Room → rooms that its files import. Arrows point up this table, but for those of a room to the
# folder that it lies in, whose files are what all of its rooms speak of. A new one is a decision.
ARROWS = {
    "ops": set(),
    "ops.attention.mosaic": {"ops"},
    "ops.attention": {"ops", "ops.attention.mosaic", "strict"},
    "models": {"ops", "ops.attention", "strict"},
    "variants": {"models"},
    "lease": {"storage"},
    "weights": {"lease", "models", "storage", "strict", "version", "vocabulary"},
    "data.annotations": {"data", "storage"},
    "data.pixels": {"data", "strict"},
    "data.shapes": {"data"},
    "data.check": {"data", "data.annotations", "data.pixels", "strict"},
    "data.records": {"data", "data.pixels", "lease", "storage", "strict"},
    "data.pipeline": {"data", "data.pixels"},
    "data": {"data.annotations", "data.check", "data.records", "storage", "vocabulary"},
    "eval": {"data", "data.pipeline", "data.pixels", "data.records", "storage", "strict"},
    "eval.probe": {"data", "data.pipeline", "data.pixels", "eval", "strict"},
    "viz": {"eval"},
    "convert": {"models", "storage", "strict", "variants", "vocabulary", "weights"},
    # To learn how large a BERT is, where a config names one.
    "config": {"convert", "data", "eval", "models", "ops", "strict", "variants"},
    "train.placement": {"config", "data.pipeline", "ops", "storage"},
    "train.logs": {"eval", "models", "storage", "strict"},
    "train": {
        # To read PyTorch's files, where a config names some.
        *("config", "convert", "data", "data.pipeline", "data.pixels", "data.records"),
        *("data.shapes", "eval", "eval.probe", "lease", "models", "ops", "strict", "train.logs"),
        *("train.placement", "storage", "variants", "viz", "vocabulary", "weights"),
    },
    "plan": {"config", "models", "ops", "ops.attention", "strict", "train", "train.placement"},
    "predict": {
        *("data", "data.annotations", "data.pixels", "eval", "lease", "models", "ops"),
        *("storage", "strict", "viz", "weights"),
    },
    "predict.label": {
        *("data.annotations", "data.pixels", "eval", "lease", "predict", "storage", "strict"),
        *("version", "viz"),
    },
    "figures": {
        *("data", "data.pipeline", "data.pixels", "data.records", "data.shapes"),
        *("eval", "models", "predict", "storage", "viz"),
    },
    "serve": {
        *("data.annotations", "data.pixels", "data.shapes", "eval", "models", "predict"),
        *("predict.label", "version", "viz", "weights"),
    },
    "export": {
        *("data", "eval", "models", "ops", "ops.attention", "strict", "vocabulary", "weights"),
    },
    "on_pictures": {"predict", "predict.label", "storage"},
    "config_file": {"configs", "storage"},
    "cli": {
        *("allocator", "config", "config_file", "export", "lease", "on_pictures", "plan", "serve"),
        *("storage", "strict", "train", "train.logs", "train.placement", "version", "weights"),
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
    "serve": ("optax",),
    "export": ("optax",),
}
# Modules that are entered beside their room's `__init__`, which would be slow or heavy with them.
SIDE_DOORS = {
    "dit_jax.predict.command": "reads files: --mode=predict",
    "dit_jax.predict.label.command": "the same: --mode=label",
    "dit_jax.predict.label.studio": "Label Studio's protocol, which the server speaks",
    "dit_jax.predict.explain": "word maps, as docs/see.md imports them",
    "dit_jax.predict.label.outlines": "masks as polygons, also over HTTP",
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
    order = list(ARROWS)
    for room, others in ARROWS.items():
        for other in others & ARROWS.keys() - {room.rpartition(".")[0]}:
            assert order.index(other) < order.index(room), f"{room} imports {other}"


def test_no_file_imports_itself_through_others():
    modules = {name_of(path): path for path in [*FILES, *ROOT.glob("convert/*.py")]}
    graph = {name: set() for name in modules}
    for name, path in modules.items():
        for module, item in architecture.imports(path):
            whole = f"{module}.{item}"
            graph[name] |= {whole if whole in modules else module} & modules.keys() - {name}
    assert sum(map(len, graph.values())) > 300
    graphlib.TopologicalSorter(graph).prepare()  # names the circle


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
    doors = {name: exported(name) for name in architecture.packages() if exported(name)}
    assert len(doors) >= 12
    places = ("convert", "configs", "examples", "docs")
    users = [
        *FILES,
        ROOT / "launch.py",
        *(f for place in places for f in ROOT.glob(f"{place}/*.py")),
    ]
    wrong, used = [], set()
    for path in users:
        for name, item in architecture.imports(path):
            room = next((one for one in doors if within(name, one) and one != "dit_jax"), None)
            if room is None or within(name_of(path), room):
                continue
            beside = {name, f"{name}.{item}"} & SIDE_DOORS.keys()
            used |= beside
            if not beside and (name != room or item not in doors[room]):
                wrong.append(f"{name_of(path)}: from {name} import {item}")
    assert not wrong
    assert used == SIDE_DOORS.keys()


def name_of(path: Path) -> str:
    """A file's module, as other files import it."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return f"dit_jax.{name}" if within(name, "convert") else name


STANDING_IN = {"dit_jax.configs", "dit_jax.convert"}  # for folders at the project's top


def test_every_room_says_what_comes_in_what_goes_out_and_what_to_read_first():
    for name in architecture.packages() - STANDING_IN | {"convert"}:
        folder = Path(ROOT, *name.split("."))
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
        assert re.search(r"\bIn:\s.*\bOut:\s|\bIn and out:\s", text, re.DOTALL), folder
        first = re.search(r"\bRead\s+`(\w+)/?`", text)
        assert first, folder
        assert (folder / f"{first[1]}.py").is_file() or (folder / first[1]).is_dir(), first[0]


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


def test_the_drawing_shows_every_folder_and_points_down():
    boxes = architecture.layout()
    folders = {path.parent.name for path in ROOT.glob("dit_jax/*/__init__.py")}
    assert boxes.keys() == folders - {"configs"} | {"cli", "config"}
    for above, below in architecture.between_boxes(architecture.arrows()):
        assert boxes[above].foot < boxes[below].y


def test_the_slow_transforms_stay_unused():
    """`nnx.jit` and its kin cost 12-14 times more a step than `jax.jit` over plain dicts."""
    slow = ("jit", "grad", "value_and_grad", "Optimizer", "scan")
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert not (node.value.id == "nnx" and node.attr in slow), (
                    f"{path}: nnx.{node.attr}"
                )

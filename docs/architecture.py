"""Draws docs/architecture.svg: the project's rooms and the arrows between them, from its imports.

    python -m docs.architecture

A room is a folder of dit_jax, or a file at its top; an arrow says who imports whom. An arrow that
follows from others (train → weights → models) is left out of the drawing.
"""

import ast
from collections.abc import Iterator
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SVG = ROOT / "docs" / "architecture.svg"

# From the top: who stands in which row, and what each says of itself.
ROWS = (
    {"cli": "the command line"},
    {"plan": "what fits where", "demo": "the page", "figures": "pictures"},
    {"train": "step, loop, checkpoints", "predict": "Segmenter"},
    {"config": "a run as data", "export": "handed on", "convert": "PyTorch files"},
    {"eval": "protocols, scores", "weights": "models on disk"},
    {"data": "from files to batches", "models": "SAM, BERT, injection"},
    {"ops": "arithmetic without parameters"},
)
WIDTH, MARGIN, GAP = 390, 10, 12  # a phone's, in pixels
LINE, BETWEEN = 17, 46  # of text; between rows, for arrows
INK, PAPER, SHADE, ARROW = "#1f2933", "#ffffff", "#eef3f8", "#7b8794"


def packages(root: Path = ROOT) -> set[str]:
    """Dotted names of dit_jax's folders."""
    return {".".join(p.parent.relative_to(root).parts) for p in root.glob("dit_jax/**/__init__.py")}


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of every absolute import, lazy ones too; name is "" of a plain import."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from ((node.module or "", alias.name) for alias in node.names)


def room_of(name: str, folders: set[str]) -> str:
    """The folder that a dotted name lies in; a file at dit_jax's top is a room by itself."""
    parts = name.split(".")
    if len(parts) > 1 and f"{parts[0]}.{parts[1]}" not in folders:
        return ".".join(parts[:2])
    while len(parts) > 1 and ".".join(parts) not in folders:
        parts.pop()
    return ".".join(parts)


def arrows(root: Path = ROOT) -> dict[str, set[str]]:
    """Room → rooms of dit_jax that its files import, both without "dit_jax."."""
    folders, found = packages(root), {}
    for path in sorted([*root.glob("dit_jax/**/*.py"), *root.glob("convert/*.py")]):
        module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        own = (
            "dit_jax.convert" if path.is_relative_to(root / "convert") else room_of(module, folders)
        )
        for name, item in imports(path):
            if name != "dit_jax" and not name.startswith("dit_jax."):
                continue
            whole = f"{name}.{item}"
            is_module = (root / whole.replace(".", "/")).with_suffix(".py").is_file()
            other = room_of(whole if is_module or whole in folders else name, folders)
            if other not in (own, "dit_jax"):
                found.setdefault(own.removeprefix("dit_jax."), set()).add(
                    other.removeprefix("dit_jax.")
                )
    return found


def between_boxes(found: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Arrows between the boxes of the drawing, without those that follow from others."""
    boxes = [name for row in ROWS for name in row]
    edges: dict[str, set[str]] = {name: set() for name in boxes}
    for room, others in found.items():
        own = room.split(".")[0]
        for other in (one.split(".")[0] for one in others):
            if own in edges and other in edges and own != other:
                edges[own].add(other)
    reach: dict[str, set[str]] = {}

    def below(name: str) -> set[str]:
        if name not in reach:
            reach[name] = set().union(*({o} | below(o) for o in edges[name]), set())
        return reach[name]

    return [
        (name, other)
        for name in boxes
        for other in sorted(edges[name])
        if not any(other in below(o) for o in edges[name] if o != other)
    ]


def inside(box: str) -> list[str]:
    """The rooms in a box."""
    return sorted(name.split(".")[2] for name in packages() if name.startswith(f"dit_jax.{box}."))


def drawing() -> str:
    """The SVG."""
    boxes, y = {}, MARGIN
    for row in ROWS:
        width = (WIDTH - 2 * MARGIN - GAP * (len(row) - 1)) / len(row)
        height = max(LINE * (2 + len(_listed(inside(name), width))) for name in row) + 12
        for i, (name, says) in enumerate(row.items()):
            boxes[name] = (MARGIN + i * (width + GAP), y, width, height, says)
        y += height + BETWEEN
    parts = [_arrow(boxes[a], boxes[b]) for a, b in between_boxes(arrows())]
    for name, box in boxes.items():
        parts += _box(name, *box)
    height = y - BETWEEN + MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}"'
        ' font-family="sans-serif" role="img"><title>Rooms of dit_jax, and who imports whom</title>'
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0 10 5 0 10z" fill="{ARROW}"/></marker>'
        "</defs>"
        f'<rect width="{WIDTH}" height="{height:g}" fill="{PAPER}"/>'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def _listed(names: list[str], width: float) -> list[str]:
    """Names as lines that fit into a box."""
    lines: list[str] = []
    for name in names:
        if lines and len(lines[-1]) + len(name) + 3 <= width / 7.2:
            lines[-1] += f" · {name}"
        else:
            lines.append(name)
    return lines


def _box(name: str, x: float, y: float, width: float, height: float, says: str) -> list[str]:
    middle = x + width / 2
    lines = [
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8" fill="{SHADE}"'
        f' stroke="{INK}" stroke-width="1.2"/>',
        _text(middle, y + LINE + 2, name, 16, bold=True),
        _text(middle, y + 2 * LINE + 2, says, 13),
    ]
    for i, line in enumerate(_listed(inside(name), width)):
        lines.append(_text(middle, y + (3 + i) * LINE + 3, line, 12.5))
    return lines


def _text(x: float, y: float, text: str, size: float, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}"{weight} text-anchor="middle"'
        f' fill="{INK}">{escape(text)}</text>'
    )


def _arrow(above: tuple, below: tuple) -> str:
    """From the foot of one box to the head of another; beside each other, from side to side."""
    (x, y, w, h, _), (u, v, s, _, _) = above, below
    if y == v:
        start, end = (x + w, u) if x < u else (x, u + s)
        return _path(f"M{start:g} {y + h / 2:g}L{end:g} {y + h / 2:g}")
    # Towards each other's middle, so that several arrows of a box leave it apart.
    a = min(max(u + s / 2, x + 14), x + w - 14)
    b = min(max(x + w / 2, u + 14), u + s - 14)
    a, b = (a + x + w / 2) / 2, (b + u + s / 2) / 2
    bend = min(60, (v - y - h) / 2)
    return _path(f"M{a:g} {y + h:g}C{a:g} {y + h + bend:g} {b:g} {v - bend:g} {b:g} {v - 1:g}")


def _path(d: str) -> str:
    return f'<path d="{d}" fill="none" stroke="{ARROW}" stroke-width="1.6" marker-end="url(#tip)"/>'


if __name__ == "__main__":
    SVG.write_text(drawing(), encoding="utf-8")
    print(f"{SVG.relative_to(ROOT)}: {len(between_boxes(arrows()))} arrows.")

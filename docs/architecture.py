"""Draws docs/architecture.svg: the project's rooms and the arrows between them, from its imports.

    python -m docs.architecture

A room is a folder of dit_jax, or a file at its top; an arrow says who imports whom. An arrow that
follows from others (train → weights → models) is left out of the drawing.
"""

import ast
import dataclasses
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SVG = ROOT / "docs" / "architecture.svg"

# From the top: who stands in which row, and what each says of itself; "" is an empty place. Every
# arrow points down, so a room that needs another stands above it.
ROWS = (
    {"cli": "the command line"},
    {"plan": "what fits where", "": ""},
    {"train": "step, loop, checkpoints", "serve": "API and page", "figures": "pictures"},
    {"config": "a run as data", "predict": "Segmenter", "export": "handed on"},
    {"eval": "protocols, scores", "convert": "other people's files"},
    {"data": "from files to batches", "weights": "models on disk"},
    {"models": "SAM, BERT, injection"},
    {"ops": "arithmetic without parameters", "storage": "buckets"},
)
WIDTH, MARGIN, GAP = 390, 13, 12  # a phone's, in pixels
LINE, BETWEEN, LETTER = 17, 44, 7.4  # of text; between rows, for arrows; a letter's width
BOLD, ITALIC = 'font-weight="bold"', 'font-style="italic"'
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
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts if parts[0] == "dit_jax" else ("dit_jax", *parts))
        own = room_of(name.removesuffix(".__init__"), folders)
        for name, item in imports(path):
            if name.split(".")[0] != "dit_jax":
                continue
            whole = f"{name}.{item}"
            is_module = (root / whole.replace(".", "/")).with_suffix(".py").is_file()
            other = room_of(whole if is_module or whole in folders else name, folders)
            if other not in (own, "dit_jax"):
                others = found.setdefault(own.removeprefix("dit_jax."), set())
                others.add(other.removeprefix("dit_jax."))
    return found


def between_boxes(found: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Arrows between the boxes of the drawing, without those that follow from others."""
    boxes = [name for row in ROWS for name in row if name]
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


@dataclasses.dataclass(frozen=True)
class Box:
    """A room on the drawing; lengths in pixels, y from the top."""

    name: str
    says: list[str]  # in lines
    rooms: list[str]  # inside it, in lines
    row: int
    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def foot(self) -> float:
        return self.y + self.height


def drawing() -> str:
    """The SVG."""
    boxes = layout()
    height = max(box.foot for box in boxes.values()) + MARGIN
    size = f'width="{WIDTH * 4 / 3:g}" height="{height * 4 / 3:g}"'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" {size}'
        ' font-family="sans-serif" role="img"><title>Rooms of dit_jax, and who imports whom</title>'
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0 10 5 0 10z" fill="{ARROW}"/></marker>'
        "</defs>"
        f'<rect width="{WIDTH}" height="{height:g}" fill="{PAPER}"/>'
    )
    edges = [(boxes[above], boxes[below]) for above, below in between_boxes(arrows())]
    parts = [arrow(above, below, edges, list(boxes.values())) for above, below in edges]
    for box in boxes.values():
        parts += drawn(box)
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def layout() -> dict[str, Box]:
    """Every room's place, by its name."""
    boxes, y = {}, MARGIN
    for number, row in enumerate(ROWS):
        width = (WIDTH - 2 * MARGIN - GAP * (len(row) - 1)) / len(row)
        says = {name: wrapped(row[name].split(), width, " ") for name in row}
        rooms = {name: wrapped(inside(name), width, " · ") for name in row}
        height = LINE * (1 + max(len(says[name] + rooms[name]) for name in row)) + 14
        for place, name in enumerate(row):
            x = MARGIN + place * (width + GAP)
            boxes[name] = Box(name, says[name], rooms[name], number, x, y, width, height)
        y += height + BETWEEN
    boxes.pop("")
    return boxes


def wrapped(words: Iterable[str], width: float, between: str) -> list[str]:
    """Words as lines that fit into a box."""
    lines: list[str] = []
    for word in words:
        if lines and (len(lines[-1]) + len(between) + len(word)) * LETTER <= width - 8:
            lines[-1] += between + word
        else:
            lines.append(word)
    return lines


def drawn(box: Box) -> list[str]:
    rectangle = (
        f'<rect x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}" rx="8"'
        f' fill="{SHADE}" stroke="{INK}" stroke-width="1.2"/>'
    )
    parts = [rectangle, text(box.middle, box.y + LINE + 3, box.name, 'font-size="17" ' + BOLD)]
    for i, line in enumerate([*box.says, *box.rooms]):
        style = 'font-size="13"' + (f" {ITALIC}" if i >= len(box.says) else "")
        parts.append(text(box.middle, box.y + (2 + i) * LINE + 4, line, style))
    return parts


def text(x: float, y: float, words: str, style: str) -> str:
    where = f'x="{x:g}" y="{y:g}" text-anchor="middle"'
    return f'<text {where} fill="{INK}" {style}>{escape(words)}</text>'


def arrow(above: Box, below: Box, edges: list[tuple[Box, Box]], boxes: list[Box]) -> str:
    """From the foot of one box to the head of another, between the boxes of the rows it passes."""
    x, y = end_at(above, below, [b for a, b in edges if a is above]), above.foot
    goal = end_at(below, above, [a for a, b in edges if b is below])
    path = f"M{x:g} {y:g}"
    for row in range(above.row + 1, below.row):
        passed = [box for box in boxes if box.row == row]
        lane = free_place(x + (goal - x) / (below.row - row + 1), passed)
        path += curve((x, y), (lane, passed[0].y)) + f"V{passed[0].foot:g}"
        x, y = lane, passed[0].foot
    path += curve((x, y), (goal, below.y - 1))
    return (
        f'<path d="{path}" fill="none" stroke="{ARROW}" stroke-width="1.6" marker-end="url(#tip)"/>'
    )


def end_at(box: Box, other: Box, others: list[Box]) -> float:
    """Where on a box's edge the arrow to another ends: all of one side at equal distances."""
    if len(others) == 1:
        between = (box.middle + other.middle) / 2
        return min(max(between, box.x + 16), box.x + box.width - 16)
    order = sorted(others, key=lambda one: one.middle)
    return box.x + box.width * (order.index(other) + 1) / (len(order) + 1)


def free_place(x: float, passed: list[Box]) -> float:
    """The x nearest to the one wanted at which a line meets none of a row's boxes."""
    edges = [0.0, *(edge for box in passed for edge in (box.x, box.x + box.width)), float(WIDTH)]
    free = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= GAP]
    return min((min(max(x, a + 6), b - 6) for a, b in free), key=lambda place: abs(place - x))


def curve(start: tuple[float, float], end: tuple[float, float]) -> str:
    """On from a start to an end, upright at both."""
    bend = (end[1] - start[1]) / 2
    return f"C{start[0]:g} {start[1] + bend:g} {end[0]:g} {end[1] - bend:g} {end[0]:g} {end[1]:g}"


if __name__ == "__main__":
    SVG.write_text(drawing(), encoding="utf-8")
    print(f"{SVG.relative_to(ROOT)}: {len(between_boxes(arrows()))} arrows.")

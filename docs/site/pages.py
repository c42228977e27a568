"""The pages of the site: a tree with the repository's own places, so that links stay as they are.

A link may lead out of docs/: to another page, a picture, a program or a folder. Each of these
becomes a page at its own place, and a program's link gets the page's name. Nothing else changes.
"""

import base64
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

PICTURES = (".png", ".svg", ".jpg")
LINK = re.compile(r'(\]\(|src=")([^)"\s#]+)')
OUTSIDE = re.compile(r"[a-z]+:")
DIRECTIVE = re.compile(r"<!-- (::: .+?)\s*-->", re.DOTALL)  # of docs/api.md, where no site is built
# What belongs to an item stands below its text; Python-Markdown wants four spaces.
ITEM = re.compile(r"^ {2,3}(?=\S)", re.MULTILINE)
UNSEARCHED = "---\nsearch:\n  exclude: true\n---\n\n"
Relink = Callable[[str], str]  # text with its links as the site has them

LANGUAGES = {".py": "python", ".sh": "bash", ".yaml": "yaml", ".sbatch": "bash"}


def stage(root: Path, out: Path) -> list[str]:
    """Write README.md, docs/, the notebooks and all that they link to below `out`.

    Returns the places that were written, as posix paths from `root`. Raises FileNotFoundError
    where a link leads nowhere, ValueError where one leads out of the repository.
    """
    first = [*sorted(root.glob("docs/*.md")), *sorted(root.glob("examples/*.ipynb"))]
    waiting, done = [root / "README.md", *first], set()
    while waiting:
        path = waiting.pop()
        if path not in done:
            done.add(path)
            waiting += _write(path, root, out)
    return sorted(path.relative_to(root).as_posix() for path in done)


def page_of(path: Path) -> str:
    """The name of its page, beside its own place."""
    return path.name + ("" if path.suffix in (".md", *PICTURES) else ".md")


def _write(path: Path, root: Path, out: Path) -> list[Path]:
    """One page or picture; returns what it links to."""
    target = out / path.relative_to(root).parent / page_of(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in PICTURES:
        shutil.copyfile(path, target)
        return []
    kinds = {".md": _markdown, ".ipynb": _notebook}
    make = _folder if path.is_dir() else kinds.get(path.suffix, _program)
    linked: list[Path] = []

    def page(link: re.Match) -> str:
        if OUTSIDE.match(link[2]):
            return link[0]
        to = Path(os.path.normpath(path.parent / link[2]))
        if not to.is_relative_to(root):
            raise ValueError(f"{path}: {link[2]} leads out of the repository.")
        if not to.exists():
            raise FileNotFoundError(f"{path}: {link[2]} leads nowhere.")
        linked.append(to)
        return link[1] + (os.path.dirname(link[2]) + "/").lstrip("/") + page_of(to)

    target.write_text(make(path, target, lambda text: LINK.sub(page, text)), encoding="utf-8")
    return linked


def _markdown(path: Path, target: Path, relink: Relink) -> str:
    text = DIRECTIVE.sub(r"\n\1\n", path.read_text(encoding="utf-8"))
    return relink(ITEM.sub("    ", text))


def _program(path: Path, target: Path, relink: Relink) -> str:
    text = path.read_text(encoding="utf-8")
    language = LANGUAGES.get(path.suffix, "text")
    return f"{UNSEARCHED}# {path.name}\n\n~~~~{language}\n{text}~~~~\n"


def _folder(path: Path, target: Path, relink: Relink) -> str:
    """Its files, each a link; without what Python and editors leave."""
    files = [one for one in sorted(path.iterdir()) if one.is_file() and one.name[0] != "."]
    lines = [f"- [{one.name}]({path.name}/{one.name})" for one in files]
    return f"{UNSEARCHED}# {path.name}/\n\n" + relink("\n".join(lines)) + "\n"


def _notebook(path: Path, target: Path, relink: Relink) -> str:
    """Its text, programs and outputs; pictures are written beside the page."""
    count = 0

    def picture(kind: str, data: str) -> str:
        nonlocal count
        count += 1
        name = f"{path.stem}_{count}.{kind}"
        target.with_name(name).write_bytes(base64.b64decode(data))
        return f'<img alt="output" src="{name}">'

    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join(part for cell in cells for part in _cell(cell, relink, picture)) + "\n"


def _cell(cell: dict, relink: Relink, picture: Callable[[str, str], str]) -> Iterator[str]:
    text = "".join(cell["source"])
    if cell["cell_type"] != "code":
        yield relink(text)
        return
    yield f"~~~~python\n{text}\n~~~~"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if kind := next((kind for kind in data if kind.startswith("image/")), None):
            yield picture(kind.removeprefix("image/"), data[kind])
        elif said := "".join(output.get("text", data.get("text/plain", ""))).strip("\n"):
            yield f"~~~~text\n{said}\n~~~~"

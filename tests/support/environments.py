"""An environment that holds exactly the packages it is asked for, and what these require."""

import importlib.metadata
import re
import sysconfig
import venv
from pathlib import Path

from packaging.requirements import Requirement
from places import ROOT


def made_of(folder: Path, packages: list[str]) -> Path:
    """Its Python; the packages are links to this environment's. Raises where one is not here."""
    venv.create(folder, symlinks=True)
    paths = {
        kind: Path(sysconfig.get_path(kind, "venv", {"base": str(folder)}))
        for kind in ("purelib", "scripts")
    }
    waiting, linked = [*packages], set()
    while waiting:
        found = importlib.metadata.distribution(waiting.pop())
        if found.name in linked:
            continue
        linked.add(found.name)
        needed = map(Requirement, found.requires or ())
        waiting += [r.name for r in needed if not r.marker or r.marker.evaluate({"extra": ""})]
        for top in {file.parts[0] for file in found.files} - {"..", "__pycache__"}:
            (paths["purelib"] / top).symlink_to(found.locate_file(top))
    return paths["scripts"] / "python"


def said_to_need(exported: Path, form: str) -> list[str]:
    """Packages of an exported program, which its card, its runner and docs/deploy.md all name."""
    (line,) = re.findall(r"^    pip install (.*)", (exported / "README.md").read_text(), re.M)
    names = [Requirement(word).name for word in line.split()]
    row = re.search(rf"^\| `{form}` \|.*\| (.*) \|$", (ROOT / "docs/deploy.md").read_text(), re.M)
    runner = re.search(r'"""(.*?)"""', (exported / "run.py").read_text(), re.S)
    named = re.search(rf"pip install ({names[0]} .*?) +for segment.{form}", runner[1])
    assert [name.lower() for name in re.findall(r"\w+", row[1].split(" to read")[0])] == names
    assert named[1].split() == names
    return names

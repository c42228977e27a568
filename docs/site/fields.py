"""Fields of dataclasses and typed dicts in their docstring, with the comment beside each."""

import re
from collections.abc import Sequence
from typing import Any

import griffe

BESIDE, ABOVE = re.compile(r"#\s*(?!noqa)(\S.*)$"), re.compile(r"\s*#\s*(\S.*)$")


class Fields(griffe.Extension):
    def on_class_members(self, *, cls: griffe.Class, **about: Any) -> None:
        made = {str(one.value).split("(")[0].split(".")[-1] for one in cls.decorators}
        if cls.docstring and ("dataclass" in made or "TypedDict" in map(str, cls.bases)):
            lines = cls.filepath.read_text(encoding="utf-8").splitlines()
            told = "\n".join(
                f"    {field.name}: {comment(lines, field.lineno - 1, field.endlineno - 1)}"
                for field in cls.attributes.values()
                if field.annotation is not None and not {"property", "cached"} & field.labels
            )
            cls.docstring.value += f"\n\nAttributes:\n{told}"


def comment(lines: Sequence[str], first: int, last: int) -> str:
    """What stands behind a statement, or in lines of its own above it."""
    if found := BESIDE.search(lines[last]):
        return found[1]
    above: list[str] = []
    while found := ABOVE.match(lines[first - 1 - len(above)]):
        above.insert(0, found[1])
    return " ".join(above)

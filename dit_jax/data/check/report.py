"""What a check found, as short text: a table of counts, then the problems, grouped by kind."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dit_jax.data.annotations import PUBLISHED, Count
from dit_jax.data.entries import Annotations
from dit_jax.strict import counted

EXAMPLES = 3  # problems of a kind that are spelled out
WIDTH = 160  # characters of an example
UNSTATED = Count(None, None)


@dataclass(frozen=True)
class Problem:
    """Something wrong with one record, or with the data set (then `name` is the data set's)."""

    kind: str
    fatal: bool  # stops a build
    name: str
    text: str
    unseen: str = ""  # name or picture of the records, where a build would not find this itself


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that was found; `str` is for people."""

    dataset: str
    counts: dict[str, tuple[int, int]]  # split → referents, expressions
    pictures: dict[str, int]  # split → different pictures
    nothing: dict[str, int]  # split → referents where nothing is meant
    problems: tuple[Problem, ...]
    unchecked: tuple[str, ...]  # what could not be checked, and why

    @property
    def fatal(self) -> tuple[Problem, ...]:
        """What stops a build."""
        return tuple(problem for problem in self.problems if problem.fatal)

    @property
    def hopeless(self) -> tuple[Problem, ...]:
        """The fatal problems that leaving out records cannot help."""
        return tuple(problem for problem in self.fatal if problem.name == self.dataset)

    def broken(self, annotations: Annotations) -> dict[str, str]:
        """Records that a build must be told are broken, by name, and why."""
        why = {p.unseen: f"{p.kind}: {p.text}" for p in self.fatal if p.unseen}
        entries = [entry for split in annotations.splits.values() for entry in split]
        return {
            entry.name: why[key]
            for entry in entries
            for key in (entry.file_name, entry.name)
            if key in why
        }

    def remarks(self) -> tuple[str, ...]:
        """A line for each kind of problem."""
        lines = []
        for kind, problems in _by_kind(self.problems).items():
            first = problems[0]
            where = "" if first.name == self.dataset else f"{first.name}: "
            count = f"{len(problems):,}, the first: " if len(problems) > 1 else ""
            lines.append(f"{kind}: {count}{_short(where + first.text)}")
        return tuple(lines)

    def __str__(self) -> str:
        warnings = [problem for problem in self.problems if not problem.fatal]
        parts = [
            f"{self.dataset}: {counted(_sum(self.counts, 0), 'referent')},"
            f" {counted(_sum(self.counts, 1), 'expression')}",
            _table(self),
            _groups("Stops the build", self.fatal, dataset=self.dataset),
            _groups("Worth knowing", warnings, dataset=self.dataset),
            "\n".join(f"Not checked: {text}" for text in self.unchecked),
            "" if self.problems else "No problem was found.",
        ]
        return "\n\n".join(part for part in parts if part)


def verdict(found: tuple[int, int], expected: Count) -> str:
    """How the counts of a split compare with the published ones."""
    if expected == UNSTATED:
        return "no published count"
    if found == (0, 0):
        return "missing"
    pairs = [(a, b) for a, b in zip(found, expected, strict=True) if b is not None]
    if any(a != b for a, b in pairs):
        return "differs"
    return "as published" if len(pairs) == 2 else "as published, where known"


def _table(report: Report) -> str:
    """A row for each split; without the columns that would be empty."""
    published = PUBLISHED.get(report.dataset, {})
    columns: dict[str, list[str]] = {"split": [*dict.fromkeys((*published, *report.counts))]}
    found = [report.counts.get(split, (0, 0)) for split in columns["split"]]
    expected = [published.get(split, UNSTATED) for split in columns["split"]]
    for place, what in enumerate(("referents", "expressions")):
        columns[what] = [_number(counts[place]) for counts in found]
        if published:
            columns[f"published {what}"] = [_number(counts[place]) for counts in expected]
    for what, counts in (("pictures", report.pictures), ("no target", report.nothing)):
        if any(counts.values()):
            columns[what] = [_number(counts.get(split, 0)) for split in columns["split"]]
    if published:
        columns["verdict"] = list(map(verdict, found, expected))
    titles = ["published" if name.startswith("published") else name for name in columns]
    return _aligned([titles, *zip(*columns.values(), strict=True)])


def _number(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cells; numbers and what stands above them to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = [cell[:1].isalpha() for cell in rows[-1]]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if text else cell.rjust(width)
            for cell, width, text in zip(row, widths, left, strict=True)
        ).rstrip()
        for row in rows
    )


def _groups(title: str, problems: Sequence[Problem], *, dataset: str) -> str:
    if not problems:
        return ""
    lines = [f"{title} ({len(problems):,}):"]
    for kind, same in _by_kind(problems).items():
        lines.append(f"  {kind}: {len(same):,}")
        for problem in same[:EXAMPLES]:
            where = "" if problem.name == dataset else f"{problem.name}: "
            lines.append(f"    {_short(where + problem.text)}")
    return "\n".join(lines)


def _by_kind(problems: Iterable[Problem]) -> dict[str, list[Problem]]:
    """Fatal kinds first, then in the order in which they were found."""
    kinds: dict[str, list[Problem]] = {}
    for problem in sorted(problems, key=lambda problem: not problem.fatal):
        kinds.setdefault(problem.kind, []).append(problem)
    return kinds


def _short(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"


def _sum(counts: dict[str, tuple[int, int]], place: int) -> int:
    return sum(pair[place] for pair in counts.values())

"""What a compiled program moves, read from its optimised HLO text: between chips, and from HBM.

XLA's own cost analysis counts the body of a loop once; here it counts as often as it runs.
"""

import collections
import dataclasses
import re
from collections.abc import Iterator

BETWEEN = "between slices"
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}
BYTES |= {"s64": 8, "u64": 8, "f64": 8, "c64": 8}  # others have four
ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{")
LINE = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)")
CALLED = re.compile(
    r"(calls|to_apply|body|condition|\w+_computations?)=\{?(%[\w.\-]+(?:, %[\w.\-]+)*)"
)
# Names for what is there anyway, and the ends of copies that were counted when they began.
FREE = ("parameter", "tuple", "get-tuple-element", "bitcast", "constant", "while", "conditional")
FREE += ("call", "after-all", "iota", "partition-id", "replica-id", "async-done", "async-update")


@dataclasses.dataclass(frozen=True)
class Array:
    shape: tuple[int, ...]
    bytes: float
    in_hbm: bool  # not in one of the chip's own memories


@dataclasses.dataclass(frozen=True)
class Instruction:
    name: str
    arrays: tuple[Array, ...]  # of its result
    kind: str
    rest: str  # operands and attributes

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.\-]+)", self.rest.split(")", 1)[0])


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Of one chip, each time that the program runs."""

    # kind → how often, bytes of the whole results; what goes to other slices, of a chip's own part
    collectives: dict[str, tuple[int, float]]
    links: float  # bytes that a chip sends inside its slice, whatever the way
    hbm: float  # bytes that instructions read and write

    @staticmethod
    def of(text: str) -> "Traffic":
        computations, entry = parse(text)
        runs, own = executions(computations, entry)
        seen: dict[str, tuple[str, float, float, float]] = {}
        for name, instructions in computations.items():
            for one in instructions:
                kind = one.kind.removesuffix("-start")
                if kind == "send" and "megascale" in one.rest:
                    seen[one.name] = (BETWEEN, runs[name], one.arrays[0].bytes, 0)
                elif kind in KINDS and runs[name]:
                    # An overlapped collective is written down where it starts, goes on and ends.
                    channel = re.search(r"channel_id=(\d+)", one.rest)
                    key = channel[1] if channel else one.name
                    seen[key] = max(seen.get(key, (kind, 0, 0, 0)), (kind, runs[name], *sent(one)))
        found = {
            kind: (round(sum(r for k, r, *_ in seen.values() if k == kind)),
                   sum(r * size for k, r, size, _ in seen.values() if k == kind))
            for kind in (*KINDS, BETWEEN)
        }  # fmt: skip
        links = sum(r * over for _, r, _, over in seen.values())
        hbm = sum(n * read(computations[name], loop) for name, (n, loop) in own.items())
        return Traffic({k: v for k, v in found.items() if v[0]}, links, hbm)


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """Instructions of each computation, in the text's order; and the name of the first to run."""
    computations: dict[str, list[Instruction]] = {}
    entry = ""
    for line in text.splitlines():
        if head := HEAD.match(line):
            here = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif one := LINE.match(line):
            here.append(Instruction(one[1], tuple(arrays(one[2])), one[3], one[4]))
    return computations, entry


def arrays(kind: str) -> Iterator[Array]:
    for dtype, extents, layout in ARRAY.findall(kind):
        shape = tuple(int(n) for n in extents.split(",") if n)
        size = BYTES.get(dtype, 4)
        for n in shape:
            size *= n
        yield Array(shape, size, "S(" not in layout)


def executions(computations: dict[str, list[Instruction]], entry: str):
    """How often each computation runs, and of those that are not inside an instruction of another
    also in a loop of how many turns."""
    runs = collections.defaultdict(float, {entry: 1.0})
    own = {entry: (1.0, 1)}
    for name in reversed(computations):  # callers come last
        for one in computations[name]:
            called = dict(CALLED.findall(one.rest))
            turns = trips(computations, called.get("condition", "")) if one.kind == "while" else 1
            for role, names in called.items():
                for callee in re.findall(r"%([\w.\-]+)", names):
                    runs[callee] += runs[name] * turns
                    outside = one.kind in ("while", "conditional", "call") and name in own
                    if outside and role != "condition":
                        own[callee] = (own.get(callee, (0, 0))[0] + own[name][0] * turns, turns)
    return runs, own


def trips(computations: dict[str, list[Instruction]], condition: str) -> int:
    """The number that a loop's counter is compared with."""
    limits = [
        int(one.rest.split(")")[0])
        for one in computations.get(condition.strip("%"), ())
        if one.kind == "constant" and one.rest.split(")")[0].isdigit()
    ]
    return max(limits, default=1)


def sent(one: Instruction) -> tuple[float, float]:
    """Bytes of a collective's whole result, and those that each of its chips sends."""
    n, kind = group(one.rest), one.kind.removesuffix("-start")
    listed = one.arrays[: len(one.arrays) // 2] if kind != one.kind else one.arrays
    if kind == "collective-permute":
        size = one.arrays[0].bytes if kind != one.kind else sum(x.bytes for x in one.arrays)
        return size, size
    size = sum(x.bytes for x in listed)
    if kind == "all-gather" and kind != one.kind:
        size = sum(x.bytes for x in one.arrays[len(one.arrays) // 2 :])
    if kind == "reduce-scatter":
        size *= n
    return size, size * (n - 1) / n * (2 if kind == "all-reduce" else 1)


def group(attributes: str) -> int:
    """How many chips a collective joins."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return listed[1].count(",") + 1
    if counted := re.search(r"replica_groups=\[\d+,(\d+)\]", attributes):
        return int(counted[1])
    if mesh := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", attributes):
        sizes = {axis: int(n) for axis, n in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        size = 1
        for axis in re.findall(r"'(\w+)'", mesh[2]):
            size *= sizes[axis]
        return size
    return 1


def read(instructions: list[Instruction], turns: int) -> float:
    """Bytes that a computation reads from HBM and writes there."""
    made = {one.name: one.arrays for one in instructions}

    def cost(array: Array) -> float:
        # Of what is stacked for a loop, a turn takes its own part.
        stacked = turns > 1 and array.shape[:1] == (turns,)
        return array.in_hbm * array.bytes / (turns if stacked else 1)

    total = 0.0
    for one in instructions:
        allocated = 'custom_call_target="AllocateBuffer"' in one.rest
        if one.kind in FREE or one.kind.endswith("-done") or allocated:
            continue
        if one.kind.endswith("-start") or one.kind == "dynamic-slice":
            moved = min((x.bytes for x in one.arrays if x.shape), default=0)
            total += moved * sum(x.in_hbm for x in one.arrays if x.shape)
        elif one.kind in ("send", "recv"):
            total += one.arrays[0].bytes
        elif one.kind == "dynamic-update-slice":
            total += 2 * sum(map(cost, made.get(one.operands[1], ())))
        else:
            taken = [x for name in set(one.operands) for x in made.get(name, ())]
            total += sum(map(cost, (*one.arrays, *taken)))
    return total

"""Read a pickle of plain data, and nothing else.

REFER ships its expressions as a pickle, and `pickle.load` runs whatever program a pickle holds. So
`genops` reads the program first: only opcodes of plain data, no index or length beyond the file's
size, no tuples that take long to hash. Then Python's own reader runs it, and finds no global but
the names with which protocols 0-3 spell a set and a bytes string.
"""

import codecs
import io
import os
import pickle
from pathlib import Path
from pickletools import genops, markobject, opcodes
from typing import Any

PLAIN = {"dict", "list", "tuple", "set", "str", "bytes", "bytes_or_str", "int", "int_or_bool"}
PLAIN |= {"bool", "float", "None"}
ADMITTED = {code.name for code in opcodes if {kind.name for kind in code.stack_after} <= PLAIN}
ADMITTED |= {"MARK", "GET", "BINGET", "LONG_BINGET", "MEMOIZE", "GLOBAL", "STACK_GLOBAL", "REDUCE"}
SIZED, PUTS = {"PUT", "LONG_BINPUT", "FRAME"}, {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
ASCII = bytes(byte if byte < 128 and byte != ord("\\") else ord("?") for byte in range(256))


def load(path: str | os.PathLike[str]) -> Any:
    """Load a pickle of dict, list, tuple, set, str, bytes, int, float, bool and None.

    Strings of Python 2 are read as UTF-8, and as Latin-1 from the first byte on that is not.
    Raises ValueError, naming the file, for anything else or for a damaged file.
    """
    data = Path(path).read_bytes()
    try:
        _check(data)
        return _Reader(
            io.BufferedReader(io.BytesIO(data)), encoding="utf-8", errors="latin1_rest"
        ).load()
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise ValueError(f"{path}: not a pickle of plain data ({error!s:.200}).") from error


class _AsciiLines(io.BytesIO):
    def readline(self) -> bytes:  # `genops` of Python 3.11 reads no other string of Python 2
        return super().readline().translate(ASCII)


def _check(data: bytes) -> None:
    """Raise ValueError for what Python's reader must not run."""
    stack, marks, memo, tuples = [], [], {}, False  # weights: of a tuple 1 + 2 * what it holds
    for opcode, argument, _ in genops(_AsciiLines(data)):
        name = opcode.name
        beyond = name in SIZED and not 0 <= argument <= len(data)
        if beyond or name not in ADMITTED or (name == "GLOBAL" and argument not in GLOBALS):
            raise ValueError(f"it asks for {argument or 'an object'}, opcode {name}")
        if name in PUTS:
            memo[len(memo) if argument is None else argument] = stack[-1] if stack else 0
        elif not (tuples := tuples or name in TUPLES):
            continue  # nothing weighs before the first tuple
        elif name.endswith("GET"):
            stack.append(memo.get(argument, 0))
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "POP" and marks[-1:] == [len(stack)]:
            marks.pop()
        else:
            before = [*opcode.stack_before, markobject]
            end = (marks or [0]).pop() if markobject in opcode.stack_before else len(stack)
            start = max(0, end - before.index(markobject))
            weight = 1 + 2 * sum(stack[start:]) if name in TUPLES else 0
            if weight > 200 + 16 * len(data):
                raise ValueError("tuples are nested too deeply")
            stack[start:] = [weight] * len(opcode.stack_after)


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module} {name}" not in GLOBALS:
            raise ValueError(f"it asks for {module}.{name}")
        return GLOBALS[f"{module} {name}"]


def _bytes(text: Any = "", encoding: Any = "latin1") -> bytes:
    if encoding != "latin1":
        raise ValueError("it asks for bytes in another encoding than latin1")
    return str.encode(text, encoding)


GLOBALS = {"builtins set": set, "__builtin__ set": set}
GLOBALS |= {"_codecs encode": _bytes, "__builtin__ bytes": _bytes}
codecs.register_error("latin1_rest", lambda e: (str(e.object[e.start :], "latin1"), len(e.object)))

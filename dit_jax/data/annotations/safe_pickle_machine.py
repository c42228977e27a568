"""The machine that a pickle is a program for; `safe_pickle_opcodes` says what it can do."""

import pickletools
from collections.abc import Callable
from typing import Any

STOP = ord(".")


class Refused(Exception):
    """What the pickle asks for that is not plain data."""


class Machine:
    """The pickle machine: a stack of values, marks on it, and numbered values to come back to."""

    def __init__(self, data: bytes):
        self.data = data
        self.at = 0  # of the next byte
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # what lies below each mark
        self.memo: dict[int, Any] = {}

    def run(self, opcodes: dict[int, Callable[["Machine"], object]]) -> Any:
        """Carry out opcode after opcode; returns the value that the last one leaves."""
        data = self.data
        while True:
            if self.at >= len(data):
                raise ValueError("the file ends before the data do")
            code = data[self.at]
            self.at += 1
            if code == STOP:
                return self.stack.pop()
            if code not in opcodes:
                self.refuse(code)
            opcodes[code](self)

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        start, self.at = self.at, self.at + count
        if count < 0 or self.at > len(self.data):
            raise ValueError(f"{count} bytes expected, {len(self.data) - start} left")
        return self.data[start : self.at]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def line(self) -> bytes:
        start, end = self.at, self.data.index(b"\n", self.at)
        self.at = end + 1
        return self.data[start:end]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def top(self, kind: type) -> Any:
        """The container on top of the stack, to add to."""
        if type(self.stack[-1]) is not kind:
            raise ValueError(f"adds to a {type(self.stack[-1]).__name__} as to a {kind.__name__}")
        return self.stack[-1]

    def refuse(self, code: int) -> None:
        """Say what an opcode that is not of plain data wants."""
        if code in b"c\x93i":
            name = self.line() + b" " + self.line() if code != 0x93 else b"a global"
            raise Refused(f"the global {shown(name)}")
        if code in b"PQ":
            raise Refused("an external object")
        if chr(code) not in pickletools.code2op:
            raise ValueError(f"there is no opcode {code:#04x}")
        raise Refused(f"an object (opcode {pickletools.code2op[chr(code)].name})")


def shown(name: bytes) -> str:
    """A global for people: "os.system"."""
    return name.decode("latin1").replace(" ", ".", 1)[:100]

"""What the pickle machine can do: make containers, strings and numbers, and nothing else.

https://github.com/python/cpython/blob/3.11/Lib/pickletools.py describes every opcode.
"""

import codecs
import struct
from collections.abc import Callable
from typing import Any

from dit_jax.data.annotations.safe_pickle_machine import Machine, Refused, shown

Operation = Callable[[Machine], object]
SCALARS = (str, bytes, int, float, type(None))  # bool is an int

# How old protocols write a set (0-3), and bytes (0-2: `_codecs.encode(text, "latin1")`, `bytes()`).
SET = ("__builtin__ set", "builtins set")
BYTES = ("_codecs encode", "__builtin__ bytes")


class _Name(str):
    """A global, as "module name"; `REDUCE` makes the set or bytes of it."""


def _global(machine: Machine) -> None:
    name = (machine.line() + b" " + machine.line()).decode("latin1")
    _push_name(machine, name)


def _stack_global(machine: Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise ValueError("a global whose name is no text")
    _push_name(machine, f"{module} {name}")


def _push_name(machine: Machine, name: str) -> None:
    if name not in SET + BYTES:
        raise Refused(f"the global {shown(name.encode('latin1', 'replace'))}")
    machine.push(_Name(name))


def _reduce(machine: Machine) -> None:
    """Make the set or the bytes that a name and its arguments stand for."""
    arguments, name = machine.stack.pop(), machine.stack.pop()
    if type(name) is not _Name or type(arguments) is not tuple:
        raise Refused("a call")
    machine.push(_set(*arguments) if name in SET else _bytes(*arguments))


def _set(items: Any = ()) -> set[Any]:
    if type(items) not in (list, tuple):
        raise ValueError(f"a set of {type(items).__name__}")
    return {_key(item) for item in items}


def _bytes(text: Any = "", encoding: Any = "latin1") -> bytes:
    if type(text) is not str or type(encoding) is not str or encoding != "latin1":
        raise ValueError(f"bytes of a {type(text).__name__}, expected text in latin1")
    return text.encode("latin1")


def _key(value: Any) -> Any:
    """A value that is hashed: Python hashes nested tuples by recursion that nothing bounds."""
    flat = value if type(value) is tuple else (value,)
    if not all(isinstance(item, SCALARS) for item in flat):
        raise ValueError(f"a {type(value).__name__} as a key, expected text or a number")
    return value


def _set_items(machine: Machine, pairs: list[Any]) -> None:
    target = machine.top(dict)
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        target[key if type(key) is str else _key(key)] = value


def _set_item(machine: Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _set_items(machine, [key, value])


def _append(machine: Machine) -> None:
    item = machine.stack.pop()
    machine.top(list).append(item)


def _extend(machine: Machine) -> None:
    items = machine.since_mark()
    machine.top(list).extend(items)


def _add(machine: Machine) -> None:
    items = machine.since_mark()
    machine.top(set).update(map(_key, items))


def _dict(machine: Machine) -> None:
    pairs = machine.since_mark()
    machine.push({})
    _set_items(machine, pairs)


def _tuple(count: int) -> Operation:
    def push(machine: Machine) -> None:
        items = [machine.stack.pop() for _ in range(count)]
        machine.push(tuple(reversed(items)))

    return push


def _new(value: Callable[[], Any]) -> Operation:
    return lambda machine: machine.push(value())


def _constant(value: Any) -> Operation:
    return lambda machine: machine.push(value)


def _fixed(count: int, decode: Callable[[bytes], Any]) -> Operation:
    """A value of `count` bytes."""
    return lambda machine: machine.push(decode(machine.take(count)))


def _counted(width: int, decode: Callable[[bytes], Any]) -> Operation:
    """A value after its length, which takes `width` bytes."""
    return lambda machine: machine.push(decode(machine.take(machine.number(width))))


def _line(decode: Callable[[bytes], Any]) -> Operation:
    return lambda machine: machine.push(decode(machine.line()))


def _put(index: Callable[[Machine], int]) -> Operation:
    def put(machine: Machine) -> None:
        machine.memo[index(machine)] = machine.stack[-1]

    return put


def _get(index: Callable[[Machine], int]) -> Operation:
    def get(machine: Machine) -> None:
        number = index(machine)
        if number not in machine.memo:
            raise ValueError(f"comes back to value {number}, which was never kept")
        machine.push(machine.memo[number])

    return get


def _index(width: int) -> Callable[[Machine], int]:
    return lambda machine: machine.number(width)


def _decimal_index(machine: Machine) -> int:
    return int(machine.line())


def _signed(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _integer(line: bytes) -> int | bool:
    return {b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line)


def _long(line: bytes) -> int:
    return int(line.removesuffix(b"L"))


def _utf8(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _python2(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin1")


def _quoted(line: bytes) -> str:
    if len(line) < 2 or line[0] != line[-1] or line[0] not in b"'\"":
        raise ValueError("a string without its quotes")
    return _python2(codecs.escape_decode(line[1:-1])[0])


OPCODES: dict[int, Operation] = {
    0x80: lambda machine: machine.take(1),  # PROTO
    0x95: lambda machine: machine.take(8),  # FRAME
    ord("("): Machine.mark,
    ord("0"): lambda machine: machine.stack.pop() if machine.stack else machine.since_mark(),
    ord("1"): lambda machine: machine.since_mark(),
    # constants and numbers
    ord("N"): _constant(None),
    0x88: _constant(True),
    0x89: _constant(False),
    ord("I"): _line(_integer),
    ord("L"): _line(_long),
    ord("J"): _fixed(4, _signed),
    ord("K"): _fixed(1, ord),
    ord("M"): _fixed(2, lambda data: int.from_bytes(data, "little")),
    0x8A: _counted(1, _signed),
    0x8B: _counted(4, _signed),
    ord("F"): _line(float),
    ord("G"): _fixed(8, lambda data: struct.unpack(">d", data)[0]),
    # text and bytes
    ord("S"): _line(_quoted),
    ord("T"): _counted(4, _python2),
    ord("U"): _counted(1, _python2),
    ord("V"): _line(lambda line: line.decode("raw-unicode-escape")),
    ord("X"): _counted(4, _utf8),
    0x8C: _counted(1, _utf8),
    0x8D: _counted(8, _utf8),
    ord("B"): _counted(4, bytes),
    ord("C"): _counted(1, bytes),
    0x8E: _counted(8, bytes),
    # containers
    ord("]"): _new(list),
    ord("}"): _new(dict),
    ord(")"): _new(tuple),
    0x8F: _new(set),
    0x85: _tuple(1),
    0x86: _tuple(2),
    0x87: _tuple(3),
    ord("t"): lambda machine: machine.push(tuple(machine.since_mark())),
    ord("l"): lambda machine: machine.push(machine.since_mark()),
    ord("d"): _dict,
    ord("a"): _append,
    ord("e"): _extend,
    ord("s"): _set_item,
    ord("u"): lambda machine: _set_items(machine, machine.since_mark()),
    0x90: _add,
    # the memo
    ord("p"): _put(_decimal_index),
    ord("q"): _put(_index(1)),
    ord("r"): _put(_index(4)),
    0x94: _put(lambda machine: len(machine.memo)),
    ord("g"): _get(_decimal_index),
    ord("h"): _get(_index(1)),
    ord("j"): _get(_index(4)),
    # sets and bytes of old protocols
    ord("c"): _global,
    0x93: _stack_global,
    ord("R"): _reduce,
}

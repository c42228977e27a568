"""Plain pickles load in every protocol; hostile ones are refused, and nothing of them runs."""

import collections
import copyreg
import os
import pickle
import random
import string
import subprocess
import sys

import pytest

from dit_jax.data.annotations import safe_pickle

PLAIN = [
    {"sent": "the man's çhair\n\\'\"", "ids": [1, 2**70, -3, 255, 65535, -(2**31)], "none": None},
    {"box": (1.5, float("inf"), -0.0, 1e300), 7: (), (1, "a"): [(1,), (1, 2), (1, 2, 3, 4)]},
    {True, "a", 3},
    set(),
    b"\x00\xff",
    b"",
    "😀" * 300,
    b"x" * 70_000,
]


def load(tmp_path, data):
    path = tmp_path / "refs(unc).p"
    path.write_bytes(data)
    return safe_pickle.load(path)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_loads_in_every_protocol(tmp_path, protocol):
    assert load(tmp_path, pickle.dumps(PLAIN, protocol=protocol)) == PLAIN


@pytest.mark.parametrize("protocol", range(6))
def test_what_python_writes_comes_back_as_python_reads_it(tmp_path, protocol):
    rng = random.Random(protocol)
    for _ in range(10):
        value = drawn(rng, depth=5)
        assert load(tmp_path, pickle.dumps([value, value], protocol=protocol)) == [value, value]


def drawn(rng, depth):
    """A value of plain data; the letters hold what text protocols escape."""
    kind = rng.randrange(10 if depth else 5)
    text = "".join(rng.choices(string.printable + "äß语😀\x00\u2028", k=rng.randrange(6)))
    if kind < 5:
        return (rng.getrandbits(rng.randrange(80)), text, text.encode(), rng.random(), None)[kind]
    items = [drawn(rng, depth - 1) for _ in range(rng.randrange(5))]
    if kind == 5:
        return {rng.getrandbits(9), text}
    return items if kind < 7 else tuple(items) if kind < 8 else dict(zip("abcde", items))  # noqa: B905


def test_shared_and_repeated_values_load(tmp_path):
    words = ["left", "man"]
    value = [words, words, {"tokens": words}] * 300  # more than 256 values to come back to
    again = load(tmp_path, pickle.dumps(value, protocol=2))
    assert again == value and again[0] is again[1]


def test_real_expressions_load_as_python_reads_them(shared):
    path = shared / "data/mini_refcoco/refcoco/refs(unc).p"
    assert safe_pickle.load(path) == pickle.loads(path.read_bytes())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            b"(dp0\nS'sent'\np1\nS'left man'\np2\nsS'ref_id'\np3\nI7\ns.",
            {"sent": "left man", "ref_id": 7},
        ),
        (b"S'the man\\'s \\xc3\\xa7hair'\n.", "the man's çhair"),
        (b"\x80\x02}q\x01U\x04sentq\x02U\x05caf\xc3\xa9s.", {"sent": "café"}),  # UTF-8
        (b"\x80\x02}q\x01U\x04sentq\x02U\x04caf\xe9s.", {"sent": "café"}),  # Latin-1
        (b"c__builtin__\nset\np0\n((lp1\nI1\natp2\nRp3\n.", {1}),
        (b"L12345678901234567890L\n.", 12345678901234567890),
        (b"(I00\nI01\nI2\nF1.5\nNt.", (False, True, 2, 1.5, None)),
        (b"Vcaf\\u00e9\n.", "café"),
    ],
)
def test_pickles_of_python_2_load(tmp_path, data, expected):
    assert load(tmp_path, data) == expected


@pytest.mark.parametrize(
    ("program", "asks_for"),
    [
        ("cos\nsystem\n(S'touch {trap}'\ntR.", "os system, opcode GLOBAL"),
        ("cposix\nsystem\n(S'touch {trap}'\ntR.", "posix system, opcode GLOBAL"),
        ('cbuiltins\neval\n(S\'open("{trap}", "w")\'\ntR.', "builtins eval, opcode GLOBAL"),
        ("c__builtin__\nopen\n(S'{trap}'\nS'w'\ntR.", "__builtin__ open, opcode GLOBAL"),
        ("(S'{trap}'\nS'w'\nibuiltins\nopen\n.", "builtins open, opcode INST"),  # INST
        ("(cbuiltins\nopen\nS'{trap}'\nS'w'\no.", "builtins open, opcode GLOBAL"),  # OBJ
        ("(c__builtin__\nset\nS'{trap}'\nS'w'\no.", "an object, opcode OBJ"),
        ("cpathlib\nPath\n(S'{trap}'\ntR.", "pathlib Path, opcode GLOBAL"),
        ("\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", "builtins.eval"),
        ("\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.", "builtins.getattr"),
        ("c__builtin__\nset.union\n.", "__builtin__ set.union, opcode GLOBAL"),
        ("ccopyreg\n_reconstructor\n.", "copyreg _reconstructor, opcode GLOBAL"),
        ("cpickle\nloads\n.", "pickle loads, opcode GLOBAL"),
        ("c__builtin__\nset\n)\x81.", "an object, opcode NEWOBJ"),
        ("c__builtin__\nset\n)}}\x92.", "an object, opcode NEWOBJ_EX"),
        ("c__builtin__\nset\n(dS'__setstate__'\nS'{trap}'\nsb.", "an object, opcode BUILD"),
        ("](dS'__class__'\nS'{trap}'\nsb.", "an object, opcode BUILD"),
        ("\x82\xf0.", "240, opcode EXT1"),
        ("\x83\xf0\x00.", "240, opcode EXT2"),
        ("\x84\xf0\x00\x00\x00.", "240, opcode EXT4"),
        ("Pexternal\n.", "external, opcode PERSID"),
        ("S'external'\nQ.", "an object, opcode BINPERSID"),
        ("\x80\x05\x97.", "an object, opcode NEXT_BUFFER"),
    ],
)
def test_hostile_pickles_are_refused_and_nothing_runs(tmp_path, program, asks_for):
    trap = tmp_path / "trap"
    with pytest.raises(
        ValueError, match=rf"refs\(unc\).p: not a pickle of plain data \(it asks for {asks_for}"
    ):
        load(tmp_path, program.replace("{trap}", str(trap)).replace("}}", "}").encode("latin1"))
    assert not trap.exists()


class Runs:
    """What an attacker pickles: reading it calls `os.system`."""

    def __init__(self, trap):
        self.trap = trap

    def __reduce__(self):
        return os.system, (f"touch {self.trap}",)


@pytest.mark.parametrize("protocol", range(6))
def test_an_object_that_runs_a_command_does_not(tmp_path, protocol):
    trap = tmp_path / "trap"
    data = pickle.dumps([{"ref_id": 1}, Runs(trap)], protocol=protocol)
    pickle.loads(data)
    assert trap.exists(), "the attack works on Python's own reader"
    trap.unlink()
    with pytest.raises(ValueError, match=r"it asks for (os|posix|nt)[ .]system"):
        load(tmp_path, data)
    assert not trap.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_objects_are_refused(tmp_path, protocol):
    for value in (collections.OrderedDict(a=1), Runs, ValueError("x"), range(3), bytearray(b"x")):
        with pytest.raises(ValueError, match="it asks for "):
            load(tmp_path, pickle.dumps(value, protocol=protocol))


def test_the_registry_of_extensions_is_not_asked(tmp_path):
    """Python's own reader returns a registered object that it saw before without asking again."""
    copyreg.add_extension("os", "system", 240)
    try:
        assert pickle.loads(b"\x82\xf0.") is os.system
        with pytest.raises(ValueError, match="240, opcode EXT1"):
            load(tmp_path, b"\x82\xf0.")
    finally:
        copyreg.remove_extension("os", "system", 240)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "exhausted before seeing STOP"),
        (b"\x80\x04}", "exhausted before seeing STOP"),
        (b"hello", "asks for an object, opcode OBJ"),
        (b"\xff.", "opcode b'.xff' unknown"),
        (b"]K\x01K\x02s.", "list assignment index out of range"),
        (b"K\x01K\x02a.", "no attribute 'append'"),
        (b"(K\x01e.", ""),
        (b"a.", ""),
        (b"(K\x01K\x02K\x03d.", ""),
        (b"\x80\x04\x8c\x02\xff\xfe.", "utf-8"),
        (b"h\x07.", "not found at index 7"),
        (b"Vcaf\\u00\n.", "truncated"),
        (b"Sno quotes\n.", "no string quotes"),
        (b"Fone\n.", "could not convert"),
        (b"I" + b"9" * 5000 + b"\n.", "4300"),
        (b"c__builtin__\nset\n(I1000000000000\ntR.", "not iterable"),
        (b"c__builtin__\nset\n(((lttR.", ""),
        (b"c__builtin__\nbytes\n(I1000000000000\ntR.", "'encode'.*'int' object"),
        (b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.", "another encoding than latin1"),
        (b"c_codecs\nencode\n(S'x'\nS'latin1'\nS'ignore'\ntR.", ""),
        (b"c_codecs\nencode\n(X\x03\x00\x00\x00\xe2\x82\xacS'latin1'\ntR.", "latin-1"),
        (b"}]K\x01s.", "unhashable type: 'list'"),
        (b"\x8f(](tK\x01\x90.", ""),
        (b"]]\x93.", "STACK_GLOBAL requires str"),
        (b"S'os.system'\n(S'touch trap'\ntR.", "'str' object is not callable"),
    ],
)
def test_damaged_pickles_are_named(tmp_path, data, says):
    with pytest.raises(ValueError, match=rf"refs\(unc\).p: not a pickle of plain data \(.*{says}"):
        load(tmp_path, data)


DEEP = 100_000  # a key of twice this depth crashes Python's own reader
BILLIONS = (2**31 - 1).to_bytes(4, "little")
BOMBS = {
    "LONG4": b"\x80\x02\x8b" + BILLIONS + b".",
    "BINBYTES8": b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b".",
    "BINUNICODE8": b"\x80\x04\x8d" + (2**62).to_bytes(8, "little") + b".",
    "BINSTRING": b"T" + b"\xff\xff\xff\xff.",
    "a key nested deeply": b"\x80\x02}" + b")" + b"\x85" * DEEP + b"K\x01s.",
    "a set nested deeply": b"\x80\x04\x8f(" + b")" + b"\x85" * 9 + b"\x90.",
    "a set of protocol 2": b"\x80\x02c__builtin__\nset\n])" + b"\x85" * DEEP + b"a\x85R.",
    "a key that is hashed for ages": b"})" + b"q\x00h\x00h\x00\x87" * 64 + b"K\x01s.",
    "memo slot of billions": b"\x80\x02]r" + BILLIONS + b".",
    "memo slot of billions, text": b"(lp2147483647\n.",
    "memo slot below zero": b"(lp-1\n.",
    "frame of exabytes": b"\x80\x04\x95" + (2**62).to_bytes(8, "little") + b"K\x01.",
}


def test_bombs_are_refused_and_take_no_memory(tmp_path):
    """In a process of its own, which may not take more than 1 GiB."""
    paths = [tmp_path / f"{number}.p" for number in range(len(BOMBS))]
    for path, data in zip(paths, BOMBS.values(), strict=True):
        path.write_bytes(data)
    program = (
        "import resource, sys; from dit_jax.data.annotations import safe_pickle\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
        "for path in sys.argv[1:]:\n"
        "    try: safe_pickle.load(path)\n"
        "    except ValueError as error: print(error)\n"
    )
    command = [sys.executable, "-c", program, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout.splitlines()
    assert done.returncode == 0 and len(said) == len(BOMBS), done.stdout + done.stderr
    for path, line in zip(paths, said, strict=True):
        assert line.startswith(f"{path}: not a pickle of plain data (") and "()" not in line, line


def test_tuples_of_tuples_load(tmp_path):
    deep = ((((((1,),), 2),),), 3)
    polygon = tuple((x, (x, x)) for x in range(1000))
    for value in (deep, [polygon] * 3, {"polygon": (polygon, polygon)}):
        for protocol in range(6):
            assert load(tmp_path, pickle.dumps(value, protocol=protocol)) == value


def test_deep_lists_load(tmp_path):
    value, depth = load(tmp_path, b"]" * 20_000 + b"a" * 19_999 + b"."), 0
    while value:
        value, depth = value[0], depth + 1
    assert depth == 19_999


def laughs(inner):
    """A value that takes a hundred bytes here and exabytes when it is written out."""
    steps = b"".join(b"(" + b"h\x00" * 9 + b"lq\x00" for _ in range(20))
    return b"]q\x00" + steps + inner


@pytest.mark.parametrize(
    "inner",
    [
        b"]\x93.",
        b"Q.",
        b"c_codecs\nencode\n(h\x00h\x00tR.",
        b"c__builtin__\nset\n(h\x00tR.",
        b"}h\x00h\x00s.",
    ],
)
def test_a_value_that_grows_when_it_is_shown_is_not_shown(tmp_path, inner):
    with pytest.raises(ValueError, match="refs"):
        load(tmp_path, laughs(inner))


def test_what_is_said_of_a_hostile_pickle_is_short(tmp_path):
    with pytest.raises(ValueError) as caught:
        load(tmp_path, b"cos\n" + b"system" * 100_000 + b"\n.")
    assert len(str(caught.value)) < 500

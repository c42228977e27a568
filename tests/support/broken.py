"""Strategies of `test_fuzz`: sound files, lists and values with something broken."""

import io
import json
import string

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from small_models import architecture

from dit_jax.models.architecture import to_json

KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")
PIXELS = np.random.default_rng(0).integers(0, 256, (13, 17, 3), np.uint8)
MODES = ("1", "L", "P", "LA", "PA", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16", "La")
PAIR = {"image": "a.png", "text": "the cup", "prompt": {"points": [[1, 2, 1]]}, "sent_id": 3}
ANSWER = {
    "sent_id": 3,
    "text": "the cup",
    "mask": {"size": [4, 5], "counts": "02a7000"},
    "truth": {"size": [2, 2], "counts": [1, 2, 1]},
}


def encoded(kind):
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind)
    return file.getvalue()


TEXT = st.one_of(
    st.text(st.characters(codec=None), max_size=60),  # surrogates too
    st.text(string.printable, max_size=200),
    st.sampled_from(["", " ", "\0", "the cup " * 2000, "[CLS]", "[UNK]", "##a", "\u202e cup", "☃"]),
)
SCALAR = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 9),
    st.sampled_from([2**31, 2**63, 2**64, 10**30, -(10**30)]),
    st.floats(),
    st.text(st.characters(codec=None), max_size=12),
    st.sampled_from(["", "..", "/", "\0", "\ud800", "\u2028", "a" * 300, "../../x.png", "NaN"]),
)
VALUE = st.recursive(
    SCALAR,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
NUMBER = st.floats(-5, 30)
POINTS = VALUE | st.lists(st.tuples(NUMBER, NUMBER, st.integers(-1, 2)), max_size=5)
BOX = VALUE | st.tuples(NUMBER, NUMBER, NUMBER, NUMBER)
IMAGE = st.one_of(
    VALUE,
    st.binary(max_size=40),
    arrays.arrays(arrays.scalar_dtypes(), arrays.array_shapes(min_dims=0, max_dims=4, min_side=0)),
    st.sampled_from(MODES).map(lambda mode: Image.new(mode if mode != "La" else "LA", (3, 2))),
    arrays.arrays(
        np.uint8,
        st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)),
    ),
)


@st.composite
def damaged(draw, originals):
    """Bytes of a sound file: cut, flipped, written over, doubled, or with something in between."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 3))):
        place, piece = draw(st.integers(0, len(data))), draw(st.binary(min_size=1, max_size=6))
        match draw(st.sampled_from(["cut", "flip", "write", "insert", "double"])):
            case "cut":
                del data[place:]
            case "flip":
                data[place : place + 1] = bytes(x ^ piece[0] for x in data[place : place + 1])
            case "write":
                data[place : place + len(piece)] = piece
            case "insert":
                data[place:place] = piece
            case "double":
                data += data[place : place + 200]
    return bytes(data)


@st.composite
def lines(draw, sound):
    """One line of JSON like a sound one, with other values, keys or bytes; or any line."""
    how = draw(st.sampled_from(["values", "values", "any", "bytes", "nested"]))
    if how == "nested":
        return b"[" * draw(st.sampled_from([10, 1000, 5000]))
    if how == "any":
        return json.dumps(draw(VALUE)).encode()
    keys = st.sampled_from([*sound, "id", "x", "split"])
    text = json.dumps(sound | draw(st.dictionaries(keys, VALUE, max_size=3))).encode()
    return draw(damaged([text])) if how == "bytes" else text


@st.composite
def architectures(draw):
    """A sound architecture with some of its values exchanged, at any depth."""
    values = json.loads(json.dumps(to_json(architecture())))
    for _ in range(draw(st.integers(1, 3))):
        part = draw(st.sampled_from([values, values["vit"], values["bert"]]))
        if isinstance(part, dict):
            part[draw(st.sampled_from([*part, "new"]))] = draw(VALUE)
    return values


@st.composite
def configurations(draw):
    """A `config.json` that is not that of the weights, or no JSON at all."""
    sound = {"format": 1, "kind": "dit_sam", "provenance": {}, "architecture": {}}
    values = sound | {"architecture": draw(architectures())}
    values |= draw(st.dictionaries(st.sampled_from([*sound, "bert", "x"]), VALUE, max_size=2))
    text = json.dumps(values).encode()
    return draw(damaged([text])) if draw(st.booleans()) else text


class Large(bytes):
    """Shown by its beginning where a case fails."""

    def __repr__(self):
        return f"<{len(self)} bytes, {bytes(self[:400])!r} …>"


@st.composite
def weights(draw, data):
    """A safetensors file with another length, header, entry or other bytes."""
    length = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + length], data[8 + length :]
    match draw(st.sampled_from(["bytes", "header", "entry", "length"])):
        case "bytes":
            return Large(draw(damaged([data])))
        case "length":
            return Large(draw(st.integers(0, 2**64 - 1)).to_bytes(8, "little") + data[8:])
        case "header":
            header = draw(damaged([header]))
        case "entry":
            entries = json.loads(header)
            entry = entries[draw(st.sampled_from(sorted(entries)))]
            others = st.sampled_from(["F16", "I64", "BF16", "U8", [0, 4], [2**63, 2**63]])
            entry[draw(st.sampled_from([*entry, "new"]))] = draw(VALUE | others)
            header = json.dumps(entries).encode()
    return Large(len(header).to_bytes(8, "little") + header + rest)

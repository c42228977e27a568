"""Decompression bombs are refused before they are decoded; 100 megapixels fit into memory."""

import io
import json
import os
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image
from places import ROOT

from dit_jax.data.pixels import pictures
from dit_jax.data.pixels.picture_size import LARGEST, header, picture_size
from dit_jax.eval.prediction_files import read

GIBIBYTE = 2**30


def png(width, height, rows=b""):
    """A PNG that claims a size; with `rows` of filtered pixels, a whole one."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    claims = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", claims), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def bmp(width, height):
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, *[0] * 6)


def gif(width, height):
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\2\2L\1\0;"
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + b"\0" * 6 + frame


def tiff(width, height):
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8)]
    tags += [(277, 3, 1), (278, 4, height), (279, 4, 1)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"


def ppm(width, height):
    return f"P6 {width} {height} 255\n".encode() + b"\0" * 30


BOMBS = {
    "png": png(100_000, 100_000),
    "whole png": png(15_000, 15_000, bytes(15_001) * 15_000),
    "bmp": bmp(100_000, 100_000),
    "gif": gif(65_535, 65_535),
    "tiff": tiff(100_000, 100_000),
    "ppm": ppm(100_000, 100_000),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_by_what_it_claims(kind, tmp_path):
    (tmp_path / "bomb").write_bytes(BOMBS[kind])
    tracemalloc.start()
    try:
        for call in (pictures.rgb, lambda path: picture_size(path.read_bytes(), name=str(path))):
            with pytest.raises(
                ValueError, match=r"bomb is \d+x\d+ .* more than 200 megapixels; ex"
            ):
                call(tmp_path / "bomb")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_limits_lie_where_they_are_said_to():
    assert header(png(20_000, 10_000)) == ("PNG", (10_000, 20_000))
    with pytest.raises(ValueError, match="cannot be decoded"):  # there are no pixels in it
        pictures.rgb(png(20_000, LARGEST // 20_000))
    with pytest.raises(ValueError, match="megapixels"):
        pictures.rgb(png(20_000, LARGEST // 20_000 + 1))
    with pytest.raises(ValueError, match="picture is 20000x20000"):
        pictures.rgb(np.broadcast_to(np.uint8(3), (20_000, 20_000, 3)))
    with pytest.raises(ValueError, match="picture is 20000x20000"):
        pictures.rgb(Image.new("1", (20_000, 20_000)))


def test_pillows_own_limit_neither_warns_nor_stops():
    """It warns above 89 megapixels and raises above 179."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert header(png(14_000, 14_000)) == ("PNG", (14_000, 14_000))


def test_masks_that_claim_more_than_memory(tmp_path):
    sides = 10**6
    line = {"mask": {"size": [sides, sides], "counts": [sides * sides]}}
    (tmp_path / "a.jsonl").write_text(json.dumps(line) + "\n")
    (found,) = read(tmp_path / "a.jsonl")
    with pytest.raises(ValueError, match="the picture of 'mask' is 1000000x1000000"):
        found.mask()


SCRIPT = """
import resource, sys, time
from pathlib import Path
import numpy as np
from dit_jax.data.pixels import pictures
from dit_jax.predict import outputs
from dit_jax.predict.picture import {kind}
from dit_jax.predict.segmentation import Segmentation

idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pixels = pictures.rgb(sys.argv[1])
thumbnail = outputs.thumbnail(pixels)
picture = {kind}.open(pixels, size=512, name="x")
del pixels
logits = np.random.default_rng(0).normal(size=picture.content[2:]).astype(np.float32)
answer = Segmentation("x", "y", picture.height, picture.width, logits, 0.5, None, None, 0.35)
assert answer.mask.shape == (picture.height, picture.width)
assert answer.probability.max() <= 1
with outputs.Outputs(Path(sys.argv[2]), overwrite=False) as written:
    written.write([answer], thumbnail, about={{"image": "x"}})
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle))
"""


@pytest.mark.parametrize("kind", ["DIT", pytest.param("SAM", marks=pytest.mark.proof)])
def test_100_megapixels_in_bounded_memory(tmp_path, kind):
    """Everything of prediction but the model, which sees no more than its canvas."""
    file = io.BytesIO()
    columns = np.arange(12_500, dtype=np.uint32).astype(np.uint8)
    Image.fromarray(np.tile(columns, (8_000, 1))).save(file, "JPEG")
    (tmp_path / "large.jpg").write_bytes(file.getvalue())
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(kind=kind), tmp_path / "large.jpg", tmp_path / "out"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1.5 * GIBIBYTE  # the logits at the picture's size are 0.4 of it
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 1

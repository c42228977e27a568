"""Pictures of more than 8 bits: the same pixels wherever they are read, and the right ones."""

import io
import json
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from dit_jax.data import from_pillow, records
from dit_jax.data.pixels import decode_image, depth
from dit_jax.data.pixels.pictures import rgb
from dit_jax.data.prepare import prepare

NOISE = np.random.default_rng(0).integers(0, 2**16, (40, 50, 4), np.uint16)
GREY, COLOUR = NOISE[..., 0], NOISE[..., :3]
SAID_12 = "has 16 bits, of which 12 are used; 4095 is read as white."


def by_pillow(kind):
    def encode(pixels):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind)
        return file.getvalue()

    return encode


def by_opencv(ending, *how):
    def encode(pixels):
        if pixels.ndim == 3:
            pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
        return cv2.imencode(ending, pixels, how)[1].tobytes()

    return encode


def pgm(white, *, order=">u2"):
    def encode(pixels):
        height, width = pixels.shape
        return b"P5 %d %d %d\n" % (width, height, white) + pixels.astype(order).tobytes()

    return encode


RAW = (cv2.IMWRITE_TIFF_COMPRESSION, 1)
DEFLATE = (cv2.IMWRITE_TIFF_COMPRESSION, 8)
# How it is written, what, the pixels that are meant, and what is said.
READ = {
    "16 bits": (by_pillow("PNG"), GREY, GREY >> 8, ""),
    "16 bits of colour": (by_opencv(".png"), COLOUR, COLOUR >> 8, ""),
    "16 bits and alpha": (by_opencv(".png"), NOISE, COLOUR >> 8, ""),
    "TIFF": (by_pillow("TIFF"), GREY, GREY >> 8, ""),
    "TIFF of colours": (by_opencv(".tif"), COLOUR, COLOUR >> 8, ""),
    "TIFF of colours, raw": (by_opencv(".tif", *RAW), COLOUR, COLOUR >> 8, ""),
    "TIFF of colours, deflated": (by_opencv(".tif", *DEFLATE), COLOUR, COLOUR >> 8, ""),
    "TIFF with alpha": (by_opencv(".tif"), NOISE, COLOUR >> 8, ""),
    "32 bits": (by_pillow("TIFF"), GREY.astype(np.int32), GREY >> 8, ""),
    "PGM": (pgm(65535), GREY, GREY >> 8, ""),
    "JPEG 2000": (by_pillow("JPEG2000"), GREY, GREY >> 8, ""),
    "8 bits in 8": (by_pillow("TIFF"), (GREY >> 8).astype(np.uint8), GREY >> 8, ""),
    "nothing but black": (by_pillow("PNG"), GREY * 0, GREY * 0, ""),
    "12 bits": (by_pillow("PNG"), GREY >> 4, GREY >> 8, SAID_12),
    "12 bits of colour": (by_opencv(".png"), COLOUR >> 4, COLOUR >> 8, SAID_12),
    "12 bits of colour, TIFF": (by_opencv(".tif"), COLOUR >> 4, COLOUR >> 8, SAID_12),
    "12 bits of colour and alpha": (by_opencv(".png"), NOISE >> 4, COLOUR >> 8, SAID_12),
    "10 bits": (by_pillow("TIFF"), GREY >> 6, GREY >> 8, "of which 10 are used; 1023 is"),
    "8 bits in 16": (by_pillow("PNG"), GREY >> 8, GREY >> 8, "of which 8 are used; 255 is"),
    "a twelfth bit": (by_pillow("PNG"), GREY * 0 + 4095, GREY * 0 + 255, SAID_12),
    "one more": (by_pillow("PNG"), GREY * 0 + 4096, GREY * 0 + 16, ""),
    "floats to 1": (
        by_pillow("TIFF"),
        np.float32([[0, 0.5], [0.25, 1]]),
        np.array([[0, 128], [64, 255]]),
        "has floats from 0 to 1; 1 is read as white.",
    ),
    "floats to 255": (
        by_pillow("TIFF"),
        np.float32([[0, 127.5], [20.2, 255]]),
        np.array([[0, 128], [20, 255]]),
        "has floats from 0 to 255; 255 is read as white.",
    ),
    "floats to 65535": (
        by_pillow("TIFF"),
        np.float32([[0, 256], [40000, 65535]]),
        np.array([[0, 1], [156, 255]]),
        "",
    ),
}
REFUSED = {
    "NaN": (by_pillow("TIFF"), np.float32([[0, np.nan]]), "values from nan to nan; expected 0"),
    "below 0": (by_pillow("TIFF"), np.int32([[-5, 200]]), "values from -5 to 200; expected 0 to 1"),
    "above 65535": (by_pillow("TIFF"), np.int32([[0, 65536]]), "values from 0 to 65536; expected"),
    "floats to 10": (by_pillow("TIFF"), np.float32([[0, 10]]), "values from 0 to 10; expected 0"),
    # Pillow would read white as black, and keep four of twelve bits.
    "JPEG 2000 of colours": (by_opencv(".jp2"), COLOUR, "a JPEG 2000 in colour of more than 8 b"),
    "12 bits of grey and alpha": (
        lambda _: grey_and_alpha(),
        None,
        "uses at most 12 of its 16 bits, as LA;16B; save it as grey or RGB",
    ),
}


def grey_and_alpha():
    """A PNG of 16 bits of grey and alpha, which no encoder at hand writes."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(b"\0" + struct.pack(">4H", 4000, 65535, 10, 65535) for _ in range(2))
    head = struct.pack(">2I5B", 2, 2, 16, 4, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_a_jpeg_2000_that_ends_in_its_header():
    whole = by_opencv(".jp2")(COLOUR)
    cut = whole[: whole.index(b"\xff\x51") + 40]
    with pytest.raises(ValueError, match="cannot be read as RGB"):
        rgb(cut)


@pytest.mark.parametrize("kind", READ)
def test_the_same_pixels_wherever_they_are_read(kind, tmp_path, caplog):
    """By a Segmenter, from records, and by an exported program's runner."""
    encode, written, meant, said = READ[kind]
    data = encode(written)
    (tmp_path / "a picture").write_bytes(data)
    meant = meant if meant.ndim == 3 else np.repeat(meant[..., None], 3, axis=2)
    for found in (
        rgb(tmp_path / "a picture"),
        rgb(data),
        rgb(Image.open(io.BytesIO(data))),
        decode_image(data, name="x"),
    ):
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, meant)
    found, remark = from_pillow.rgb(Image.open(tmp_path / "a picture"))
    np.testing.assert_array_equal(found, meant)
    assert depth(data, name="x") == remark
    assert (said in remark) if said else not remark
    warned = [line.getMessage() for line in caplog.records]
    assert warned == ([] if not said else [f"{tmp_path / 'a picture'} {remark}"] + warned[1:])


@pytest.mark.parametrize("kind", REFUSED)
def test_values_that_are_no_pictures_are_refused(kind):
    encode, written, said = REFUSED[kind]
    for read in (rgb, lambda data: decode_image(data, name="the picture")):
        with pytest.raises(ValueError, match="^the picture cannot be read as RGB: it .*" + said):
            read(encode(written))


def test_a_deep_picture_is_turned_like_others():
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(GREY).save(file, "PNG", exif=exif)
    upright = np.rot90(GREY >> 8, -1)
    np.testing.assert_array_equal(rgb(file.getvalue())[..., 0], upright)
    np.testing.assert_array_equal(decode_image(file.getvalue(), name="x")[..., 1], GREY >> 8)
    turned = decode_image(file.getvalue(), name="x", orientation=6)
    np.testing.assert_array_equal(turned[..., 2], upright)


def test_another_frame_is_read_as_it_is_asked_for():
    file = io.BytesIO()
    frames = [Image.fromarray(pixels) for pixels in (GREY, GREY[::-1])]
    frames[0].save(file, "TIFF", save_all=True, append_images=frames[1:])
    image = Image.open(file)
    image.seek(1)
    np.testing.assert_array_equal(rgb(image)[..., 0], GREY[::-1] >> 8)


def test_own_pictures_of_12_bits_get_a_remark(tmp_path):
    (tmp_path / "a.png").write_bytes(by_pillow("PNG")(GREY >> 4))
    lines = [{"image": "a.png", "text": f"it {i}", "box": [2, 2, 9, 9]} for i in range(2)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = prepare("folder", "", source=tmp_path, out_dir=tmp_path / "out")
    np.testing.assert_array_equal(records.Records(path, "train")[1].image[..., 0], GREY >> 8)
    said = f"pictures of more than 8 bits: train.jsonl line 1: a.png {SAID_12}"
    assert records.manifest(path)["remarks"] == [said]


def test_heic_is_named():
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
    with pytest.raises(ValueError, match="^the picture is HEIC, which is not read; expected JPEG"):
        rgb(heic)
    with pytest.raises(ValueError, match="^x: the picture .64 bytes. is HEIC, which is not read;"):
        decode_image(heic, name="x")

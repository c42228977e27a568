"""Mask pictures as they come: every kind gives the object that was drawn, or says why not."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from dit_jax.data.entries import MaskFile
from dit_jax.data.pixels.mask_pictures import read_mask

SIDE = 64
OBJECT = np.zeros((SIDE, SIDE), bool)
OBJECT[20:40, 20:40] = True
DISK = np.zeros((SIDE, SIDE), np.uint8)
cv2.circle(DISK, (32, 32), 12, 1, -1)
RING = np.zeros((SIDE, SIDE), bool)
RING[18:42, 18:42] = True
RING &= ~OBJECT
WHITE_BLACK = [255, 255, 255, 0, 0, 0, 255, 255, 255]
VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0]


def painted(colour, on):
    pixels = np.full((SIDE, SIDE, 3), on, np.uint8)
    pixels[OBJECT] = colour
    return pixels


def indices(labels, palette):
    image = Image.fromarray(np.uint8(labels), "P")
    image.putpalette(palette + [0] * (768 - len(palette)))  # else Pillow writes fewer bits
    return image


def noise(seed, low, high):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(low, low + 4, (SIDE, SIDE))
    return np.where(OBJECT, rng.integers(high, high + 4, pixels.shape), pixels)


def silhouette(labels, palette, opacity):
    image = indices(labels, palette)
    image.info["transparency"] = bytes(opacity)
    return image


def transparent(colour, alpha=None):
    return np.dstack([colour, np.where(OBJECT, 255, 0) if alpha is None else alpha])


def through_jpeg(quality, pixels=None):
    pixels = OBJECT * np.uint8(255) if pixels is None else pixels
    return cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 0)


def blurred(mask, size=5):
    return cv2.GaussianBlur(np.uint8(mask) * 255, (size, size), 0)


def save(path, picture):
    if not isinstance(picture, Image.Image):
        picture = np.asarray(picture)
        deep = picture.dtype == np.uint16
        picture = Image.fromarray(picture if deep or picture.dtype == bool else np.uint8(picture))
    picture.save(path, "PNG")
    return path


PHOTOGRAPH = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3))
EVIDENT = {  # two values: nothing is said
    "0 and 255": OBJECT * 255,
    "0 and 1": OBJECT * 1,
    "one bit": OBJECT,
    "0 and 38": OBJECT * 38,
    "16 bits, 0 and 1": OBJECT.astype(np.uint16),
    "16 bits, 0 and 65535": OBJECT.astype(np.uint16) * 65535,
    "grey as colours": painted((255, 255, 255), 0),
    "red on black": painted((255, 0, 0), 0),
    "a number in red": painted((1, 0, 0), 0),
    "a number in green": painted((0, 1, 0), 0),
    "nearly black in a palette": indices(OBJECT, [0, 0, 3, 255, 255, 255]),
    "labels in a palette": indices(OBJECT, VOC),
    "a palette of white and black": indices(~OBJECT, [255, 255, 255, 0, 0, 0]),
    "a palette of greys": indices(OBJECT * 255, [level for i in range(256) for level in [i] * 3]),
    "white, transparent outside": transparent(np.full((SIDE, SIDE, 3), 255)),
    "black, transparent outside": transparent(np.zeros((SIDE, SIDE, 3))),
    "black, white and transparent outside": transparent(painted((0, 0, 0), 255)),
    "opaque": transparent(painted((255, 255, 255), 0), np.full((SIDE, SIDE), 255)),
    "white on nothing": transparent(painted((255, 255, 255), 0)),
    "a palette's black on transparent white": silhouette(OBJECT, WHITE_BLACK, [0, 255]),
    "a palette's transparent white behind black": silhouette(~OBJECT, WHITE_BLACK[3:], [255, 0]),
    "a palette's black on transparent black": silhouette(~OBJECT, [0] * 6, [255, 0]),
    "grey and transparent": Image.fromarray(np.uint8(transparent(OBJECT * 255)), "LA"),
}
REMARKED = {  # cut at half, or something odd
    "noise below": (noise(0, 0, 255 - 3), "has 8 values around 0 and 255; above 127.5 is meant."),
    "noise and 255": (np.where(OBJECT, 255, noise(1, 0, 0)), "has 5 values around 0 and 255"),
    "JPEG of quality 20": (through_jpeg(20), "above 127.5 is meant."),
    "JPEG of quality 75": (through_jpeg(75), "above 127.5 is meant."),
    "PASCAL VOC": (
        indices(np.where(RING, 255, OBJECT), VOC),
        "has 176 pixels of index 255, 'ignore': they count as outside.",
    ),
    "1 and 2": (OBJECT + 1, "has no pixel of 0; of 1 and 2, 2 is meant."),
}
LABELS = np.where(RING, 255, OBJECT * 2)
LABELS[:10, :10] = 1
REFUSED = {
    "several labels": (np.minimum(LABELS, 2), "has 3 values: 0 (3,420 px), 2 (576 px), 1 (100 px)"),
    "labels in a palette": (indices(LABELS, VOC), "has 4 values: 0 (3,420 px), 2 (400 px), 255 (1"),
    "PASCAL VOC's labels as grey": (
        np.where(RING, 255, OBJECT),
        "has 3 values: 0 (3,520 px), 1 (4",
    ),
    "labels and 255": (LABELS, 'or the one that is meant: "label": 2.'),
    "labels far apart": (
        np.where(LABELS == 255, 0, LABELS) * 100,
        "has 3 values: 0 (3,596 px), 20",
    ),
    "unsure edges of a palette's opacity": (
        silhouette(np.where(RING, 2, OBJECT), [0] * 9, [0, 255, 128]),
        "has 3 values: 0 (3,520 px), 255 (400 px), 128 (176 px); expected two.",
    ),
    "unsure edges": (
        np.where(RING, 128, OBJECT * 255),
        "has 3 values: 0 (3,520 px), 255 (400 px), ",
    ),
    "16 bits of instances": (
        np.uint16(np.where(LABELS == 1, 26001, np.minimum(LABELS, 2))),
        '26001 (100 px); expected two, or the one that is meant: "label": 2.',
    ),
    "two colours": (
        painted((255, 0, 0), 128),
        'has two colours, neither of them black ("#808080" (3,696 px), "#ff0000" (400 px));',
    ),
    "three colours": (
        np.where(RING[..., None], 200, painted((255, 0, 0), 0)),
        'has 3 values: "#000000" (3,520 px), "#ff0000" (400 px), "#c8c8c8" (176 px);',
    ),
    "numbers in red and green, as panoptic masks have them": (
        np.where(RING[..., None], (0, 1, 0), painted((1, 0, 0), 0)),
        'has 3 values: "#000000" (3,520 px), "#010000" (400 px), "#000100" (176 px);',
    ),
    "a photograph": (PHOTOGRAPH, " values: "),
    "a photograph, cut out": (transparent(PHOTOGRAPH), " values: "),
    "a ramp": (np.tile(np.arange(SIDE) * 4, (SIDE, 1)), "has 64 values: "),
}


@pytest.mark.parametrize("kind", EVIDENT)
def test_two_values_are_a_mask(tmp_path, kind):
    found = read_mask(MaskFile(save(tmp_path / "m.png", EVIDENT[kind])))
    np.testing.assert_array_equal(found.mask, OBJECT)
    assert found.remarks == ()


@pytest.mark.parametrize("kind", REMARKED)
def test_what_is_not_evident_is_said(tmp_path, kind):
    picture, remark = REMARKED[kind]
    found = read_mask(MaskFile(save(tmp_path / "m.png", picture)))
    np.testing.assert_array_equal(found.mask, OBJECT)
    (said,) = found.remarks
    assert remark in said


@pytest.mark.parametrize("kind", REFUSED)
def test_the_rest_is_refused_with_the_count_of_values(tmp_path, kind):
    picture, sentence = REFUSED[kind]
    with pytest.raises(ValueError) as caught:
        read_mask(MaskFile(save(tmp_path / "m.png", picture)))
    said = str(caught.value)
    assert said.startswith(f"the mask picture {tmp_path / 'm.png'} has ") and sentence in said
    assert said.endswith(".") and "\n" not in said and len(said) < 400


@pytest.mark.parametrize("size", [3, 5, 9])
def test_soft_edges_are_cut_at_half(tmp_path, size):
    """An antialiased disk has its own area; "above 0" gave a third more."""
    for picture in (blurred(DISK, size), transparent(PHOTOGRAPH * 0 + 9, blurred(DISK, size))):
        found = read_mask(MaskFile(save(tmp_path / "m.png", picture)))
        assert abs(int(found.mask.sum()) - int(DISK.sum())) <= 4
        assert (blurred(DISK, size) > 0).sum() > 1.15 * DISK.sum()
        assert "values around 0 and 25" in found.remarks[0]


def test_an_inverted_mask_is_suspected(tmp_path):
    file = MaskFile(save(tmp_path / "m.png", ~OBJECT))
    found = read_mask(file)
    np.testing.assert_array_equal(found.mask, ~OBJECT)
    assert found.remarks == (
        'covers most of the picture\'s border; if it is inverted, write "label": 0.',
    )
    found = read_mask(MaskFile(file.path, label=0))
    np.testing.assert_array_equal(found.mask, OBJECT)
    assert found.remarks == ()
    cut_out = MaskFile(save(tmp_path / "c.png", silhouette(OBJECT, WHITE_BLACK, [255, 0])))
    assert read_mask(cut_out).remarks[0].endswith("if it is inverted, turn it.")
    np.testing.assert_array_equal(read_mask(MaskFile(cut_out.path, label=1)).mask, OBJECT)


def test_a_label_picks_what_is_meant(tmp_path):
    two = OBJECT.copy()
    one = LABELS == 1
    grey = save(tmp_path / "grey.png", LABELS)
    palette = save(tmp_path / "palette.png", indices(LABELS, VOC))
    coloured = np.zeros((SIDE, SIDE, 3), np.uint8)
    coloured[two], coloured[one] = (0, 128, 0), (128, 0, 0)
    colours = save(tmp_path / "colours.png", coloured)
    for path in (grey, palette):
        for label, mask in ((2, two), (1, one), ((1, 2), one | two), (255, RING)):
            np.testing.assert_array_equal(read_mask(MaskFile(path, label)).mask, mask)
    for path in (palette, colours):
        for label, mask in (
            ("#008000", two),
            ("#800000", one),
            (("#008000", "#800000"), one | two),
        ):
            np.testing.assert_array_equal(read_mask(MaskFile(path, label)).mask, mask)
    np.testing.assert_array_equal(read_mask(MaskFile(palette, (1, "#008000"))).mask, one | two)
    for path, label in ((grey, 3), (grey, (1, 3)), (colours, 2), (colours, "#0000ff")):
        with pytest.raises(ValueError, match=r"has no pixels of label .*; it has "):
            read_mask(MaskFile(path, label))


@pytest.mark.parametrize("bits", [2, 4])
def test_labels_of_few_bits_are_what_was_written(tmp_path, bits):
    """Pillow stretches the greys of 2 and 4 bits to 0 … 255."""
    labels = np.where(LABELS == 255, 3, LABELS).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "8.png"), labels)
    path = tmp_path / "m.png"
    path.write_bytes(few_bits(labels, bits))
    with pytest.raises(ValueError, match=r"has 4 values: 0 \(3,420 px\), 2 .*, 3 .*, 1 \(100 px"):
        read_mask(MaskFile(path))
    np.testing.assert_array_equal(read_mask(MaskFile(path, 2)).mask, OBJECT)


def chunk(kind, data):
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 24, 48])
def test_a_transparent_colour_is_outside(tmp_path, bits):
    """A tRNS chunk: black on a white that nobody sees."""
    deep, channels = bits // 3 if bits > 16 else bits, 3 if bits > 16 else 1
    white = 2**deep - 1
    pixels = np.where(OBJECT, 0, white).astype(np.uint16 if deep == 16 else np.uint8)
    whole = few_bits(pixels, bits)
    if bits > 4:
        whole = cv2.imencode(".png", np.dstack([pixels] * channels))[1].tobytes()
    path, header = tmp_path / "m.png", 33  # bytes, after which the chunk stands
    clear = chunk(b"tRNS", struct.pack(">H", white) * channels)
    path.write_bytes(whole[:header] + clear + whole[header:])
    found = read_mask(MaskFile(path))
    np.testing.assert_array_equal(found.mask, OBJECT)
    assert found.remarks == ()


def few_bits(labels, bits):
    """A grey PNG, written by hand."""
    places = np.arange(bits - 1, -1, -1)
    rows = np.packbits(((labels[..., None] >> places) & 1).reshape(len(labels), -1), axis=1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", labels.shape[1], labels.shape[0], bits, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_one_value_is_all_or_nothing(tmp_path):
    for value, full in ((0, False), (1, True), (255, True)):
        found = read_mask(MaskFile(save(tmp_path / "m.png", np.full((SIDE, SIDE), value))))
        assert found.mask.all() == full and found.mask.any() == full and found.remarks == ()


def test_a_masks_own_rotation_is_not_applied(tmp_path):
    """Programs copy EXIF from the photograph."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(OBJECT * np.uint8([[1], [2]] * 32)).save(tmp_path / "m.png", exif=exif)
    Image.fromarray(OBJECT).save(tmp_path / "o.png", exif=exif)
    said = ("has an EXIF rotation, which is not applied to masks.",)
    for file in (MaskFile(tmp_path / "m.png", (1, 2)), MaskFile(tmp_path / "o.png")):
        found = read_mask(file)
        np.testing.assert_array_equal(found.mask, OBJECT)
        assert found.remarks == said

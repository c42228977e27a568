"""From an own folder to batches: the example, every way of giving a mask, and the config."""

import dataclasses
import json

import numpy as np
import pytest

from dit_jax.config import Config, Init
from dit_jax.configs import mini, own_data, quickstart
from dit_jax.data.annotations import folder
from dit_jax.data.pipeline.streams import eval_batches, train_batches
from dit_jax.data.pixels.transforms import Augmentation
from dit_jax.data.prepare import prepare
from dit_jax.data.records.folder import Records, manifest
from dit_jax.data.shapes import dataset
from dit_jax.data.tokenizer import Tokenizer
from examples import own_data as example

COUNTS = {"train": 6, "val": 2}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The example's folder, smaller, and its records."""
    root = tmp_path_factory.mktemp("data")
    example.draw(root / "photos", counts=COUNTS)
    path = prepare("folder", "", source=root / "photos", out_dir=root / "records")
    return root / "photos", path


def lines_of(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def drawn(split):
    """The example in order: masks and expressions, an empty mask where nothing is meant."""
    for number in range(COUNTS[split]):
        scene = dataset.scene(split, number, size=example.SIZE, seed=example.SEED)
        for target in scene.targets:
            yield scene.mask(target.number), tuple(e.text for e in target.expressions)
        if number % example.NOTHING_EVERY == 0:
            yield np.zeros_like(scene.owner, bool), (example.absent(scene, number),)


def iou(one, other):
    return (one & other).sum() / (one | other).sum() if other.any() else float(not one.any())


def test_records_are_what_was_drawn(own):
    photos, path = own
    for split in COUNTS:
        lines = lines_of(photos / f"{split}.jsonl")
        records, expected = Records(path, split), list(drawn(split))
        assert len(records) == len(lines) == len(expected)
        for record, line, (mask, expressions) in zip(records, lines, expected, strict=True):
            assert record.expressions == expressions and line["id"] in record.id
            # A polygon goes through the middle of pixels, and fills holes that others leave.
            exact = "mask" in line
            assert iou(record.mask, mask) > (0.999 if exact else 0.8), line
            assert record.image_id > 2**62 and record.image.shape[:2] == mask.shape


def test_the_example_shows_every_way(tmp_path):
    example.draw(tmp_path / "photos")
    found = folder.read(tmp_path / "photos")
    assert {name: len({e.file_name for e in part}) for name, part in found.splits.items()} == (
        example.COUNTS
    )
    entries = [entry for part in found.splits.values() for entry in part]
    kinds = {type(s).__name__ for entry in entries for s in entry.segmentations}
    assert kinds == {"MaskFile", "dict", "list", "tuple"}
    assert any(not entry.segmentations for entry in entries)


def test_batches(own):
    _, path = own
    tokenizer, settings = Tokenizer(dataset.VOCAB), dict(size=64, batch_size=4)
    stream = train_batches(
        Records(path, "train"), tokenizer, augmentation=Augmentation(), seed=0, **settings
    )
    batch = next(stream)
    stream.close()
    assert batch["image"].shape == (4, 64, 64, 3) and batch["input_ids"].shape == (4, 20)
    val = Records(path, "val")
    rows = [
        (row["index"][i], row["mask"][i].any())
        for row in eval_batches(val, tokenizer, **settings)
        for i in np.flatnonzero(row["valid"])
    ]
    assert len(rows) == val.expression_counts().sum() == 9
    assert [index for index, meant in rows if not meant] == [4]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"image": "images/gone.png"}, "photos/images/gone.png is missing"),
        ({"image": "train.jsonl"}, "train.jsonl"),
        ({"mask": "masks/gone.png"}, "photos/masks/gone.png is missing"),
        ({"mask": "train.jsonl"}, "train.jsonl cannot be read, expected a complete PNG"),
        ({"mask": {"size": [2, 3], "counts": [1, 2, 3]}}, "the annotations say 2x3"),
        ({"text": "  "}, "expressions without a word"),
        ({"text": []}, "nothing is said"),
        ({"text": ["the cup", "\u200b"]}, "expressions without a word"),
    ],
)
def test_what_only_pictures_tell_can_be_skipped(tmp_path, change, sentence):
    """Such a line stops the build, which names it; on request it is left out and listed."""
    photos = tmp_path / "photos"
    example.draw(photos, counts=COUNTS)
    lines = lines_of(photos / "train.jsonl")
    (place,) = (i for i, line in enumerate(lines) if line["id"] == "train_003_0")
    lines[place] |= change
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (photos / "train.jsonl").write_text(text, encoding="utf-8")
    tokenizer = Tokenizer(dataset.VOCAB)
    how = dict(source=photos, out_dir=tmp_path / "records", tokenizer=tokenizer)
    name = f"train.jsonl line {place + 1}, id train_003_0"
    with pytest.raises(ValueError, match=sentence) as caught:
        prepare("folder", "", **how)
    assert f"the first: {name}: " in str(caught.value)
    path = prepare("folder", "", on_error="skip", **how)
    assert len(Records(path, "train")) == len(lines) - 1
    (left_out,) = manifest(path)["left_out"]
    assert left_out["record"] == name
    assert prepare("folder", "", **how) == path  # the annotations are the same as then


@pytest.mark.parametrize(("row", "made"), [((), mini), (("tiny",), quickstart)])
def test_config_fits_mini_and_the_quickstart(own, row, made):
    photos, _ = own
    values = own_data.get_config(*row)
    values.data.source = str(photos)
    config = Config.from_dict(values)
    theirs = Config.from_dict(made.get_config()).architecture()
    # A presence head that a model lacks starts fresh.
    assert config.architecture() == dataclasses.replace(theirs, presence=True)
    assert config.model.init == Init(model="", sam="", bert="")
    assert (config.data.dataset, config.data.eval_splits) == ("folder", ("val",))
    assert config.data.augmentation.flip_p == 0.5


def test_config_of_a_row():
    config = Config.from_dict(own_data.get_config("ldit_vit_b"))
    assert (config.model.variant, config.architecture().text_layer) == ("ldit_vit_b", 1)
    assert config.optim.lr < Config.from_dict(own_data.get_config()).optim.lr
    assert dataclasses.replace(config.data, source="x").split_by == ""
    with pytest.raises(ValueError, match="the row of configs/own_data.py is 'ldit_vit'; expected"):
        own_data.get_config("ldit_vit")

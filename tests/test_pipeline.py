"""Batches: what they hold, exact repetition, sharding, resuming, and broken records."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from dit_jax.data.pipeline import eval_batches, expression_table, train_batches
from dit_jax.data.refer import Refer, build
from dit_jax.data.referent import Referent
from dit_jax.data.tokenizer import Tokenizer
from dit_jax.data.transforms import UNCHANGED, Augmentation, letterbox

# pycocotools 2.0.11 hands NumPy an array in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "left", "right", "one", "two", "three"]
SIZE = 32


@dataclass(frozen=True)
class Drawn:
    """A Source of noise pictures; referent i has 1 + i % 3 expressions."""

    length: int = 7

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Referent:
        rng = np.random.default_rng(index)
        height, width = 20 + index, 40
        mask = np.zeros((height, width), bool)
        mask[5:15, index : index + 9] = True
        return Referent(
            image=rng.integers(1, 256, (height, width, 3), np.uint8),
            mask=mask,
            expressions=tuple(f"left {word}" for word in ("one", "two", "three")[: 1 + index % 3]),
            id=f"drawn {index}",
            image_id=index,
        )

    def expression_counts(self) -> np.ndarray:
        return 1 + np.arange(self.length) % 3


@dataclass(frozen=True)
class Blank(Drawn):
    """The same, but referent 3 says nothing."""

    def __getitem__(self, index: int) -> Referent:
        r = super().__getitem__(index)
        said = ("",) if index == 3 else r.expressions
        return Referent(image=r.image, mask=r.mask, expressions=said, id=r.id, image_id=index)


@pytest.fixture
def tokenizer(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n")
    return Tokenizer(path, length=6)


def training(source, tokenizer, **changes):
    settings = {"size": SIZE, "batch_size": 4, "augmentation": Augmentation(), "seed": 0}
    return train_batches(source, tokenizer, **(settings | changes))


def take(iterator, n):
    return [next(iterator) for _ in range(n)]


def assert_same(left, right):
    for one, two in zip(left, right, strict=True):
        assert one.keys() == two.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], two[key])


def test_a_training_batch_is_the_letterboxed_referents(tokenizer):
    source = Drawn()
    batch = next(training(source, tokenizer, augmentation=UNCHANGED))
    shapes = {key: (value.dtype.name, value.shape) for key, value in batch.items()}
    assert shapes == {
        "image": ("uint8", (4, SIZE, SIZE, 3)),
        "content": ("int32", (4, 4)),
        "input_ids": ("int32", (4, 6)),
        "attention_mask": ("int32", (4, 6)),
        "mask": ("uint8", (4, SIZE, SIZE)),
        "index": ("int64", (4,)),
        "valid": ("bool", (4,)),
    }
    for row, index in enumerate(batch["index"]):
        referent = source[int(index)]
        canvas, content = letterbox(referent.image, SIZE)
        np.testing.assert_array_equal(batch["image"][row], canvas)
        assert tuple(batch["content"][row]) == content
        soft, _ = letterbox(referent.mask.astype(np.uint8) * 255, SIZE)
        np.testing.assert_array_equal(batch["mask"][row], soft)
        possible = tokenizer(referent.expressions)[0].tolist()
        assert batch["input_ids"][row].tolist() in possible
    assert batch["valid"].all()


def test_every_epoch_is_a_new_permutation_and_every_expression_comes_up(tokenizer):
    source = Drawn()
    batches = take(training(source, tokenizer, augmentation=UNCHANGED), 7 * 8)
    index = np.concatenate([batch["index"] for batch in batches])
    epochs = index.reshape(-1, len(source))
    assert (np.sort(epochs, axis=1) == np.arange(len(source))).all()
    assert len({tuple(epoch) for epoch in epochs}) > 28
    ids = np.concatenate([batch["input_ids"] for batch in batches])
    for referent in range(len(source)):
        said = {tuple(row) for row in ids[index == referent]}
        assert said == {tuple(row) for row in tokenizer(source[referent].expressions)[0]}


def test_augmentation_differs_between_epochs_and_seeds(tokenizer):
    source = Drawn(length=4)
    first, second = take(training(source, tokenizer), 2)
    other = next(training(source, tokenizer, seed=1))
    for one in range(4):
        for batch in (second, other):
            two = int(np.flatnonzero(batch["index"] == first["index"][one])[0])
            assert not np.array_equal(first["image"][one], batch["image"][two])


def test_the_stream_is_the_same_for_threads_and_worker_processes(tokenizer):
    threads = training(Drawn(), tokenizer)
    workers = training(Drawn(), tokenizer, workers=2)
    assert_same(take(threads, 5), take(workers, 5))
    state = json.loads(json.dumps(workers.get_state()))
    workers.close()
    assert state == threads.get_state()
    expected = take(threads, 2)
    one_worker = training(Drawn(), tokenizer, workers=1)
    one_worker.set_state(state)
    assert_same(take(one_worker, 2), expected)
    one_worker.close()


def test_resuming_equals_never_stopping(tokenizer):
    reference = take(training(Drawn(), tokenizer), 9)
    iterator = training(Drawn(), tokenizer)
    take(iterator, 3)
    state = iterator.get_state()
    take(iterator, 2)  # prefetched and taken, but after the checkpoint
    iterator.set_state(state)
    assert_same(take(iterator, 2), reference[3:5])
    fresh = training(Drawn(), tokenizer)
    fresh.set_state(json.loads(json.dumps(iterator.get_state())))
    assert_same(take(fresh, 4), reference[5:])


@pytest.mark.parametrize("changes", [{"seed": 1}, {"batch_size": 2}, {"source": Drawn(length=6)}])
def test_a_state_of_another_stream_is_refused(tokenizer, changes):
    state = training(Drawn(), tokenizer).get_state()
    with pytest.raises(ValueError, match="belongs to another stream"):
        training(changes.pop("source", Drawn()), tokenizer, **changes).set_state(state)


def test_shards_together_are_the_whole_batch(tokenizer):
    whole = take(training(Drawn(), tokenizer, batch_size=6), 4)
    shards = [
        take(training(Drawn(), tokenizer, batch_size=2, shard_index=i, shard_count=3), 4)
        for i in range(3)
    ]
    for step, batch in enumerate(whole):
        for key, value in batch.items():
            for shard in range(3):
                np.testing.assert_array_equal(shards[shard][step][key], value[shard::3])


def test_evaluation_yields_every_expression_once_in_order(tokenizer):
    source = Drawn()  # 1, 2, 3, 1, 2, 3, 1: 13 expressions
    dataset = eval_batches(source, tokenizer, size=SIZE, batch_size=5)
    batches = list(dataset)
    assert [batch["valid"].sum() for batch in batches] == [5, 5, 3]
    rows = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    assert rows["index"].tolist() == [*range(13), 12, 12]
    for row, (which, expression) in enumerate(expression_table(source)):
        referent = source[int(which)]
        ids, mask = tokenizer([referent.expressions[expression]])
        np.testing.assert_array_equal(rows["input_ids"][row], ids[0])
        np.testing.assert_array_equal(rows["attention_mask"][row], mask[0])
        np.testing.assert_array_equal(rows["image"][row], letterbox(referent.image, SIZE)[0])
    assert_same(list(dataset), batches)


def test_evaluation_shards_cover_everything_in_equally_many_batches(tokenizer):
    parts = [
        list(
            eval_batches(Drawn(), tokenizer, size=SIZE, batch_size=2, shard_index=i, shard_count=4)
        )
        for i in range(4)
    ]
    assert [len(part) for part in parts] == [2] * 4
    seen = [i for part in parts for b in part for i in b["index"][b["valid"]]]
    assert sorted(seen) == list(range(13))
    assert sum(len(b["index"]) for part in parts for b in part) == 16


def test_expression_table():
    expected = [[0, 0], [1, 0], [1, 1], [2, 0], [2, 1], [2, 2], [3, 0]]
    assert expression_table(Drawn(length=4)).tolist() == expected


def test_a_broken_record_is_named(tokenizer):
    with pytest.raises(ValueError, match="^drawn 3: the expression '' is empty"):
        take(training(Blank(), tokenizer), 3)
    with pytest.raises(ValueError, match="^drawn 3: the expression '' is empty"):
        list(eval_batches(Blank(), tokenizer, size=SIZE, batch_size=4))
    workers = training(Blank(), tokenizer, workers=1)
    with pytest.raises(ValueError, match="drawn 3: the expression '' is empty"):
        take(workers, 3)
    workers.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": Drawn(length=0)}, "the data set is empty"),
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"shard_index": 2, "shard_count": 2}, "shard_index is 2, expected 0 to 1"),
    ],
)
def test_impossible_settings_are_refused(tokenizer, changes, message):
    with pytest.raises(ValueError, match=message):
        training(changes.pop("source", Drawn()), tokenizer, **changes)


def test_real_records_flow_through(shared, tmp_path):
    root = shared / "data"
    path = build("refcoco", "unc", source=root / "mini_refcoco", out_dir=tmp_path)
    source, tokenizer = Refer(path, "val"), Tokenizer(root / "bert_vocab/vocab.txt")
    iterator = training(source, tokenizer, size=128, batch_size=8)
    batches = take(iterator, 6)
    assert_same(take(training(source, tokenizer, size=128, batch_size=8), 6), batches)
    assert all((batch["mask"].max(axis=(1, 2)) > 127).all() for batch in batches)
    assert all((batch["input_ids"][:, 0] == 101).all() for batch in batches)
    rows = list(eval_batches(source, tokenizer, size=128, batch_size=32))
    assert sum(batch["valid"].sum() for batch in rows) == 144

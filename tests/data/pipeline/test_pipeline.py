"""Batches: what they hold, exact repetition, sharding, mixing and resuming."""

import json
import os
import time

import grain
import numpy as np
import pytest
from absl import flags
from noise import SIZE, Encoded, Noise, assert_same, small_tokenizer, take, training

from dit_jax.data.pipeline import batches
from dit_jax.data.pipeline.streams import eval_batches, expression_table
from dit_jax.data.pixels.transforms import UNCHANGED, Augmentation, letterbox
from dit_jax.data.tokenizer import Tokenizer


@pytest.fixture
def tokenizer(tmp_path):
    return small_tokenizer(tmp_path)


def test_a_training_batch_is_the_letterboxed_referents(tokenizer):
    source = Noise()
    batch = next(training(source, tokenizer, augmentation=UNCHANGED))
    shapes = {key: (value.dtype.name, value.shape) for key, value in batch.items()}
    assert shapes == {
        "image": ("uint8", (4, SIZE, SIZE, 3)),
        "content": ("int32", (4, 4)),
        "input_ids": ("int32", (4, 6)),
        "attention_mask": ("int32", (4, 6)),
        "mask": ("uint8", (4, SIZE, SIZE)),
        "present": ("bool", (4,)),
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
    source = Noise()
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
    source = Noise(length=4)
    first, second = take(training(source, tokenizer), 2)
    other = next(training(source, tokenizer, seed=1))
    for one in range(4):
        for batch in (second, other):
            two = int(np.flatnonzero(batch["index"] == first["index"][one])[0])
            assert not np.array_equal(first["image"][one], batch["image"][two])


def test_the_stream_is_the_same_for_threads_and_worker_processes(tokenizer):
    threads = training(Encoded(), tokenizer)
    workers = training(Encoded(), tokenizer, workers=2)
    parsed = flags.FLAGS.is_parsed()
    flags.FLAGS.unparse_flags()
    try:
        assert_same(take(threads, 5), take(workers, 5))
        assert not flags.FLAGS.is_parsed()  # which is for the user's program to do
    finally:
        if parsed:
            flags.FLAGS.mark_as_parsed()
    state = json.loads(json.dumps(workers.get_state()))
    workers.close()
    assert state == threads.get_state()
    expected = take(threads, 2)
    one_worker = training(Encoded(), tokenizer, workers=1)
    one_worker.set_state(state)
    assert_same(take(one_worker, 2), expected)
    one_worker.close()


def test_only_what_is_varied_is_decoded_smaller(tokenizer):
    """Of a picture of 40 pixels on a canvas of 16, a quarter would do."""
    source, how = Encoded(), dict(size=16, batch_size=7)
    flips = Augmentation(scales=(1.0,), jitter_p=0.0, flip_p=0.0)
    batches = {
        "scored": next(iter(eval_batches(source, tokenizer, **how, objects=True))),
        "trained": next(training(source, tokenizer, **how, augmentation=UNCHANGED)),
        "varied": next(training(source, tokenizer, **how, augmentation=flips)),
    }
    for name, batch in batches.items():
        for row, index in enumerate(batch["index"]):
            exact, _ = letterbox(source[int(index)].image, 16)
            assert np.array_equal(batch["image"][row], exact) == (name != "varied")


class Counted(Noise):
    """Counts what is read of it."""

    read = 0

    def __getitem__(self, index):
        self.read += 1
        return super().__getitem__(index)


@pytest.mark.parametrize("batches", [1, 2])
def test_what_is_made_ahead_is_bounded_in_bytes(tokenizer, monkeypatch, batches):
    """However many cores the host has."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    source, held = Counted(), batches * 4 * SIZE * SIZE * 4
    for rows in (
        training(source, tokenizer, ahead_bytes=held),
        iter(eval_batches(source, tokenizer, size=SIZE, batch_size=4, ahead_bytes=held)),
    ):
        source.read, expected = 0, 4 * (1 + batches)  # one was taken
        next(rows)
        while source.read < expected:
            time.sleep(0.01)
        time.sleep(0.05)
        rows.close()
        assert source.read == expected


def test_no_more_workers_start_than_memory_is_for(tokenizer, monkeypatch, caplog):
    def start(num_workers):
        raise RuntimeError(f"{num_workers} would start")

    monkeypatch.setattr(grain, "MultiprocessingOptions", start)
    stream = training(Noise(), tokenizer, workers=9, ahead_bytes=7 * 4 * SIZE * SIZE * 4)
    with caplog.at_level("WARNING"), pytest.raises(RuntimeError, match="2 would start"):
        next(stream)
    assert "Of 9 worker processes, 2 start" in caplog.text
    caplog.clear()
    # Where nobody says how many, it is the host that does: threads, unless it is that of a TPU.
    stream = training(Noise(), tokenizer, workers=-1, ahead_bytes=7 * 4 * SIZE * SIZE * 4)
    monkeypatch.setattr(batches, "cores", lambda: 112)
    with caplog.at_level("WARNING"), pytest.raises(RuntimeError, match="2 would start"):
        next(stream)
    monkeypatch.setattr(batches, "cores", lambda: 64)
    next(stream)
    assert not caplog.records


@pytest.mark.parametrize(("cores", "workers"), [(1, 0), (64, 0), (65, 16), (112, 28), (224, 32)])
def test_workers_by_a_hosts_cores(cores, workers):
    assert batches.fitting(cores) == workers


def test_resuming_equals_never_stopping(tokenizer):
    reference = take(training(Noise(), tokenizer), 9)
    iterator = training(Noise(), tokenizer)
    take(iterator, 3)
    state = iterator.get_state()
    take(iterator, 2)  # prefetched and taken, but after the checkpoint
    iterator.set_state(state)
    assert_same(take(iterator, 2), reference[3:5])
    fresh = training(Noise(), tokenizer)
    fresh.set_state(json.loads(json.dumps(iterator.get_state())))
    assert_same(take(fresh, 4), reference[5:])


@pytest.mark.parametrize("changes", [{"seed": 1}, {"batch_size": 2}, {"source": Noise(length=6)}])
def test_a_state_of_another_stream_is_refused(tokenizer, changes):
    state = training(Noise(), tokenizer).get_state()
    with pytest.raises(ValueError, match="belongs to another stream"):
        training(changes.pop("source", Noise()), tokenizer, **changes).set_state(state)


PARTS, WEIGHTS = (4, 8, 2), (1.0, 0.5, 3.0)  # shares of the stream: 4, 4 and 6 of 14


def test_a_mix_shows_each_part_as_often_as_its_weight_says(tokenizer):
    mix = dict(parts=PARTS, weights=WEIGHTS, augmentation=UNCHANGED, batch_size=14)
    batches = take(training(Noise(14), tokenizer, **mix), 8)
    index = np.concatenate([batch["index"] for batch in batches])
    which = np.searchsorted(np.cumsum(PARTS), index, side="right")
    for batch in which.reshape(8, 14):
        assert np.abs(np.bincount(batch, minlength=3) - [4, 4, 6]).max() <= 1
    assert np.bincount(which).tolist() == [32, 32, 48]
    for part, length in enumerate(PARTS):
        epochs = index[which == part].reshape(-1, length)
        start = sum(PARTS[:part])
        assert (np.sort(epochs, axis=1) == np.arange(start, start + length)).all()
        assert len({tuple(epoch) for epoch in epochs}) > 1
    everything = [batch["image"][batch["index"] == 0] for batch in take(mixed(tokenizer), 6)]
    seen = [image.tobytes() for images in everything for image in images]
    assert len(set(seen)) == len(seen) > 1  # varied anew every time


def test_a_mix_is_the_same_for_hosts_and_after_resuming(tokenizer):
    iterator = mixed(tokenizer)
    reference = take(iterator, 3)
    state = json.loads(json.dumps(iterator.get_state()))
    reference += take(iterator, 3)
    resumed = mixed(tokenizer)
    resumed.set_state(state)
    assert_same(take(resumed, 3), reference[3:])
    for own in ([0, 1, 2], [3, 4, 5]):
        assert_same(take(mixed(tokenizer, own=np.array(own)), 6), rows(reference, own))


def test_another_mix_is_another_stream(tokenizer):
    state = mixed(tokenizer).get_state()
    for changes in ({"weights": (1.0, 1.0, 1.0)}, {"parts": (4, 2, 8)}, {"weights": ()}):
        with pytest.raises(ValueError, match="belongs to another stream"):
            mixed(tokenizer, **changes).set_state(state)


def test_parts_without_weights_change_nothing(tokenizer):
    whole, parts = training(Noise(14), tokenizer), mixed(tokenizer, weights=(), batch_size=4)
    assert_same(take(parts, 3), take(whole, 3))
    assert parts.get_state() == whole.get_state()


def mixed(tokenizer, **changes):
    settings = dict(parts=PARTS, weights=WEIGHTS, batch_size=6)
    return training(Noise(14), tokenizer, **(settings | changes))


def test_present_says_where_anything_is_meant(tokenizer):
    source = Noise(nothing=(2, 5))
    batches = [*take(training(source, tokenizer), 7)]
    for batch in batches:
        np.testing.assert_array_equal(batch["present"], ~np.isin(batch["index"], source.nothing))
    for batch in eval_batches(source, tokenizer, size=SIZE, batch_size=5):
        which = expression_table(source)[batch["index"], 0]
        np.testing.assert_array_equal(batch["present"], ~np.isin(which, source.nothing))
        assert (batch["mask"].any(axis=(1, 2)) == batch["present"]).all()


@pytest.mark.parametrize("own", [[0, 1], [4, 5], [1, 2, 5], [3]])
def test_a_host_makes_its_rows_of_the_whole_batch(tokenizer, own):
    whole = take(training(Noise(), tokenizer, batch_size=6), 4)
    part = training(Noise(), tokenizer, batch_size=6, own=np.array(own))
    assert_same(take(part, 4), rows(whole, own))
    state = part.get_state()
    resumed = training(Noise(), tokenizer, batch_size=6)  # on one host
    resumed.set_state(state)
    assert resumed.get_state() == state


def rows(batches, own):
    return [{key: value[own] for key, value in batch.items()} for batch in batches]


def test_evaluation_yields_every_expression_once_in_order(tokenizer):
    source = Noise()  # 1, 2, 3, 1, 2, 3, 1: 13 expressions
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
            eval_batches(Noise(), tokenizer, size=SIZE, batch_size=2, shard_index=i, shard_count=4)
        )
        for i in range(4)
    ]
    assert [len(part) for part in parts] == [2] * 4
    seen = [i for part in parts for b in part for i in b["index"][b["valid"]]]
    assert sorted(seen) == list(range(13))
    assert sum(len(b["index"]) for part in parts for b in part) == 16


def test_expression_table():
    expected = [[0, 0], [1, 0], [1, 1], [2, 0], [2, 1], [2, 2], [3, 0]]
    assert expression_table(Noise(length=4)).tolist() == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": Noise(length=0)}, "the data set is empty"),
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"own": np.array([3, 4])}, r"own is \[3, 4\], expected ascending rows of a batch, 0 to 3"),
        ({"own": np.array([2, 1])}, r"own is \[2, 1\], expected ascending rows"),
        ({"on_error": "ignore"}, "on_error is 'ignore', expected stop or skip"),
        ({"parts": (3, 3)}, r"parts is \(3, 3\), expected positive lengths of sum 7"),
        ({"weights": (1.0,)}, r"parts is \(\), expected positive lengths of sum 7"),
        ({"parts": (3, 4), "weights": (1.0,)}, "a number above 0 for each of the 2 parts"),
        ({"parts": (3, 4), "weights": (1.0, 0.0)}, "a number above 0 for each of the 2 parts"),
    ],
)
def test_impossible_settings_are_refused(tokenizer, changes, message):
    with pytest.raises(ValueError, match=message):
        training(changes.pop("source", Noise()), tokenizer, **changes)


def test_real_records_flow_through(shared, tmp_path):
    from dit_jax.data.annotations import refer  # TFDS takes seconds to import
    from dit_jax.data.records import folder

    root = shared / "data"
    annotations = refer.read("refcoco", "unc", source=root / "mini_refcoco")
    path = folder.build(annotations, out_dir=tmp_path, progress=False)
    source = folder.Records(path, "val")
    tokenizer = Tokenizer(root / "bert_vocab/vocab.txt")
    iterator = training(source, tokenizer, size=128, batch_size=8)
    batches = take(iterator, 6)
    assert_same(take(training(source, tokenizer, size=128, batch_size=8), 6), batches)
    assert all((batch["mask"].max(axis=(1, 2)) > 127).all() for batch in batches)
    assert all((batch["input_ids"][:, 0] == 101).all() for batch in batches)
    rows = list(eval_batches(source, tokenizer, size=128, batch_size=32))
    assert sum(batch["valid"].sum() for batch in rows) == 144

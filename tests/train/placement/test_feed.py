"""Batches that wait on the devices: the position saved is that of the batches that were used."""

import numpy as np
import pytest
from noise import Noise, assert_same, small_tokenizer, take, training

from dit_jax.train.placement.feed import Feed


@pytest.fixture
def stream(tmp_path):
    tokenizer = small_tokenizer(tmp_path)
    return lambda: training(Noise(), tokenizer)


def feed_of(batches, ahead):
    return Feed(batches, lambda batch: batch["index"].copy(), ahead=ahead)


@pytest.mark.parametrize("ahead", [0, 1, 3])
@pytest.mark.parametrize("used", [0, 1, 4])
def test_state_does_not_depend_on_what_waits(stream, ahead, used):
    plain = stream()
    take(plain, used)
    feed = feed_of(stream(), ahead)
    take(feed, used)
    assert feed.get_state() == plain.get_state()
    resumed = feed_of(stream(), ahead)
    resumed.set_state(feed.get_state())
    for fed, expected in zip(take(resumed, 3), take(plain, 3), strict=True):
        assert_same([fed.host], [expected])
        np.testing.assert_array_equal(fed.placed, expected["index"])
    for one in (feed, resumed):
        one.close()


def test_the_next_batch_is_placed_before_it_is_asked_for(stream):
    placed = []
    feed = Feed(stream(), lambda batch: placed.append(batch["index"]), ahead=2)
    assert placed == []  # nothing before the first step
    next(feed)
    assert len(placed) == 3
    next(feed)
    assert len(placed) == 4
    feed.close()


def test_a_closed_feed_goes_on_where_it_was(stream):
    plain, feed = stream(), feed_of(stream(), ahead=2)
    take(plain, 2), take(feed, 2)
    feed.close()
    for fed, expected in zip(take(feed, 2), take(plain, 2), strict=True):
        assert_same([fed.host], [expected])
    feed.close()


def test_states_of_other_streams_are_refused(stream, tmp_path):
    feed = feed_of(stream(), ahead=1)
    with pytest.raises(ValueError, match="belongs to another stream"):
        feed.set_state(feed.get_state() | {"seed": 5})
    with pytest.raises(ValueError, match="ahead is -1"):
        feed_of(stream(), ahead=-1)


def test_a_broken_record_is_an_error_when_its_batch_is_due(stream):
    """Not before: a run that ends before that batch never hears of it."""
    batches, left = stream(), iter(range(3))
    plain = batches.__class__.__next__

    class Breaks(type(batches)):
        def __next__(self):
            if next(left, None) is None:
                raise ValueError("referent 7: cannot be read.")
            return plain(self)

    batches.__class__ = Breaks
    feed = feed_of(batches, ahead=2)
    taken = take(feed, 3)
    state = feed.get_state()
    for _ in range(2):
        with pytest.raises(ValueError, match="referent 7: cannot be read"):
            next(feed)
    assert feed.get_state() == state and len(taken) == 3

"""Broken records while training: one sentence that names the record, or another record instead."""

import json
import logging
import os
import subprocess
import sys
import textwrap
import traceback
from dataclasses import dataclass, replace

import numpy as np
import pytest
from noise import SIZE, Noise, assert_same, small_tokenizer, take, training
from places import ROOT, SUPPORT

from dit_jax.data.pipeline.streams import eval_batches
from dit_jax.data.pixels import run_lengths
from dit_jax.data.pixels.decode import decode_image
from dit_jax.data.referent import Referent, Truth

UNREADABLE = "noise 2: the picture (9 bytes) cannot be decoded"
OTHER_SIZE = "noise 5: the mask's run lengths do not add up to the 1000 pixels of a 25x40"
SILENT = "noise 8: the expression '' is empty, expected at least one word."
DAMAGED = "referent 11: the mask's run lengths are damaged, expected"


@dataclass(frozen=True)
class Broken(Noise):
    """12 referents: 2 has no picture, 5 a mask of another size, 8 an empty text, 11 no mask."""

    length: int = 12
    broken: tuple[int, ...] = (2, 5, 8, 11)

    def __getitem__(self, index: int) -> Referent:
        r = super().__getitem__(index)
        match index if index in self.broken else None:
            case 2:
                return replace(r, image=decode_image(b"no JPEG !", name=r.id))
            case 5:
                return replace(r, mask=run_lengths.decode(b"88", height=25, width=40))
            case 8:
                return replace(r, expressions=("",))
            case 11:
                return replace(r, mask=run_lengths.decode(b"P", height=31, width=40))
        return r

    def truth(self, index: int) -> Truth:
        return self[index].truth() if index == 11 else super().__getitem__(index).truth()


@pytest.fixture
def tokenizer(tmp_path):
    return small_tokenizer(tmp_path)


def skipping(tokenizer, **changes):
    return training(Broken(), tokenizer, **({"on_error": "skip"} | changes))


@pytest.mark.parametrize(
    ("which", "sentence"), [(2, UNREADABLE), (5, OTHER_SIZE), (8, SILENT), (11, DAMAGED)]
)
def test_stopping_names_the_record(tokenizer, which, sentence):
    source = Broken(broken=(which,))
    batches = training(source, tokenizer)
    with pytest.raises(ValueError) as stopped:
        take(batches, 3)
    assert str(stopped.value).startswith(sentence)
    assert "\n" not in str(stopped.value) and not getattr(stopped.value, "__notes__", ())
    with pytest.raises(ValueError) as evaluated:
        list(eval_batches(source, tokenizer, size=SIZE, batch_size=4))
    assert str(evaluated.value) == str(stopped.value)


def test_worker_processes_stop_with_the_same_sentence(tokenizer):
    threads, workers = (training(Broken(), tokenizer, workers=n) for n in (0, 2))
    errors = []
    for batches in (threads, workers):
        with pytest.raises(ValueError) as stopped:
            take(batches, 3)
        errors.append(stopped.value)
    assert str(errors[0]) == str(errors[1])
    frames = traceback.extract_tb(errors[1].__traceback__)
    assert not [frame.filename for frame in frames if "grain" in frame.filename]
    assert threads.get_state() == workers.get_state()  # of the batch before


@pytest.mark.proof
def test_a_user_of_worker_processes_sees_little_more_than_the_sentence(tmp_path):
    small_tokenizer(tmp_path)
    script = tmp_path / "train.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys
            from dataclasses import replace
            import numpy as np
            from dit_jax.data.tokenizer import Tokenizer
            from noise import Noise, take, training

            class WrongMask(Noise):
                def __getitem__(self, index):
                    referent = super().__getitem__(index)
                    return referent if index != 3 else replace(referent, mask=np.ones((4, 4), bool))

                def truth(self, index):
                    return super().__getitem__(index).truth()

            if __name__ == "__main__":
                tokenizer = Tokenizer({str(tmp_path / "vocab.txt")!r}, length=6)
                try:
                    take(training(WrongMask(), tokenizer, workers=2), 3)
                except ValueError as error:
                    sys.exit(f"error: {{error}}")
            """
        )
    )
    path = os.pathsep.join([str(ROOT), str(SUPPORT)])
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    sentence = "noise 3: the mask is 4x4 (height x width) but the picture is 23x40."
    assert lines[-1] == f"error: {sentence}"
    assert not [line for line in lines if "Traceback" in line], done.stderr
    assert len(lines) < 5, done.stderr


def test_skipping_replaces_broken_rows_and_leaves_the_others(tokenizer, caplog):
    sound = take(training(Broken(broken=()), tokenizer), 9)
    iterator = skipping(tokenizer)
    with caplog.at_level(logging.WARNING, logger="absl"):
        batches = take(iterator, 9)
    replaced = 0
    for before, after in zip(sound, batches, strict=True):
        bad = np.isin(before["index"], Broken().broken)
        replaced += bad.sum()
        assert not np.isin(after["index"], Broken().broken).any()
        assert (after["mask"].max(axis=(1, 2)) > 0).all() and before.keys() == after.keys()
        for key in before:
            np.testing.assert_array_equal(after[key][~bad], before[key][~bad])
    assert iterator.skipped_rows == replaced == 12  # 4 in each of 3 epochs
    sentences = {"noise 2": UNREADABLE, "noise 5": OTHER_SIZE, "noise 8": SILENT}
    sentences["referent 11"] = DAMAGED
    assert iterator.skipped.keys() == sentences.keys()
    logged = [record.getMessage() for record in caplog.records]
    for name, sentence in sentences.items():
        assert iterator.skipped[name].startswith(sentence)
        assert logged.count(f"Left out of training: {iterator.skipped[name]}") == 1  # not 3 times
    assert len(logged) == 4


@pytest.mark.proof
def test_skipping_in_a_mix_is_the_same_for_processes_hosts_and_after_resuming(tokenizer):
    mix = dict(parts=(3, 9), weights=(2.0, 1.0), batch_size=6)
    reference = skipping(tokenizer, **mix)
    expected = take(reference, 6)
    for workers in (1, 2):
        iterator = skipping(tokenizer, **mix, workers=workers)
        assert_same(take(iterator, 4), expected[:4])
        state = json.loads(json.dumps(iterator.get_state()))
        iterator.close()
    resumed = skipping(tokenizer, **mix)
    resumed.set_state(state)
    assert_same(take(resumed, 2), expected[4:])
    assert iterator.skipped_rows + resumed.skipped_rows == reference.skipped_rows > 0
    halves = [np.array([0, 1, 2]), np.array([3, 4, 5])]
    hosts = [skipping(tokenizer, **mix, own=own) for own in halves]
    for host, own in zip(hosts, halves, strict=True):
        part = [{key: value[own] for key, value in batch.items()} for batch in expected]
        assert_same(take(host, 6), part)
    assert sum(host.skipped_rows for host in hosts) == reference.skipped_rows


def test_skipping_stays_within_the_part_of_a_mix(tokenizer):
    mix = dict(parts=(3, 9), weights=(3.0, 1.0), batch_size=6)
    sound = take(training(Broken(broken=()), tokenizer, **mix), 6)
    for before, after in zip(sound, take(skipping(tokenizer, **mix), 6), strict=True):
        np.testing.assert_array_equal(before["index"] < 3, after["index"] < 3)


def test_a_stopped_stream_continues_with_skipping(tokenizer):
    stopped = training(Broken(broken=(8,)), tokenizer)
    with pytest.raises(ValueError, match="noise 8"):
        take(stopped, 3)
    resumed = training(Broken(broken=(8,)), tokenizer, on_error="skip")
    resumed.set_state(stopped.get_state())
    take(resumed, 3)
    assert resumed.skipped == {"noise 8": SILENT}


def test_skipping_stops_where_nothing_is_sound(tokenizer):
    @dataclass(frozen=True)
    class Silent(Noise):
        def __getitem__(self, index: int) -> Referent:
            return replace(super().__getitem__(index), expressions=("",))

    batches = training(Silent(), tokenizer, on_error="skip")
    sentence = r"^noise \d: .* It is the last of 100 broken records in a row\.$"
    with pytest.raises(ValueError, match=sentence):
        next(batches)


def test_other_errors_are_not_taken_for_broken_records(tokenizer):
    @dataclass(frozen=True)
    class Unplugged(Noise):
        def __getitem__(self, index: int) -> Referent:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        next(training(Unplugged(), tokenizer, on_error="skip"))


def test_a_record_that_is_broken_only_now_and_then_is_said_to_be(tokenizer, tmp_path):
    @dataclass(frozen=True)
    class Moody(Noise):
        def __getitem__(self, index: int) -> Referent:
            mark = tmp_path / f"{index}"
            if mark.exists():
                return super().__getitem__(index)
            mark.touch()
            raise ValueError("nothing to read")

    with pytest.raises(ValueError, match=r"^noise \d: it could not be read at first, but was"):
        next(training(Moody(), tokenizer))

"""A split that several hosts share is scored as one host scores it, or refused."""

import threading

import numpy as np
import pytest
from drawn import COUNTS, predict, scored

from dit_jax.eval.evaluate import summarise
from dit_jax.eval.outcomes import join
from dit_jax.eval.prediction_files import read
from dit_jax.eval.protocols import PROTOCOLS

ALL = list(PROTOCOLS)


@pytest.mark.parametrize("limit", [0, 7])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_three_shards_joined_equal_one(tokenizer, batch_size, limit):
    settings = {"batch_size": batch_size, "protocols": ALL, "limit": limit, "bootstrap": 20}
    whole = scored(tokenizer, **settings)
    steps, parts = [], []
    for index in range(3):
        ran = []
        counted = {"predict": lambda batch, ran=ran: ran.append(1) or predict(batch)}
        sharding = {"shard_index": index, "shard_count": 3, "keep": 2}
        parts.append(scored(tokenizer, **settings, **sharding, **counted))
        steps.append(len(ran))
        assert len(parts[-1].samples) == 2
    assert len(set(steps)) == 1  # every host runs the model equally often
    assert steps[0] == -(-(limit or sum(COUNTS)) // (3 * batch_size))
    for name in ALL:
        joined = join([part.outcomes[name] for part in parts])
        np.testing.assert_array_equal(joined.table, whole.outcomes[name].table)
        remarks = whole.scores[name]["remarks"]
        about = dict(bootstrap=20, remarks=remarks, score_kind="confidence")
        assert summarise(name, joined, **about) == whole.scores[name]


@pytest.mark.parametrize("hosts", [2, 5])
def test_hosts_that_gather_all_have_the_scores_of_one(tokenizer, hosts):
    whole = scored(tokenizer, protocols=["original", "gres"], bootstrap=20)
    tables: dict[int, np.ndarray] = {}
    barrier = threading.Barrier(hosts)
    found = [None] * hosts

    def host(index):
        def gather(rows):
            tables[index] = rows
            barrier.wait()
            together = np.concatenate([tables[i] for i in reversed(range(hosts))])
            barrier.wait()
            return together

        sharding = {"shard_index": index, "shard_count": hosts, "gather": gather}
        found[index] = scored(tokenizer, protocols=["original", "gres"], bootstrap=20, **sharding)

    threads = [threading.Thread(target=host, args=(index,)) for index in range(hosts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(one.scores == whole.scores for one in found)
    assert len({table.shape for table in tables.values()}) == 1


def test_hosts_that_lose_or_repeat_expressions_are_refused(tokenizer):
    part = {"shard_index": 0, "shard_count": 2}
    with pytest.raises(ValueError, match="scored 7 expressions together, expected 13"):
        scored(tokenizer, **part, gather=lambda rows: rows)
    with pytest.raises(ValueError, match="expression 0 was scored more than once"):
        scored(tokenizer, **part, gather=lambda rows: np.concatenate([rows, rows]))


def test_shards_write_predictions_of_their_own(tokenizer, tmp_path):
    for index in range(2):
        sharding = {"shard_index": index, "shard_count": 2}
        scored(tokenizer, predictions_path=tmp_path / "val.jsonl", **sharding)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [f"val-0000{i}-of-00002.jsonl" for i in range(2)]
    indices = [line.values["index"] for file in files for line in read(file)]
    assert sorted(indices) == list(range(sum(COUNTS)))

"""One split's evaluation: every expression once, exact for any batch size, one batch ahead."""

import json

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from dit_jax.data.referent import Referent
from dit_jax.data.tokenizer import Tokenizer
from dit_jax.eval.evaluate import evaluate, table, write_scores
from dit_jax.eval.metrics import Sums
from dit_jax.eval.protocols import PROTOCOLS

SIZE = 32
COUNTS = (3, 1, 2, 4, 1, 2)  # expressions of each referent
WORDS = ("one", "two", "three", "four", "dog", "left")


class Drawn:
    """Pictures of several shapes, each with one ellipse on it; counts how often one is opened."""

    def __init__(self):
        self.opened: list[int] = []

    def __len__(self) -> int:
        return len(COUNTS)

    def __getitem__(self, index: int) -> Referent:
        self.opened.append(index)
        rng = np.random.default_rng(index)
        height, width = (int(side) for side in rng.integers(20, 70, size=2))
        centre, axes = (width // 2, height // 3), (width // 3, height // 4)
        mask = cv2.ellipse(np.zeros((height, width), np.uint8), centre, axes, 30, 0, 360, 1, -1)
        image = rng.integers(0, 256, size=(height, width, 3), dtype=np.uint8)
        texts = tuple(f"{WORDS[i]} dog left" for i in range(COUNTS[index]))
        return Referent(image, mask.astype(bool), texts, id=f"drawn {index}", image_id=index)

    def expression_counts(self) -> np.ndarray:
        return np.array(COUNTS)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)) + "\n")
    return Tokenizer(path, length=8)


def logits_of(mask: np.ndarray, index: int) -> np.ndarray:
    """What the model says about one expression: the truth, moved and roughened."""
    noise = np.random.default_rng(index).normal(size=(SIZE, SIZE))
    return (np.roll(mask / 255.0, index % 3, axis=1) * 6 - 3 + noise).astype(np.float32)


def predict(batch) -> np.ndarray:
    logits = [logits_of(m, i) for m, i in zip(batch["mask"], batch["index"], strict=True)]
    return np.stack(logits)


def run(tokenizer, **changes):
    settings = {"size": SIZE, "batch_size": 4, "protocols": ["dit", "original"], "progress": False}
    source = changes.pop("source", None) or Drawn()
    return evaluate(changes.pop("predict", predict), source, tokenizer, **(settings | changes))


def test_any_batch_size_writes_the_same_bytes(tokenizer, tmp_path):
    written = {}
    for batch_size in (1, 3, 8):
        scores, _ = run(tokenizer, batch_size=batch_size)
        paths = write_scores(tmp_path / str(batch_size), "drawn", "val", scores)
        assert [p.name for p in paths] == ["drawn-val-dit.json", "drawn-val-original.json"]
        assert all(p.parent == tmp_path / str(batch_size) / "eval" for p in paths)
        assert sorted(paths[0].parent.iterdir()) == sorted(paths)
        written[batch_size] = [p.read_bytes() for p in paths]
    assert written[1] == written[3] == written[8]


def test_scores_equal_a_plain_loop_over_the_expressions(tokenizer):
    scores, _ = run(tokenizer)
    seen = []
    run(tokenizer, predict=lambda batch: seen.append(batch) or predict(batch), batch_size=1)
    referents = np.repeat(np.arange(len(COUNTS)), COUNTS)
    for name, protocol in PROTOCOLS.items():
        sums = Sums()
        for batch, which in zip(seen, referents, strict=True):
            content = tuple(int(side) for side in batch["content"][0])
            truth = Drawn()[int(which)].mask
            pair = protocol(predict(batch)[0], truth, content=content, threshold=0.35)
            sums += Sums.of(pair.predicted, pair.truth)
        assert scores[name] == sums.scores() | {"protocol": name}
        assert 20 < scores[name]["mIoU"] < 95
    assert scores["dit"]["n"] == sum(COUNTS)


def test_a_perfect_model_scores_almost_100(tokenizer):
    scores, _ = run(tokenizer, predict=lambda b: b["mask"].astype(np.float32) / 16 - 8)
    assert scores["original"]["mIoU"] > 90
    assert scores["original"]["P@0.8"] == 100
    none, _ = run(tokenizer, predict=lambda b: np.full(b["mask"].shape, -9, np.float32))
    assert none["dit"]["oIoU"] == none["original"]["mIoU"] == 0


def test_the_model_is_one_batch_ahead_of_the_scoring(tokenizer):
    events = []

    class Pending:
        """Logits that are computed when they are looked at, like a JAX array's."""

        def __init__(self, batch):
            self.batch = batch
            events.append(("start", int(batch["index"][0])))

        def __array__(self, dtype=None, copy=None):
            events.append(("wait", int(self.batch["index"][0])))
            return predict(self.batch)

    run(tokenizer, predict=Pending, batch_size=5)
    starts = [("start", 0), ("start", 5), ("wait", 0), ("start", 10), ("wait", 5), ("wait", 10)]
    assert events == starts


def test_jax_arrays_of_half_precision_are_accepted(tokenizer):
    exact, _ = run(tokenizer)
    half, _ = run(tokenizer, predict=lambda batch: jnp.asarray(predict(batch), jnp.bfloat16))
    assert half["dit"]["mIoU"] == pytest.approx(exact["dit"]["mIoU"], abs=2)


def test_scoring_opens_a_referent_once(tokenizer, monkeypatch):
    source = Drawn()
    run(tokenizer, source=source)
    every_expression_and_each_referent = (sum(COUNTS) + 3) // 4 * 4 + len(COUNTS)
    assert len(source.opened) == every_expression_and_each_referent


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_limit_scores_the_first_expressions_and_says_so(tokenizer, tmp_path, batch_size):
    scores, samples = run(tokenizer, limit=5, batch_size=batch_size, keep=100)
    assert scores["dit"]["n"] == scores["dit"]["limit"] == 5
    assert [s.id for s in samples] == ["drawn 0"] * 3 + ["drawn 1", "drawn 2"]
    path = write_scores(tmp_path, "drawn", "val", scores)[0]
    assert json.loads(path.read_text())["limit"] == 5


@pytest.mark.parametrize("limit", [0, sum(COUNTS), 1000])
def test_a_limit_that_cuts_nothing_is_the_whole_split(tokenizer, limit):
    scores, _ = run(tokenizer, limit=limit)
    assert scores == run(tokenizer)[0]
    assert scores["dit"]["n"] == sum(COUNTS)


def test_written_scores_have_the_promised_keys(tokenizer, tmp_path):
    path = write_scores(tmp_path, "refcoco+", "testA", run(tokenizer)[0])[1]
    assert path == tmp_path / "eval" / "refcoco+-testA-original.json"
    row = json.loads(path.read_text())
    precision = [f"P@0.{x}" for x in range(5, 10)]
    assert list(row) == ["oIoU", "mIoU", *precision, "n", "protocol"]
    assert row["protocol"] == "original"
    assert all(row[key] == round(row[key], 4) for key in row if key != "protocol")


def test_another_threshold_is_named_in_the_scores(tokenizer):
    scores, _ = run(tokenizer, threshold=0.6)
    assert scores["dit"]["threshold"] == 0.6
    assert scores["dit"]["mIoU"] != run(tokenizer)[0]["dit"]["mIoU"]


def test_samples_are_spread_over_the_split(tokenizer):
    first, same = (run(tokenizer, keep=3, batch_size=b)[1] for b in (2, 5))
    assert [s.id for s in first] == [s.id for s in same] == ["drawn 0", "drawn 3", "drawn 5"]
    for sample in first:
        assert sample.image.shape[:2] == sample.truth.shape == sample.predicted.shape
        i, u = (sample.truth & sample.predicted).sum(), (sample.truth | sample.predicted).sum()
        assert sample.iou == pytest.approx(i / u, abs=1e-9)
    assert first[-1].expression == "two dog left"
    assert run(tokenizer, keep=0)[1] == []


def test_bad_input_is_one_sentence(tokenizer):
    with pytest.raises(ValueError, match="no protocol 'lisa'"):
        run(tokenizer, protocols=["lisa"])
    with pytest.raises(ValueError, match="limit is -1"):
        run(tokenizer, limit=-1)
    with pytest.raises(ValueError, match=r"shape \(4, 8, 8\), expected \(4, 32, 32\)"):
        run(tokenizer, predict=lambda batch: predict(batch)[:, :8, :8])
    with pytest.raises(ValueError, match="drawn 0: the logits for 'one dog left' are not finite"):
        run(tokenizer, predict=lambda batch: predict(batch) * np.nan)


def test_table_is_aligned(tokenizer):
    whole, part = run(tokenizer)[0], run(tokenizer, limit=2)[0]
    lines = table({"refcoco val": whole, "testA": part}).split("\n")
    assert len(lines) == 5
    assert len({len(line) for line in lines}) == 1
    columns = ["split", "protocol", "oIoU", "mIoU", *(f"P@0.{x}" for x in range(5, 10)), "n"]
    assert lines[0].split() == columns
    assert lines[1].split()[2:] == ["dit", f"{whole['dit']['oIoU']:.2f}", *lines[1].split()[4:]]
    assert lines[1].endswith(" 13")
    assert lines[4].split()[:2] == ["testA", "original"]
    assert lines[4].endswith(" 2*")

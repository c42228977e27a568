"""What a run trains on and is scored on: mixes, leaks, and how both are recorded."""

import json
import re

import pytest
import refer_folders
from runs import FIVE_STEPS, config_of

from dit_jax.data.mix import Mix
from dit_jax.data.shapes.dataset import VOCAB, Shapes
from dit_jax.train import loop, scoring, sources

# Picture 4 of RefCOCO's val is trained on by RefCOCOg, picture 2 of RefCOCO by RefCOCOg's val.
REFCOCO = {"train": (1, 1, 2, 3), "val": (4, 4, 5), "testA": (6,)}
REFCOCOG = {"train": (4, 4, 4, 7, 8), "val": (2,), "test": (9,)}


def datasets(config):
    return sources.Datasets.of(config.data, size=config.model.image_size)


def training(config, *, allow_leak):
    return datasets(config).training(allow_leak=allow_leak)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("refer")
    refer_folders.write(root, "refcoco", "unc", REFCOCO)
    return refer_folders.write(root, "refcocog", "umd", REFCOCOG)


@pytest.fixture
def mixed(folder):
    """A config of both; keyword arguments change keys of its data section."""

    def make(**changes):
        data = dict(
            dataset="refcoco(unc)+refcocog(umd)",
            source=str(folder),
            cache_dir=str(folder / "records"),
            eval_splits=("refcoco(unc)/val",),
        )
        keys = {f"data__{key}": value for key, value in (data | changes).items()}
        return config_of(model__vocab=str(VOCAB), **keys)

    return make


def images(source):
    return source.image_ids().tolist()


def test_pictures_of_evaluation_splits_are_dropped(mixed):
    data = training(mixed(), allow_leak=False)
    assert isinstance(data.source, Mix)
    assert images(data.source) == [1, 1, 3, 7, 8]
    assert data.source.lengths == (3, 2)
    assert data.leaks.dropped == 4
    assert data.leaks.record() == {
        "policy": "drop",
        "dropped_referents": 4,
        "overlap": {
            "refcoco(unc)/train": {"refcocog(umd)/val": 1},
            "refcocog(umd)/train": {"refcoco(unc)/val": 1},
        },
    }
    text = data.leaks.text()
    assert "refcocog(umd)/test" in text and "training data: 4 referents of these pictures." in text


def test_a_copy_under_another_name_is_the_same_picture(mixed, folder, tmp_path):
    """COCO knows a photograph by its number, an own folder by its bytes: the two meet."""
    own = tmp_path / "photos"
    own.mkdir()
    for number, split in ((4, "train"), (8, "train"), (1, "val")):
        name = f"COCO_train2014_{number:012d}.jpg"
        data = (folder / "images/train2014" / name).read_bytes()
        (own / f"my photo {number}.jpg").write_bytes(data)
        line = {"image": f"my photo {number}.jpg", "text": "it", "box": [2, 2, 9, 9]}
        with (own / f"{split}.jsonl").open("a") as lines:
            lines.write(json.dumps(line) + "\n")
    data = training(mixed(dataset=f"refcoco(unc)+folder({own})"), allow_leak=False)
    assert data.leaks.overlap == {
        "refcoco(unc)/train": {
            "refcoco(unc)/val": 0,
            "refcoco(unc)/testA": 0,
            f"folder({own})/val": 1,
        },
        f"folder({own})/train": {
            "refcoco(unc)/val": 1,
            "refcoco(unc)/testA": 0,
            f"folder({own})/val": 0,
        },
    }
    assert data.source.lengths == (2, 1) and data.leaks.dropped == 3
    assert images(data.source)[:2] == [2, 3]  # of RefCOCO; picture 1 is in the own val


def test_keeping_them_takes_two_words(mixed):
    config = mixed(leaks="keep")
    said = r"keep.*refcoco\(unc\)/train: 1, refcocog\(umd\)/train: 1.*data.leaks=drop, or --allow"
    with pytest.raises(ValueError, match=said):
        training(config, allow_leak=False)
    data = training(config, allow_leak=True)
    assert images(data.source) == [*REFCOCO["train"], *REFCOCOG["train"]]
    assert (data.leaks.policy, data.leaks.dropped) == ("keep", 0)
    assert "not comparable" in data.leaks.text()


def test_allowing_a_leak_does_not_make_one(mixed):
    assert images(training(mixed(), allow_leak=True).source) == [1, 1, 3, 7, 8]


def test_nothing_shared_is_one_line(mixed):
    config = mixed(dataset="refcoco", split_by="unc", eval_splits=("val", "testA"))
    leaks = training(config, allow_leak=False).leaks
    assert leaks.text() == "No training picture is in an evaluation split."
    assert leaks.record() == {"policy": "drop", "dropped_referents": 0, "overlap": {}}


def test_a_split_that_is_trained_on_and_scored_is_refused(mixed):
    config = mixed(dataset="refcoco", split_by="unc", train_split="val", eval_splits=("val",))
    with pytest.raises(ValueError, match=r"no picture of refcoco\(unc\)/val may be trained on"):
        training(config, allow_leak=False)


def test_evaluating_on_another_data_set_guards_it_too(mixed):
    config = mixed(dataset="refcocog(umd)", eval_splits=("test", "refcoco(unc)/val"))
    assert images(training(config, allow_leak=False).source) == [7, 8]


def test_an_epoch_counts_what_the_weights_say(mixed):
    assert training(mixed(), allow_leak=False).epoch == 5
    data = training(mixed(weights=(2.0, 0.5)), allow_leak=False)
    assert data.epoch == 7
    with pytest.raises(ValueError, match=r"data.weights has 1 numbers; expected one for each of"):
        mixed(weights=(1.0,))
    with pytest.raises(ValueError, match="expected numbers above 0"):
        mixed(weights=(1.0, 0.0))


def test_names_of_score_files(mixed):
    labels = {one.key: (one.dataset, one.name) for one in datasets(mixed()).splits}
    assert labels["refcoco(unc)/val"] == ("refcoco", "val")
    both = mixed(eval_splits=("refcocog(umd)/val", "refcocog(google)/val"))
    labels = {one.key: (one.dataset, one.name) for one in datasets(both).splits}
    assert labels["refcocog(google)/val"] == ("refcocog(google)", "val")


@pytest.mark.proof
@pytest.mark.usefixtures("small")
def test_a_run_records_its_leaks(mixed, tmp_path, capsys):
    """In every checkpoint, every score and the exported model; and scores them again alike."""
    splits = ("refcoco(unc)/val", "refcocog(umd)/test")
    config = mixed(eval_splits=splits, weights=(1.0, 2.0))
    loop.train(config, tmp_path)
    said = capsys.readouterr().out
    assert "refcocog(umd)/train" in said and "Left out of the training data: 4 referents" in said
    with loop.Checkpoints(tmp_path, config.checkpoint) as checkpoints:
        meta = checkpoints.meta(checkpoints.latest())
    assert meta["leaks"]["dropped_referents"] == 4
    assert meta["dataset"] == "refcoco(unc)+refcocog(umd)"
    exported = json.loads((tmp_path / "model" / "config.json").read_text())["provenance"]
    assert exported["leaks"] == meta["leaks"]
    paths = [tmp_path / "eval" / f"{name}-dit.json" for name in ("refcoco-val", "refcocog-test")]
    scores = [json.loads(path.read_text()) for path in paths]
    for row in scores:
        assert row["remarks"]["trained_on"]["leaks"] == meta["leaks"]
    assert [row["n"] for row in scores] == [6, 2]
    for model_dir in (None, tmp_path / "model"):
        workdir = tmp_path if model_dir is None else tmp_path / "again"
        scoring.score(config, workdir, model_dir=model_dir)
        assert json.loads((workdir / "eval" / paths[0].name).read_text()) == scores[0]


class Damaged(Shapes):
    """The embedded data set, of which every eighth record cannot be read."""

    def __getitem__(self, index):
        if index % 8 == 3:
            raise ValueError("the picture is damaged.")
        return super().__getitem__(index)

    def truth(self, index):
        return Shapes.__getitem__(self, index).truth()


@pytest.mark.usefixtures("small")
def test_a_broken_record_stops_a_run_or_is_skipped_and_counted(tmp_path, monkeypatch, capsys):
    damaged = Damaged("train", size=64, length=64)
    whole = sources._open
    monkeypatch.setattr(
        sources,
        "_open",
        lambda data, size, one: damaged if one.name == "train" else whole(data, size, one),
    )
    with pytest.raises(ValueError, match=r"^shapes train item \d+ .*: the picture is damaged.$"):
        loop.train(config_of(**FIVE_STEPS), tmp_path / "stop")
    loop.train(config_of(**FIVE_STEPS, data__on_error="skip"), tmp_path / "skip")
    lines = (tmp_path / "skip" / "metrics.jsonl").read_text().splitlines()
    counts = [row["data/skipped"] for row in map(json.loads, lines) if "train/loss" in row]
    assert counts == sorted(counts) and 1 <= counts[-1] <= 8  # of the 40 rows of an epoch of 64
    said = capsys.readouterr().out
    told = f"{counts[-1]} rows held other records than these broken ones "
    (named,) = re.findall(rf"{told}\(\d+\): (.*)", said)
    items = [int(item) for item in re.findall(r"shapes train item (\d+)", named)]
    assert {item % 8 for item in items} == {3} and len(items) >= counts[-1]  # some wait already
